"""What the benchmarks train on: a real catalogue with features of its photos, or a toy made of random numbers."""

import argparse
from pathlib import Path

import numpy as np
from scipy import sparse

from vars_core import extractor, params, paths, runtime
from vars_core.data import catalogue, split


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what to train on."""
    parser.add_argument("--data", type=Path, help="folder of a catalogue with interactions.csv")
    parser.add_argument("--weights", type=Path, help="safetensors of a torchvision or timm model, named as the model")
    parser.add_argument("--image-size", type=int, default=64, help="pixels, square (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of split and training (0 1 2)")
    parser.add_argument("--cache", type=Path, help="folder for prepared catalogues and features (scratch/benchmarks)")
    parser.add_argument("--quick", action="store_true", help="toy data and one seed: does it run at all?")


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Stop with a clear message unless there is something to train on."""
    if options.quick:
        options.seeds = options.seeds[:1]
        return
    for name, there in (("data", Path.is_dir), ("weights", Path.is_file)):
        path = getattr(options, name)
        if path is None:
            parser.error(f"--{name} is needed (or --quick, for toy data)")
        if not there(path):
            parser.error(f"--{name} {path}: no such {'folder' if name == 'data' else 'file'}")


def load(options: argparse.Namespace, seed: int) -> tuple[split.Split, np.ndarray]:
    """The split of `seed`, and features float32 (I, D), standardised on its training items."""
    if options.quick:
        return toy(seed)
    return real(options.data, options.weights, options.image_size, seed, cache(options))


def cache(options: argparse.Namespace) -> Path:
    """The folder for what takes long and is made once."""
    place = options.cache or paths.scratch() / "benchmarks"
    place.mkdir(parents=True, exist_ok=True)
    return place


def prepared(data: Path, size: int, seed: int, cache: Path) -> tuple[catalogue.Catalogue, split.Split]:
    """The catalogue as notebook 1 prepares it, kept in `cache`."""
    place = cache / f"{data.name}-{size}-{seed}"
    cfg = params.Data(source="folder", path=str(data.resolve()), image_size=size)
    if not (place / "meta.json").is_file():
        catalogue.prepare(cfg, seed, place, source=data, cache=cache / f"decoded-{size}")
    return catalogue.load(place), split.load(place / "split.npz")


def real(data: Path, weights: Path, size: int, seed: int, cache: Path) -> tuple[split.Split, np.ndarray]:
    """Prepare the catalogue as notebook 1 and extract features as notebook 2 does; both are kept in `cache`."""
    goods, parts = prepared(data, size, seed, cache)
    file = cache / f"{data.name}-{size}-{weights.stem}.npy"  # the same photos whatever the seed
    if file.is_file():
        raw = np.load(file, allow_pickle=False)
    else:
        eye = extractor.Extractor(weights.stem, str(weights)).to(runtime.device()).eval()
        raw = extractor.extract(eye, goods.photos)
        np.save(file, raw)
    if len(raw) != parts.train.shape[1]:
        raise ValueError(f"{file} holds features of {len(raw)} items, not {parts.train.shape[1]}; remove it")
    return parts, standardised(raw, trained(parts))


def trained(parts: split.Split) -> np.ndarray:
    """Items (sorted) with at least one training interaction."""
    return np.unique(sparse.csr_array(parts.train).indices)


def standardised(raw: np.ndarray, items: np.ndarray) -> np.ndarray:
    """As `Extractor.freeze_scaler` on `items` does it, from features that were extracted once for all seeds."""
    std = raw[items].std(0, ddof=1)
    std = np.maximum(std, 0.05 * max(np.sort(std)[(len(std) - 1) // 2], 1e-6))
    return ((raw - raw[items].mean(0)) / std).astype(np.float32)


def toy(seed: int, users: int = 120, items: int = 100, dimensions: int = 16) -> tuple[split.Split, np.ndarray]:
    """People who like what they see in four of the features; one item each held out, a tenth of the items cold."""
    rng = runtime.rng(seed, "toy")
    features = rng.normal(size=(items, dimensions)).astype(np.float32)
    liking = 2 * rng.normal(size=(users, 4)) @ features[:, :4].T + rng.gumbel(size=(users, items))
    liked = np.argsort(-liking, axis=1)[:, :15]
    cold = np.sort(rng.choice(items, items // 10, replace=False))
    return leave_out(liked, cold, items, rng), features


def leave_out(liked: np.ndarray, cold: np.ndarray, items: int, rng) -> split.Split:
    """A split of lists of items (U, n): two items of each user's that aren't cold are held out, at random."""
    users = len(liked)
    train, removed = (sparse.lil_array((users, items), dtype=bool) for _ in range(2))
    held = np.full((2, users), -1)
    for user, own in enumerate(liked):
        warm = rng.permutation(own[~np.isin(own, cold)])
        held[:, user], train[user, warm[2:]] = warm[:2], True
        removed[user, own[np.isin(own, cold)]] = True
    parts = (sparse.csr_matrix(train), held[0], held[1], cold, sparse.csr_matrix(removed))
    return split.Split(*parts, defence={})
