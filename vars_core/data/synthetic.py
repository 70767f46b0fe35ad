"""Product photos from a seed: silhouettes, colours, patterns, light, backgrounds, sensor and JPEG history.

Every item has a generator of its own, so the first n items are the same whatever the total.
"""

import io
import math
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter

from vars_core.data.silhouettes import MATERIALS, STYLES, outline
from vars_core.data.textures import BACKGROUNDS, PALETTE, PATTERNS, background, grain, grid, noise, pattern

CATEGORIES = tuple(STYLES)
CATEGORY_ODDS = np.linspace(1.5, 0.5, len(CATEGORIES)) / len(CATEGORIES)  # a shop sells more tees than glasses
PATTERN_ODDS = np.array([0.3, 0.16, 0.12, 0.12, 0.12, 0.09, 0.09])
BACKGROUND_ODDS = np.array([0.34, 0.22, 0.12, 0.11, 0.1, 0.11])
JPEG_QUALITY = (50, 98)
POOL_FROM = 4000  # items; below this a pool costs more than it saves
FIXED = {
    "dark": (0.13, 0.13, 0.14),
    "metal": (0.72, 0.72, 0.74),
    "wood": (0.55, 0.36, 0.21),
    "glow": (1.0, 0.93, 0.72),
    "light": (0.93, 0.92, 0.88),
    "glass": (0.62, 0.7, 0.74),
}


def draw(n, size, rng):
    """`n` product photos, uint8 (n, size, size, 3), and their items (DataFrame).

    Columns: item_id, category, colour, second_colour, pattern, style, background, jpeg_quality.
    """
    seed = int(rng.integers(2**63))
    photos, rows = np.empty((n, size, size, 3), np.uint8), []
    for index, (photo, row) in enumerate(_all(seed, n, size)):
        photos[index] = photo
        rows.append(row)
    return photos, pd.DataFrame(rows)


def draw_one(seed, index, size):
    """Photo (size, size, 3) and item row (dict) number `index` of the catalogue that belongs to `seed`."""
    rng = np.random.default_rng([seed, index])
    category = str(rng.choice(CATEGORIES, p=CATEGORY_ODDS))
    colour, second = (str(name) for name in rng.choice(list(PALETTE), 2, replace=False))
    row = {
        "item_id": f"{category}-{index:05d}",
        "category": category,
        "colour": colour,
        "second_colour": second,
        "pattern": str(rng.choice(PATTERNS, p=PATTERN_ODDS)),
        "style": str(rng.choice(STYLES[category])),
        "background": str(rng.choice(BACKGROUNDS, p=BACKGROUND_ODDS)),
        "jpeg_quality": int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1)),
    }
    return _camera(_scene(row, size, rng), size, row["jpeg_quality"], rng), row


def _all(seed, n, size):
    tasks = [(seed, index, size) for index in range(n)]
    workers = min(os.cpu_count() or 1, 16)
    if n < POOL_FROM or workers == 1:
        yield from map(_unpack, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_unpack, tasks, chunksize=64)


def _unpack(task):
    return draw_one(*task)


def _scene(row, size, rng):
    """The product before its background, supersampled: float32 (side, side, 3), about [0, 1]."""
    side = size * (3 if size <= 96 else 2)
    parts = outline(row["category"], row["style"], rng)
    matrix, offset = _pose(parts, rng)
    masks = _masks([(points @ matrix.T + offset, role) for points, role in parts], side)
    (u, v), folds = _object_coordinates(matrix, offset, side), noise(rng, side, 4, 2)
    body, gloss = MATERIALS[row["category"]]
    if body == "cloth":  # patterns bend with the folds of the cloth
        u, v = u + 0.025 * folds, v + 0.025 * np.roll(folds, side // 4, 0)

    main, second = _tint(row["colour"], rng), _tint(row["second_colour"], rng)
    colours = {role: np.float32(rgb) for role, rgb in FIXED.items()}
    colours |= {"plain": main * np.float32(rng.uniform(0.82, 0.95)), "trim": second}
    printed = pattern(row["pattern"], u, v, main, second, rng)
    cover = np.max([mask for mask, _, _ in masks], axis=0)
    light = _light(cover, side, rng)
    depth = rng.uniform(0.03, 0.075)
    shades = {}
    for material in sorted({role if role in ("metal", "wood") else body for _, role, _ in masks}):
        shades[material] = light * (1 + depth * grain(material, u, v, rng))
        if material == "cloth":
            shades[material] *= 1 + 0.09 * folds

    image = background(row["background"], side, rng)
    image *= (1 - _shadow(cover, side, rng))[..., None]
    for mask, role, box in masks:
        albedo = printed[box] if role == "body" else colours[role]
        shade = shades.get(role, shades.get(body, light))[box] * _edge(mask[box], side)
        opacity = mask[box] * (0.45 if role == "glass" else 1.0)
        image[box] += opacity[..., None] * (albedo * shade[..., None] - image[box])
    shine = gloss * rng.uniform(1.1, 2.2) * np.clip(light - 1.02, 0, None)
    return image + (cover * shine)[..., None]


def _object_coordinates(matrix, offset, side):
    """u, v (side, side): where each pixel lies on the unposed product."""
    y, x = grid(side)
    x, y = 2 * x - 1 - float(offset[0]), 2 * y - 1 - float(offset[1])
    (a, b), (c, d) = np.linalg.inv(matrix).astype(np.float32)
    return a * x + b * y, c * x + d * y


def _pose(parts, rng):
    """A linear map and an offset that put the product into the frame: turned, stretched, sheared, shifted."""
    turn = np.deg2rad(rng.normal(0, 9))
    stretch = np.diag(np.exp(rng.normal(0, 0.07, 2)))
    shear = np.array([[1, rng.normal(0, 0.08)], [0, 1]])
    flip = np.diag([rng.choice([-1.0, 1.0]), 1])
    rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotate @ shear @ stretch @ flip
    points = np.concatenate([points for points, _ in parts]) @ matrix.T
    low, high = points.min(0), points.max(0)
    matrix *= rng.uniform(1.45, 1.88) / (high - low).max()
    points = np.concatenate([points for points, _ in parts]) @ matrix.T
    low, high = points.min(0), points.max(0)
    room = np.clip(1 - (high - low) / 2, 0, None)
    return matrix, rng.uniform(-0.4, 0.4, 2) * room - (low + high) / 2


def _masks(parts, side):
    """[(mask float32 (side, side), role, box around it)] in drawing order; holes cut what is below."""
    masks = []
    for points, role in parts:
        points = (points + 1) * (side / 2)
        canvas = Image.new("L", (side, side))
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], fill=255)
        mask = np.asarray(canvas, np.float32) / 255
        low = np.clip(np.floor(points.min(0)).astype(int) - 2, 0, side - 4)
        high = np.clip(np.ceil(points.max(0)).astype(int) + 3, low + 4, side)
        if role in ("hole", "glass"):
            masks = [(other * (1 - mask), name, box) for other, name, box in masks]
        if role != "hole":
            masks.append((mask, role, (slice(low[1], high[1]), slice(low[0], high[0]))))
    return masks


def _blur(mask, radius):
    """Gaussian blur of a mask in [0, 1]; wide ones are done at a quarter of the pixels, unseen."""
    picture = Image.fromarray((np.clip(mask, 0, 1) * 255).astype(np.uint8))
    if radius < 4:
        return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255
    half = picture.reduce(2).filter(ImageFilter.GaussianBlur(radius / 2))
    return np.asarray(half.resize(picture.size, Image.Resampling.BICUBIC), np.float32) / 255


def _shadow(cover, side, rng):
    drop, soft = rng.uniform(0.01, 0.06), rng.uniform(0.021, 0.05)
    shift = (round(side * drop), round(side * rng.uniform(-0.04, 0.04)))
    return rng.uniform(0.2, 0.5) * np.roll(_blur(cover, soft * side), shift, (0, 1))


def _light(cover, side, rng):
    """Diffuse light (side, side), around 1, on the product blown up like a cushion."""
    height = _blur(cover, side * 0.06) + 0.8 * _blur(cover, side * 0.025)
    slope_y, slope_x = np.gradient(height, 2 / side)
    turn = rng.uniform(-2.6, -0.5)  # from above, left or right
    facing = -(math.cos(turn) * slope_x + math.sin(turn) * slope_y)
    return np.clip(1 + rng.uniform(0.02, 0.045) * facing, 0.45, 1.35).astype(np.float32)


def _edge(mask, side):
    """The thickness of a part, seen as a darker rim."""
    return 1 - 0.28 * (1 - np.clip(2 * _blur(mask, side * 0.012) - 1, 0, 1)) ** 2


def _tint(name, rng):
    """A palette colour as it comes out of the dye: close to, not equal to, the name."""
    return np.clip(np.float32(PALETTE[name]) / 255 * rng.uniform(0.94, 1.06) + rng.normal(0, 0.015, 3), 0, 1).astype(
        np.float32
    )


def _camera(scene, size, quality, rng):
    """Exposure, vignette, optics (area average), Poisson and Gaussian sensor noise, and one JPEG save."""
    k = scene.shape[0] // size
    image = scene.reshape(size, k, size, k, 3).mean((1, 3))
    image = image * (rng.uniform(0.92, 1.06) + rng.normal(0, 0.012, 3))
    y, x = (2 * axis - 1 for axis in grid(size))
    image = image * (1 - rng.uniform(0, 0.12) * (x**2 + y**2) / 2)[..., None]
    variance = rng.uniform(0.001, 0.007) ** 2 * 4 + rng.uniform(1e-5, 2.5e-4) * np.clip(image, 0, 1)
    image = image + np.sqrt(variance) * rng.standard_normal(image.shape)
    pixels = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=int(rng.choice([0, 2])))
    return np.asarray(Image.open(buffer))
