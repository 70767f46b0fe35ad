"""Outlines of the synthetic products: what a tee, a lamp or a bottle looks like, with proportions that vary.

A product is a list of parts (outline (P, 2) in x right, y down, about −1 to 1; role), drawn in order. Roles:
`body` carries the pattern, `plain` the main colour, `trim` the second colour; `dark`, `light`, `metal`,
`wood`, `glass` and `glow` are materials of their own; `hole` shows what is behind.
"""

import numpy as np


def outline(category, style, rng):
    """Parts of a product of `category` in `style` (one of STYLES[category]); `rng` draws the proportions."""
    draw, *_ = CATEGORIES[category]
    return draw(style, lambda low, high: float(rng.uniform(low, high)))


def smooth(points, rounds=2):
    """Chaikin corner cutting of a closed outline."""
    points = np.asarray(points, float)
    for _ in range(rounds):
        ahead = np.roll(points, -1, 0)
        points = np.stack([0.75 * points + 0.25 * ahead, 0.25 * points + 0.75 * ahead], 1).reshape(-1, 2)
    return points


def _mirror(right):
    """A closed outline from its right half, listed from top to bottom."""
    right = np.asarray(right, float)
    return np.concatenate([right, (right * [-1, 1])[::-1]])


def _ellipse(x, y, a, b):
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([x + a * np.cos(t), y + b * np.sin(t)], 1)


def _box(x, y, a, b):
    return np.array([(x - a, y - b), (x + a, y - b), (x + a, y + b), (x - a, y + b)], float)


def _squircle(x, y, a, b):
    t = np.linspace(0, 2 * np.pi, 32, endpoint=False) + np.pi * 1.25
    c, s = np.cos(t), np.sin(t)
    return np.stack([x + a * np.sign(c) * np.abs(c) ** 0.5, y + b * np.sign(s) * np.abs(s) ** 0.5], 1)


def _bar(p, q, width):
    """A straight bar from p to q."""
    p, q = np.asarray(p, float), np.asarray(q, float)
    side = (q - p)[::-1] * [-1, 1] / max(np.hypot(*(q - p)), 1e-9) * width / 2
    return np.array([p + side, q + side, q - side, p - side])


def _tee(style, n):
    wide, hem, length = n(0.42, 0.54), n(0.42, 0.56), n(0.62, 0.85)
    sleeves = {"short": (0.78, 0.9, -0.22, -0.05), "long": (0.78, 0.95, 0.45, 0.75)}
    reach, reach_most, drop, drop_most = sleeves.get(style, (0.5, 0.56, -0.42, -0.36))
    reach, drop = n(reach, reach_most), n(drop, drop_most)
    cuff = 0.07 if style == "sleeveless" else n(0.16, 0.24)
    neck, throat = n(0.16, 0.22), n(-0.6, -0.4)
    scoop = [(0.0, throat), (neck * 0.7, throat - 0.05), (neck, -0.76)]
    side = [(0.44, -0.66), (reach, drop), (reach - cuff, drop + 0.1), (wide, -0.2), (wide * 0.96, 0.2)]
    body = _mirror([*scoop, *side, (hem, length)])
    collar = _mirror(
        [(x * 0.98, y) for x, y in scoop] + [(neck + 0.05, -0.74), (neck * 0.8, throat), (0, throat + 0.06)]
    )
    return [(smooth(body, 1), "body"), (collar, "trim")]


def _dress(style, n):
    length = {"mini": n(0.3, 0.45), "midi": n(0.6, 0.72), "maxi": n(0.85, 0.97)}[style]
    waist, flare = n(0.2, 0.28), n(0.4, 0.68)
    body = _mirror(
        [(0.1, -0.9), (0.26, -0.9), (0.3, -0.55), (waist, -0.22), (flare * 0.75, 0.2 * length + 0.1), (flare, length)]
    )
    parts = [
        (smooth(body, 2), "body"),
        (_ellipse(0, -0.94, 0.13, n(0.14, 0.3)), "hole"),
        (_box(0, -0.22, waist + 0.015, n(0.02, 0.05)), "trim"),
    ]
    return parts


def _trousers(style, n):
    """One leg and its mirror image; `part` is how far the legs stand apart at the foot."""
    ends = {"shorts": (0.0, 0.15, 0.2, 0.26), "slim": (0.85, 0.95, 0.12, 0.16), "wide": (0.82, 0.95, 0.22, 0.3)}
    low, high, narrow, broad = ends[style]
    end, foot, hip, part = n(low, high), n(narrow, broad), n(0.3, 0.38), n(0.07, 0.2)
    crotch = n(-0.38, -0.28)
    leg = [(0, -0.85), (hip * 0.86, -0.85), (hip, -0.45), (part + 1.7 * foot, end), (part, end), (0.0, crotch)]
    right = np.array(leg, float)
    return [
        (right, "body"),
        (right * [-1, 1], "body"),
        (_box(0, -0.82, hip * 0.88, 0.06), "plain"),
        (_box(0, -0.58, 0.01, 0.2), "dark"),
        (_bar((hip * 0.5, -0.72), (hip * 0.85, -0.55), 0.03), "dark"),
        (_bar((-hip * 0.5, -0.72), (-hip * 0.85, -0.55), 0.03), "dark"),
    ]


def _shoe(style, n):
    toe, sole = n(0.72, 0.9), n(0.07, 0.12)
    if style == "heel":
        up, back = n(0.5, 0.62), n(-0.35, -0.2)
        body = [
            (-0.78, back),
            (-0.6, back),
            (-0.35, 0.12),
            (0.15, 0.2),
            (0.35, 0.12),
            (toe, 0.42),
            (toe, 0.5),
            (0.25, 0.5),
        ]
        body += [(-0.15, 0.36), (-0.5, 0.12), (-0.78, 0.1)]
        spike = np.array([(-0.79, 0.0), (-0.52, 0.06), (-0.66, up), (-0.75, up)])
        return [(spike, "trim"), (smooth(body, 2), "body"), (_bar((-0.12, 0.39), (toe * 0.97, 0.5), 0.04), "dark")]
    top = n(-0.22, -0.1) if style == "sneaker" else n(-0.85, -0.6)
    body = [(-0.72, top), (-0.2, top), (-0.1, -0.1), (0.35, n(0.0, 0.12)), (toe, 0.2), (toe + 0.06, 0.55)]
    body += [(-0.8, 0.55), (-0.82, 0.1)]
    base = _squircle((toe - 0.74) / 2 + 0.02, 0.46, (toe + 0.78) / 2 + 0.02, sole)
    parts = [(smooth(body, 2), "body"), (base, "trim")]
    if style == "sneaker":
        laces = [(x, -0.12 + 0.3 * (x + 0.2)) for x in (-0.08, 0.08, 0.24)]
        parts += [(_bar((x, y), (x - 0.1, y + 0.2), 0.05), "trim") for x, y in laces]
        return [*parts, (_ellipse(-0.52, top + 0.03, 0.2, 0.05), "dark")]
    strap = n(-0.15, 0.1)
    return [
        *parts,
        (_bar((-0.76, strap), (-0.16, strap - 0.04), 0.07), "dark"),
        (_box(-0.4, strap - 0.02, 0.06, 0.06), "metal"),
    ]


def _bag(style, n):
    wide, high = n(0.55, 0.75), n(0.4, 0.58)
    if style == "backpack":
        wide, high = n(0.45, 0.56), n(0.62, 0.74)
        pocket = n(0.2, 0.3)
        return [
            (_ellipse(0, -high, 0.16, 0.17), "dark"),
            (_ellipse(0, -high, 0.1, 0.11), "hole"),
            (_squircle(0, 0.08, wide, high), "body"),
            (_squircle(0, 0.38, wide * 0.72, pocket), "plain"),
            (_box(0, 0.38 - pocket * 0.7, wide * 0.6, 0.02), "metal"),
        ]
    if style == "clutch":
        high = n(0.28, 0.36)
        flap = np.array(
            [(-wide, -high), (wide, -high), (wide * 0.9, 0.0), (0, high * n(0.2, 0.5)), (-wide * 0.9, 0.0)]
        )
        return [
            (_squircle(0, 0, wide * 1.1, high), "body"),
            (smooth(flap, 1), "plain"),
            (_ellipse(0, 0.05, 0.06, 0.06), "metal"),
        ]
    narrow, arch = wide * n(0.8, 1.0), n(0.35, 0.5)
    body = _mirror([(narrow, -0.2), (wide, -0.2 + 2 * high)])
    return [
        (_ellipse(0, -0.2, 0.36, arch), "trim"),
        (_ellipse(0, -0.2, 0.29, arch - 0.07), "hole"),
        (smooth(body, 1) * 0.3 + 0.7 * np.repeat(body, 2, 0), "body"),
        (_box(0, -0.14, narrow * 0.98, 0.03), "trim"),
    ]


def _hat(style, n):
    crown = n(0.42, 0.52)
    if style == "beanie":
        dome = [(-crown, 0.35), (-crown, -0.1), (-0.3, -0.6), (0.3, -0.6), (crown, -0.1), (crown, 0.35)]
        return [
            (_ellipse(0, -0.62, n(0.1, 0.17), 0.14), "trim"),
            (smooth(dome, 3), "body"),
            (_squircle(0, 0.32, crown * 1.02, 0.13), "plain"),
        ]
    if style == "cap":
        dome = [(-crown, 0.2), (-crown, -0.2), (-0.2, -0.55), (0.3, -0.5), (crown, -0.1), (crown, 0.2)]
        peak = [(crown - 0.3, 0.1), (crown, 0.05), (n(0.85, 0.95), 0.22), (0.9, 0.3), (crown - 0.2, 0.22)]
        return [(smooth(dome, 3), "body"), (smooth(peak, 2), "trim"), (_ellipse(-0.02, -0.52, 0.05, 0.03), "trim")]
    brim, tall = n(0.8, 0.95), n(0.45, 0.62)
    dome = _mirror([(0.12, 0.05 - tall), (0.34, -tall), (crown * 0.9, -0.1), (crown, 0.22)])
    return [
        (_ellipse(0, 0.25, brim, n(0.14, 0.24)), "plain"),
        (smooth(dome, 2), "body"),
        (_box(0, 0.12, crown * 0.96, 0.07), "trim"),
    ]


def _mug(style, n):
    wide, high = n(0.4, 0.5), n(0.45, 0.62)
    foot = {"straight": wide, "tapered": wide * n(0.6, 0.72), "bowl": wide * 0.5}[style]
    if style == "bowl":
        wide, high = n(0.55, 0.66), n(0.3, 0.4)
    grip = n(0.22, 0.3)
    body = _mirror([(wide, -high), (wide, 0.1 * high) if style != "tapered" else (0.9 * wide, 0), (foot, high)])
    return [
        (_ellipse(wide + 0.04, 0, grip, high * 0.62), "plain"),
        (_ellipse(wide + 0.04, 0, grip - 0.09, high * 0.62 - 0.1), "hole"),
        (smooth(body, 1), "body"),
        (_ellipse(0, -high, wide * 0.97, 0.1), "trim"),
        (_ellipse(0, -high + 0.015, wide * 0.87, 0.07), "dark"),
    ]


def _lamp(style, n):
    top, low, tall = n(0.2, 0.34), n(0.45, 0.62), n(0.3, 0.42)
    shade_y = {"table": -0.4, "floor": -0.62, "pendant": 0.2}[style]
    if style == "floor":
        top, low, tall = top * 0.8, low * 0.75, tall * 0.8
    shade = _mirror([(top, shade_y - tall), (low, shade_y + tall)])
    if style == "pendant":
        return [
            (_box(0, -0.5, 0.015, 0.5), "dark"),
            (_ellipse(0, shade_y + tall, 0.12, 0.13), "glow"),
            (shade, "body"),
        ]
    foot, stem = n(0.25, 0.4), n(0.02, 0.05)
    if style == "floor":
        return [(_box(0, 0.2, stem * 0.8, 0.7), "metal"), (_ellipse(0, 0.9, foot, 0.06), "metal"), (shade, "body")]
    vase = _mirror([(0.06, 0.0), (n(0.12, 0.3), 0.4), (0.1, 0.75)])
    return [
        (_box(0, 0.2, stem, 0.5), "metal"),
        (smooth(vase, 2), "trim"),
        (_ellipse(0, 0.78, foot, 0.08), "trim"),
        (shade, "body"),
    ]


def _watch(style, n):
    case, strap = n(0.34, 0.44), n(0.17, 0.24)
    face = _squircle if style == "square" else _ellipse
    ring = "trim" if style == "diver" else "metal"
    band = _mirror([(strap * 0.85, -0.97), (strap, -0.3), (strap, 0.3), (strap * 0.85, 0.97)])
    hour, minute = n(0, 2 * np.pi), n(0, 2 * np.pi)
    hands = [
        _bar((0, 0), (r * case * np.sin(t), -r * case * np.cos(t)), 0.045) for r, t in ((0.45, hour), (0.7, minute))
    ]
    ticks = [
        _ellipse(0.68 * case * np.sin(t), -0.68 * case * np.cos(t), 0.025, 0.025)
        for t in np.arange(0, 2 * np.pi, np.pi / 6)
    ]
    return [
        (band, "body"),
        (_box(case + 0.03, 0, 0.05, 0.05), "metal"),
        (face(0, 0, case, case), ring),
        (face(0, 0, case * 0.82, case * 0.82), "light"),
        *[(tick, "dark") for tick in ticks],
        *[(hand, "dark") for hand in hands],
    ]


def _chair(style, n):
    seat, wide, leg = n(0.05, 0.18), n(0.42, 0.52), n(0.04, 0.07)
    splay = n(0.0, 0.12)
    legs = [(_bar((x, seat), (x * (1 + splay), 0.95), leg), "wood") for x in (-wide * 0.88, wide * 0.88)]
    back = [(_bar((x * 0.7, seat), (x * 0.72, 0.78), leg * 0.8), "wood") for x in (-wide * 0.8, wide * 0.8)]
    cushion = (_squircle(0, seat, wide * 1.04, n(0.07, 0.12)), "body")
    if style == "stool":
        return [*back, *legs, (_bar((-wide * 0.85, 0.6), (wide * 0.85, 0.6), leg * 0.8), "wood"), cushion]
    if style == "armchair":
        high = n(0.6, 0.75)
        return [
            *legs,
            (_squircle(0, -0.25, wide * 1.15, high), "body"),
            (_squircle(0, 0.22, wide, 0.16), "plain"),
            (_squircle(-wide * 1.2, 0.12, 0.15, 0.34), "plain"),
            (_squircle(wide * 1.2, 0.12, 0.15, 0.34), "plain"),
        ]
    high = n(0.36, 0.46)
    posts = [(_bar((x, seat), (x * 0.95, -0.9), leg), "wood") for x in (-wide * 0.85, wide * 0.85)]
    return [*back, *legs, *posts, (_squircle(0, -0.88 + high, wide * 0.86, high * n(0.6, 0.9)), "body"), cushion]


def _bottle(style, n):
    wide = {"wine": n(0.2, 0.26), "flask": n(0.28, 0.36), "jug": n(0.38, 0.5)}[style]
    shoulder, neck = (n(-0.35, -0.15), {"wine": n(0.07, 0.09), "flask": n(0.14, 0.19), "jug": n(0.1, 0.16)}[style])
    body = _mirror([(neck, -0.85), (neck, shoulder - 0.25), (wide, shoulder), (wide, 0.8), (wide * 0.94, 0.92)])
    label, cap = n(0.14, 0.28), n(0.05, 0.11)
    parts = [
        (smooth(body, 1), "body"),
        (_box(0, 0.32, wide * 0.97, label), "light"),
        (_box(0, 0.32, wide * 0.5, 0.03), "dark"),
        (_box(0, 0.32 + label * 0.5, wide * 0.35, 0.02), "trim"),
        (_box(0, -0.86, neck + 0.025, cap), "trim"),
    ]
    if style == "jug":
        parts = [
            (_ellipse(wide * 0.9, -0.3, 0.26, 0.3), "plain"),
            (_ellipse(wide * 0.9, -0.3, 0.17, 0.21), "hole"),
            *parts,
        ]
    return parts


def _glasses(style, n):
    a, gap = n(0.33, 0.4), n(0.05, 0.09)
    b = {"round": a, "square": n(0.24, 0.3), "cat": n(0.24, 0.3)}[style]
    frame = n(0.045, 0.085)
    lens = _ellipse if style == "round" else _squircle
    parts = [(_bar((-gap - 0.06, -0.06), (gap + 0.06, -0.06), 0.055), "plain")]
    for side in (-1, 1):
        rim, pane = lens(0, 0, a, b), lens(0, 0, a - frame, b - frame)
        if style == "cat":
            lift = [0, 1] * (0.25 * np.maximum(rim[:, :1] / a, 0))
            rim, pane = rim - lift, pane - lift * 0.9
        flip, shift = np.array([side, 1]), np.array([gap + a, 0])
        parts += [((rim + shift) * flip, "body"), ((pane + shift) * flip, "glass")]
        parts.append(
            (
                np.array(
                    [(gap + 2 * a - 0.05, -0.12), (gap + 2 * a + 0.12, -n(0.28, 0.4)), (gap + 2 * a + 0.06, -0.02)]
                )
                * flip,
                "plain",
            )
        )
    return parts


CATEGORIES = {  # how it is drawn, in which styles, what its body is made of, and how glossy that is
    "tee": (_tee, ("short", "long", "sleeveless"), "cloth", 0.0),
    "dress": (_dress, ("mini", "midi", "maxi"), "cloth", 0.05),
    "trousers": (_trousers, ("shorts", "slim", "wide"), "cloth", 0.0),
    "shoe": (_shoe, ("sneaker", "boot", "heel"), "leather", 0.25),
    "bag": (_bag, ("tote", "backpack", "clutch"), "leather", 0.2),
    "hat": (_hat, ("cap", "brim", "beanie"), "cloth", 0.0),
    "mug": (_mug, ("straight", "tapered", "bowl"), "ceramic", 0.5),
    "lamp": (_lamp, ("table", "floor", "pendant"), "cloth", 0.1),
    "watch": (_watch, ("round", "square", "diver"), "leather", 0.2),
    "chair": (_chair, ("dining", "stool", "armchair"), "cloth", 0.05),
    "bottle": (_bottle, ("wine", "flask", "jug"), "ceramic", 0.6),
    "glasses": (_glasses, ("round", "square", "cat"), "ceramic", 0.4),
}
STYLES = {category: styles for category, (_, styles, _, _) in CATEGORIES.items()}
MATERIALS = {category: (body, gloss) for category, (_, _, body, gloss) in CATEGORIES.items()}
