"""Colours, patterns and backgrounds of the synthetic photos: what makes their pixels worth looking at."""

import math
from functools import cache

import numpy as np
from PIL import Image

PALETTE = {  # sRGB
    "black": (38, 38, 42),
    "grey": (134, 136, 140),
    "white": (236, 235, 230),
    "beige": (214, 190, 152),
    "brown": (116, 72, 44),
    "red": (198, 34, 44),
    "orange": (236, 126, 28),
    "yellow": (242, 206, 52),
    "green": (52, 140, 66),
    "teal": (24, 148, 152),
    "blue": (46, 100, 204),
    "navy": (26, 38, 96),
    "purple": (126, 58, 158),
    "pink": (236, 132, 172),
}
PATTERNS = ("plain", "stripes", "dots", "checks", "floral", "gradient", "zigzag")
BACKGROUNDS = ("white", "studio", "cloth", "wood", "clutter", "wall")


@cache
def grid(side):
    """y, x (side, side): centres of pixels, 0 to 1."""
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    return np.broadcast_to(centres[:, None], (side, side)), np.broadcast_to(centres, (side, side))


def noise(rng, side, cells, octaves=3):
    """Smooth noise (side, side), mean 0, standard deviation 1: `octaves` doublings of a grid of `cells`."""
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        n = int(np.clip(cells * 2**octave, 2, side))
        grid = Image.fromarray(rng.standard_normal((n, n), dtype=np.float32))
        total += np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC)) / 2**octave
    return (total - total.mean()) / max(float(total.std()), 1e-6)


def pattern(name, u, v, colour, second, rng):
    """Albedo (H, W, 3) in [0, 1] of a pattern over object coordinates u, v (about −1 to 1)."""
    turns = [rng.uniform(0, math.pi)] if name in ("dots", "floral") else [0, math.pi / 2, rng.uniform(0, math.pi)]
    angle = float(rng.choice(turns))
    a, b = math.cos(angle) * u + math.sin(angle) * v, math.cos(angle) * v - math.sin(angle) * u
    pitch = rng.uniform(0.16, 0.34)
    mix = _MIXES[name](a, b, pitch, rng)[..., None].astype(np.float32)
    return colour * (1 - mix) + second * mix


def _plain(a, b, pitch, rng):
    return np.zeros_like(a)


def _stripes(a, b, pitch, rng):
    duty = rng.uniform(0.25, 0.45)
    return (np.mod(b / pitch, 1) < duty).astype(np.float32)


def _dots(a, b, pitch, rng):
    row = np.floor(b / pitch)
    x, y = np.mod(a / pitch + 0.5 * np.mod(row, 2), 1) - 0.5, np.mod(b / pitch, 1) - 0.5
    return (x**2 + y**2 < rng.uniform(0.22, 0.34) ** 2).astype(np.float32)


def _checks(a, b, pitch, rng):
    x, y = np.mod(a / pitch, 1) < 0.42, np.mod(b / pitch, 1) < 0.42
    return 0.42 * x + 0.42 * y


def _floral(a, b, pitch, rng):
    pitch *= 1.5
    column, row = np.floor(a / pitch), np.floor(b / pitch)
    # a jittered lattice of blossoms; the jitter is a cheap hash of the cell
    jitter = np.sin(column * 12.9898 + row * 78.233 + rng.uniform(0, 6)) * 43758.5453
    jitter -= np.floor(jitter)
    x, y = a / pitch - column - 0.5 - 0.3 * (jitter - 0.5), b / pitch - row - 0.5 + 0.3 * (jitter - 0.5)
    petals = rng.integers(4, 7)
    radius = 0.25 + 0.13 * np.cos(petals * np.arctan2(y, x) + 6 * jitter)
    distance = np.hypot(x, y)
    return np.where(distance < 0.08, 0.35, (distance < radius).astype(np.float32))


def _gradient(a, b, pitch, rng):
    return np.clip(0.5 + 0.55 * float(rng.choice([-1, 1])) * b, 0, 1) * 0.85


def _zigzag(a, b, pitch, rng):
    wave = np.abs(np.mod(a / pitch, 1) - 0.5)
    return (np.mod(b / pitch + wave, 1) < rng.uniform(0.25, 0.4)).astype(np.float32)


_MIXES = dict(zip(PATTERNS, (_plain, _stripes, _dots, _checks, _floral, _gradient, _zigzag), strict=True))


def grain(material, u, v, rng):
    """Relief (H, W) of a material at its finest visible scale, about unit variance: real high frequencies."""
    side = u.shape[0]
    if material == "cloth":
        pitch = rng.uniform(0.045, 0.08)
        weave = np.sin(2 * np.pi * u / pitch) * np.sin(2 * np.pi * v / pitch)
        return 1.2 * weave + 0.6 * noise(rng, side, side // 6, 2)
    if material == "leather":
        return noise(rng, side, side // 9, 2)
    if material == "metal":
        lines = noise(rng, side, side // 5, 1)
        return 0.4 * lines + 0.9 * rng.standard_normal((side, 1), dtype=np.float32).repeat(side, 1)
    if material == "wood":
        rings = 9 * (u + 0.15 * noise(rng, side, 3, 2)) + 0.8 * v
        return 1.2 * np.sin(2 * np.pi * rings) + 0.5 * noise(rng, side, side // 4, 1)
    return 0.5 * noise(rng, side, side // 4, 2)  # ceramic, plastic, glass


def background(name, side, rng):
    """A backdrop (side, side, 3) in [0, 1]."""
    y, x = grid(side)
    if name == "white":
        return np.broadcast_to(
            np.float32(rng.uniform(0.93, 0.995, 1) + rng.normal(0, 0.006, 3)), (side, side, 3)
        ).copy()
    if name == "studio":
        tint = np.float32(rng.uniform(0.62, 0.9) + rng.normal(0, 0.04, 3))
        floor = rng.uniform(0.62, 0.8)
        light = 1 - rng.uniform(0.1, 0.35) * y + rng.uniform(0.05, 0.16) / (1 + np.exp((floor - y) * 60))
        glow = 0.12 * np.exp(-((x - rng.uniform(0.3, 0.7)) ** 2 + (y - 0.4) ** 2) / 0.08)
        return (light + glow)[..., None] * tint
    if name == "cloth":
        tint = np.float32(rng.uniform(0.45, 0.85) + rng.normal(0, 0.07, 3))
        folds = 0.07 * noise(rng, side, rng.integers(3, 6), 2)
        return (1 + folds + 0.06 * grain("cloth", 2 * x, 2 * y, rng))[..., None] * tint
    if name == "wood":
        tint = np.float32(np.array([0.66, 0.47, 0.31]) * rng.uniform(0.7, 1.25) + rng.normal(0, 0.02, 3))
        planks = rng.integers(3, 6)
        across, along = (x, y) if rng.random() < 0.5 else (y, x)
        plank = np.floor(across * planks)
        rings = np.sin(2 * np.pi * (across * planks * 3 + 0.5 * noise(rng, side, 3, 2) + 0.37 * plank + along))
        gap = np.mod(across * planks, 1) < 0.035
        tone = 1 + 0.07 * rings + 0.06 * np.sin(5.1 * plank + rng.uniform(0, 6)) - 0.45 * gap
        return (tone + 0.05 * noise(rng, side, side // 4, 1))[..., None] * tint
    if name == "wall":
        tint = np.float32(rng.uniform(0.5, 0.85) + rng.normal(0, 0.05, 3))
        speckle = 0.05 * noise(rng, side, side // 5, 2) + 0.06 * noise(rng, side, 3, 2)
        return (1 + speckle)[..., None] * tint
    return _clutter(side, x, y, rng)


def _clutter(side, x, y, rng):
    image = background(rng.choice(["wall", "studio", "wood"]), side, rng)
    for _ in range(rng.integers(4, 8)):
        centre, half = rng.uniform(0, 1, 2).tolist(), rng.uniform(0.05, 0.22, 2).tolist()
        turn = rng.uniform(0, np.pi)
        p, q = x - centre[0], y - centre[1]
        p, q = math.cos(turn) * p + math.sin(turn) * q, math.cos(turn) * q - math.sin(turn) * p
        if rng.random() < 0.5:
            cover = np.maximum(np.abs(p) / half[0], np.abs(q) / half[1])
        else:
            cover = np.hypot(p / half[0], q / half[1])
        edge = rng.uniform(0.03, 0.25)  # out of focus by varying amounts
        cover = np.clip((1 - cover) / edge, 0, 1)[..., None] * 0.9
        image = image * (1 - cover) + cover * np.float32(rng.uniform(0.2, 0.85, 3))
    return image
