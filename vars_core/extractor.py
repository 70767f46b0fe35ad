"""What the recommender sees a photo with: image → standardised visual features, with every normalisation inside.

ε is a budget in pixels only if nothing outside this module rescales the image. The peers that
attacked *after* mean/std normalisation spent budgets of 0.92 grey levels and called them 4.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vars_core import checkpoint, weights
from vars_core.runtime import device, images_at_once, progress

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def to_images(photos: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) → float32 (N, 3, H, W) in [0, 1], on the 8-bit grid, channels last in memory."""
    tensor = torch.from_numpy(np.array(photos)).to(device())  # a copy: memory maps are read-only
    return tensor.permute(0, 3, 1, 2).float().div_(255)


def batches(photos: np.ndarray, size: int | None = None) -> Iterator[torch.Tensor]:
    """uint8 photos (N, H, W, 3) as images, `size` at a time, `runtime.images_at_once` by default."""
    size = size or images_at_once()
    for start in range(0, len(photos), size):
        yield to_images(photos[start : start + size])


def to_photos(images: torch.Tensor) -> np.ndarray:
    """float (N, 3, H, W) in [0, 1] → uint8 (N, H, W, 3), rounded (never truncated)."""
    return images.detach().mul(255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


class _Residual(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(width_in, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))
        self.skip = nn.Conv2d(width_in, width, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        return F.relu(self.skip(x) + self.second(self.first(x)))


class SmallCNN(nn.Module):
    """Three residual stages; features are the spatial means of all three (colour and texture live in the
    early ones, shape in the last), as in multi-layer image retrieval. About 30 M multiply-adds at 64 px."""

    def __init__(self, widths=(32, 64, 128)):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.stages = nn.ModuleList(_Residual(a, b, 2) for a, b in zip((24, *widths[:-1]), widths, strict=True))

    def forward(self, x):
        x, means = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            means.append(x.mean((2, 3)))
        return torch.cat(means, 1)


def _torchvision_trunk(model: nn.Module) -> nn.Module:
    """The network without its ImageNet classifier: spatial mean of the last feature map."""
    if hasattr(model, "features") and hasattr(model, "classifier"):
        return nn.Sequential(model.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    for head in ("fc", "head", "heads"):
        if hasattr(model, head):
            setattr(model, head, nn.Identity())
            return model
    raise ValueError(f"{type(model).__name__}: no classifier named fc, head, heads or after .features to remove")


def _load_packaged(model: nn.Module, file: Path, name: str, parameter: str) -> None:
    # tensors only, of a file known by its hash: the same network under other names, in the same order
    tensors = torch.load(file, weights_only=True, map_location="cpu").values()
    checkpoint.fit(model, dict(zip(model.state_dict(), tensors, strict=True)), file, name)


def _load_own(model: nn.Module, file: Path, parameter: str) -> None:
    try:
        notes, tensors = checkpoint.read(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{parameter}: there is no weights file {file}") from None
    except checkpoint.ModelFileError as error:
        raise checkpoint.ModelFileError(f"{parameter}: small_cnn wants the extractor of a run; {error}") from None
    if notes.get("extractor") != "small_cnn":
        found = str(notes.get("extractor"))[:80]
        raise checkpoint.ModelFileError(f"{parameter}: {file} holds {found}, not a small_cnn that a run trained")
    checkpoint.fit(model, checkpoint.part("backbone.", tensors), file, "small_cnn")


def _load_weights(model: nn.Module, file: Path, name: str, parameter: str) -> None:
    try:
        tensors, _ = checkpoint.load_tensors(file, "a safetensors file; pickled weights are not read")
    except FileNotFoundError:
        raise FileNotFoundError(f"{parameter}: there is no weights file {file}") from None
    checkpoint.fit(model, tensors, file, name)


def _backbone(name: str, pretrained: bool | str, named: tuple[str, str]) -> tuple[nn.Module, tuple]:
    weights_file = weights.file_of(name, pretrained, named[1])
    hub, load = pretrained is True, _load_packaged if pretrained == weights.PACKAGE else _load_weights
    if name == "small_cnn":
        if hub:
            raise ValueError(f"{named[1]}: no hub has small_cnn; use false, or an extractor.safetensors of a run")
        model = SmallCNN()
        if weights_file:
            _load_own(model, weights_file, named[1])
        return model, ((0.5,) * 3, (0.25,) * 3)
    import timm  # here: the two take seven seconds to import, and the default extractor needs neither
    import torchvision

    if timm.is_model(name):
        model = timm.create_model(name, pretrained=hub, num_classes=1000 if weights_file else 0)
        if weights_file:
            load(model, weights_file, name, named[1])
            model.reset_classifier(0)
        cfg = model.default_cfg
        return model, (cfg["mean"], cfg["std"])
    if name in torchvision.models.list_models():
        model = torchvision.models.get_model(name, weights="DEFAULT" if hub else None)
        if weights_file:
            load(model, weights_file, name, named[1])
        return _torchvision_trunk(model), IMAGENET
    raise ValueError(
        f"{named[0]}: unknown model {name!r}; expected small_cnn, or a name from "
        "timm.list_models() or torchvision.models.list_models()"
    )


class Extractor(nn.Module):
    """f: images (N, 3, H, W) in [0, 1] → features (N, D), standardised with the frozen scaler.

    Errors call the parameters that `name` and `pretrained` come from by their names, `named`."""

    def __init__(
        self, name: str, pretrained: bool | str = False, named=("recommender.extractor", "recommender.pretrained")
    ):
        super().__init__()
        self.name = name
        self.backbone, (mean, std) = _backbone(name, pretrained, named)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(std).view(1, 3, 1, 1))
        self.eval()
        try:
            with torch.no_grad():
                self.dim = self.backbone(torch.zeros(2, 3, 64, 64)).shape[1]
        except (AssertionError, RuntimeError) as error:  # a transformer with a fixed input size, say
            raise ValueError(f"{named[0]}: {name} cannot take photos of 64 px ({error})") from None
        self.register_buffer("feature_mean", torch.zeros(self.dim))
        self.register_buffer("feature_std", torch.ones(self.dim))

    def raw(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone((images - self.pixel_mean) / self.pixel_std)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.raw(images).float() - self.feature_mean) / self.feature_std

    @torch.no_grad()
    def freeze_scaler(self, photos: np.ndarray) -> None:
        """Mean and standard deviation of each feature over `photos` (the training items), once and for all:
        a scaler that follows the catalogue would let one attacked image move every item's features."""
        self.feature_mean.zero_()
        self.feature_std.fill_(1)
        features = torch.from_numpy(extract(self, photos))
        std = features.std(0)
        self.feature_mean.copy_(features.mean(0))
        # a feature that hardly varies would turn rounding noise into a large coordinate
        self.feature_std.copy_(std.clamp_min(0.05 * std.median().clamp_min(1e-6)))

    def save(self, file: Path, **metadata: str) -> None:
        checkpoint.write(file, self.state_dict(), extractor=self.name, **metadata)

    @classmethod
    def load(cls, file: Path) -> "Extractor":
        notes, tensors = checkpoint.read(file)
        if not isinstance(notes.get("extractor"), str):
            raise checkpoint.ModelFileError(f"{file} holds no extractor")
        model = cls(notes["extractor"])
        checkpoint.fit(model, tensors, file, notes["extractor"])
        return model.to(device()).eval().requires_grad_(False).to(memory_format=torch.channels_last)


@torch.no_grad()
def extract(model: nn.Module, photos: np.ndarray, batch: int | None = None, through: nn.Module | None = None):
    """Features (N, D) float32 of uint8 photos (N, H, W, 3), seen through the filter `through` if one is given.

    Raises ValueError when a feature is not finite (its rows are named)."""
    parts = [model(through(images) if through else images).float().cpu() for images in batches(photos, batch)]
    features = torch.cat(parts).numpy()
    broken = np.flatnonzero(~np.isfinite(features).all(1))
    if len(broken):
        raise ValueError(f"features of {len(broken)} photos are not finite, first rows {broken[:5].tolist()}")
    return features


def agree(one: np.ndarray, other: np.ndarray, tolerance: float = 0.01) -> bool:
    """Whether features (N, D) are the same but for rounding: the difference is at most `tolerance` of a row's length.
    Those of one photo differ by batch and device, on a GPU by 10⁻³ of it where products are rounded coarsely."""
    return bool((np.linalg.norm(one - other, axis=1) <= tolerance * np.linalg.norm(other, axis=1)).all())


def train_on_categories(
    model: Extractor, photos: np.ndarray, labels: np.ndarray, epochs: int, generator: torch.Generator
) -> float:
    """Train `model` to name the category of `photos` (N, H, W, 3) with `labels` (N,); returns the accuracy
    of the last epoch. Labels come from metadata. Raises ValueError with fewer than two categories."""
    classes = int(labels.max()) + 1
    if len(np.unique(labels)) < 2:
        raise ValueError(
            "recommender.extractor: small_cnn learns from categories and this catalogue has one; "
            "give a pretrained extractor instead"
        )
    model.to(device(), memory_format=torch.channels_last).train()
    head = nn.Linear(model.dim, classes).to(device())
    optimiser = torch.optim.AdamW([*model.parameters(), *head.parameters()], 2e-3, weight_decay=0.01)
    steps = epochs * -(-len(photos) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    targets = torch.from_numpy(labels).long().to(device())
    for _ in progress(range(epochs), "extractor epochs"):
        right = 0
        for rows in torch.randperm(len(photos), generator=generator).split(64):
            if len(rows) == 1:
                continue  # BatchNorm can't learn from one value per channel, as a deep network has of a small photo
            images = to_images(photos[rows.numpy()])
            if torch.rand((), generator=generator) < 0.5:
                images = images.flip(3)
            logits = head(model(images))
            loss = F.cross_entropy(logits, targets[rows], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            right += (logits.argmax(1) == targets[rows]).sum().item()
    model.eval().requires_grad_(False)
    return right / len(photos)
