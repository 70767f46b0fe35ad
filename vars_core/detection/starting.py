"""Detectors that start from what an earlier run learned, as filters do (`reconstruction.starting`)."""

import torch
from torch import nn

from vars_core import checkpoint, pretrained
from vars_core.detection.defence_files import DETECTOR, FILTER
from vars_core.detection.detectors import Detector
from vars_core.recommender.shop import Shop


def start(
    detectors: dict[str, Detector], wanted: str | None, shop: Shop, filters: dict[str, nn.Module] | None = None
) -> bool:
    """Give each of `detectors`, a kept defence's name → detector, the weights that pretrained/ has for it, if
    `wanted` (reconstruction.start) says so; to the filters of the same names in `filters` those of that defence's.

    Returns whether it did: all or none, and none where pretrained/ has nothing for `shop`, which is said."""
    folder = pretrained.to_start_from(shop.extractor, shop.catalogue) if wanted else None
    if folder is None:
        return False
    kept = {name: folder / "models" / "defence" / name for name in detectors}
    pairs = [(detector, kept[name] / DETECTOR) for name, detector in detectors.items()]
    pairs += [(net, kept[name] / FILTER) for name, net in (filters or {}).items()]
    read = [checkpoint.read(file) if file.is_file() else ({}, {}) for _, file in pairs]
    if any(
        _kind(getattr(net, "settings", None), net.state_dict()) != _kind(notes.get("settings"), weights)
        for (net, _), (notes, weights) in zip(pairs, read, strict=True)
    ):
        print(f"{', '.join(kept)}: not in {folder.name} of pretrained/, or of another size: trained from scratch")
        return False
    for (net, _), (_, weights) in zip(pairs, read, strict=True):
        net.load_state_dict(weights)
    return True


def _kind(settings: dict | None, weights: dict[str, torch.Tensor]) -> tuple:
    return settings, {name: tensor.shape for name, tensor in weights.items()}
