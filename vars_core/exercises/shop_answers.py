"""The right answers to the exercises of notebooks 1 to 3, and what one gets by likely mistakes. Try first."""

import numpy as np

from vars_core.exercises.checks import exercise, goal

# 1 · data


@exercise("1.1")
def _(users: int, items: int, pairs: int):
    return 0.1 * users * items / pairs, {
        "you divide by what a tenth of the matrix holds, instead of the other way round": pairs
        / (0.1 * users * items),
        "you fill the whole matrix, not a tenth of it": users * items / pairs,
    }


@exercise("1.2")
def _():
    # user 2 has one item and goes; then item 2 has one user and goes; then everybody has two
    return 4, {"you stop after the first round": 5, "you count users or items, not interactions": 2}


@exercise("1.3")
def _(simulate, labels):
    shares = []
    for strength in (0.0, 1.0, 2.0):
        clicks = simulate(strength)
        table = np.zeros((clicks["user"].max() + 1, labels.max() + 1))
        np.add.at(table, (clicks["user"], labels[clicks["item"]]), 1)
        shares.append((table.max(1).sum() / len(clicks), np.mean(table.max(1) / table.sum(1).clip(1))))
    pooled, averaged = zip(*shares, strict=True)
    return np.array(pooled), {"you average over users; pool their interactions": np.array(averaged)}


@exercise("1.4")
def _(problems: list):
    return len(problems), {}


@exercise("1.5")
def _(photo):
    def detail(grey):
        neighbours = (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]) / 4
        return np.abs(grey[1:-1, 1:-1] - neighbours).mean()

    photo = np.asarray(photo, float)
    grey = photo @ [0.299, 0.587, 0.114]
    signed = grey[1:-1, 1:-1] - (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]) / 4
    return detail(grey), {
        "luminance is taken as the plain mean of red, green and blue": detail(photo.mean(2)),
        "the sign of the differences is kept, so that they cancel": signed.mean(),
    }


# 2 · recommender


@exercise("2.1", tolerance=0.1)
def _(own: float):
    return 0.5, {"the photos are not shuffled: each item still has its own": own}


@exercise("2.2")
def _(base, scores):
    visual = scores - base
    share = visual.std(1) / (visual.std(1) + base.std(1))
    over_users = visual.std(0) / (visual.std(0) + base.std(0))
    return np.median(share), {
        "the spread is taken over users; each user compares items": np.median(over_users),
        "you take the mean over users; a few extreme ones pull it": share.mean(),
    }


@exercise("2.3")
def _(ranks, items: int, k: int):
    among = 1 + 100 * (ranks - 1) / items
    return np.nanmean(among <= k), {
        "that is HR among all items": np.nanmean(ranks <= k),
        "the rank is scaled, but not taken down by one first": np.nanmean(100 * ranks / items <= k - 1),
    }


@exercise("2.4")
def _(factors: int, visual_factors: int):
    return factors + visual_factors, {"that is what BPR-MF has already": factors}


# 3 · attacks


@exercise("3.1")
def _(epsilon: int):
    return 2 * epsilon + 1, {
        "you count one direction only": epsilon + 1,
        "you forget that a value may also stay": 2 * epsilon,
    }


@exercise("3.2")
def _(attacked, clean):
    def down(photo):
        return np.mean(photo.astype(int) < clean)

    cut = ((attacked / 255 - 1e-4).clip(0) * 255).astype(np.uint8)
    return down(cut), {"the photo is rounded, not truncated": down(attacked)}


@exercise("3.3", tolerance=1e-4)
def _(image, x, gradient, step: float, epsilon: float):
    def stepped(start, direction, low=0.0, high=1.0, ball=epsilon):
        moved = start + step * direction
        return np.clip(np.clip(moved, image - ball, image + ball), low, high)

    image, x, gradient = (np.asarray(part, float) for part in (image, x, gradient))
    return stepped(x, np.sign(gradient)), {
        "the step goes along the gradient itself, not its sign": stepped(x, gradient),
        "the step goes down; the attack maximises": stepped(x, -np.sign(gradient)),
        "the change is not kept within ε": stepped(x, np.sign(gradient), ball=2.0),
        "colour values leave 0 to 1": stepped(x, np.sign(gradient), low=-9.0, high=9.0),
        "the step starts at the clean image again": stepped(image, np.sign(gradient)),
    }


@goal("3.4")
def _(photos, clean, epsilon: int, exposure, before: float):
    photos = np.asarray(photos)
    if photos.dtype != np.uint8 or photos.shape != clean.shape:
        return False, f"uint8 photos of the shape {clean.shape} are expected, such as `to_photos(x)` gives"
    largest = int(np.abs(photos.astype(int) - clean).max())
    if largest > epsilon:
        return False, f"a value was changed by {largest}, more than {epsilon}"
    after = exposure(photos)
    return after < before, f"{after:.2%} of lists, {before:.2%} before"


@exercise("3.5")
def _(climbs):
    return ("MIM" if climbs(1.0) > climbs(0.0) else "PGD"), {}
