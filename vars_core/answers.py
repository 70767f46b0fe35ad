"""The right answers to the notebooks' exercises, and what one gets by likely mistakes. Spoilers: try first."""

import numpy as np

from vars_core.exercises import check, exercise, goal

__all__ = ["check"]


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


# 4 · reconstruction


@exercise("4.1")
def _():
    return np.array([0.75, -0.5]), {
        "you take the share that is left, not the share that is taken back": np.array([0.25, 1.5]),
        "you take square roots: the distances are squared already": np.array([0.5, 1 - np.sqrt(1.5)]),
    }


@exercise("4.2")
def _(cost):
    rows = cost()
    lost = rows["clean_ndcg_loss"]["value"] if "clean_ndcg_loss" in rows else 0.0
    return lost, {"the sign is turned round: a loss is positive": -lost}


@exercise("4.3")
def _(recovered):
    return ("higher" if recovered(2) > recovered(1) else "lower"), {}


@goal("4.4")
def _(image_filter, judge, median):
    (left, price), (their_left, their_price) = judge(image_filter), judge(median)
    return left <= their_left and price <= their_price, (
        f"features are {left:.4f} off on attacked photos (median {their_left:.4f}) "
        f"and {price:.4f} on clean ones (median {their_price:.4f})"
    )


# 5 · detection


@exercise("5.1")
def _():
    return np.array([8.0, 0.1]), {
        "n is taken for n + 1": np.array([8.0, 1 / 9]),
        "the place is rounded down from n (1 − 0.2)": np.array([7.0, 0.1]),
    }


@exercise("5.2")
def _():
    caught, alarms = 1e-3 * 0.99, (1 - 1e-3) * 0.01
    return 1000 * caught / (caught + alarms), {
        "that is how many attacks are caught; most flags are honest photos": 990.0,
        "you divide by the honest photos' flags alone": 1000 * caught / alarms,
    }


@exercise("5.3")
def _(moved, flagged):
    strong = moved > np.median(moved)
    return flagged[strong].mean(), {
        "that is the weaker half": flagged[~strong].mean(),
        "that is the share of all": flagged.mean(),
        "you divide by all photos, not by the half": flagged[strong].sum() / len(moved),
    }


@goal("5.4")
def _(score, clean, attacked, floor: float):
    honest, found = np.asarray(score(clean), float), np.asarray(score(attacked), float)
    if honest.shape != (len(clean),) or found.shape != (len(attacked),):
        return False, f"one score a photo is expected, ({len(clean)},); yours has the shape {honest.shape}"
    reached = ((found[:, None] > honest) + 0.5 * (found[:, None] == honest)).mean()
    return reached >= floor, f"AUROC {reached:.3f}, the floor {floor:.3f}"


# 6 · ablations


@exercise("6.1")
def _(shallow: int, narrow: int):
    return shallow / narrow, {"the other way round": narrow / shallow}


@exercise("6.2")
def _():
    ours, theirs = np.array([0.9, 0.5, 0.7, 0.3, 0.6]), np.array([0.85, 0.44, 0.66, 0.25, 0.55])

    def spreads(ddof):
        return np.array(
            [np.std(ours - theirs, ddof=ddof), np.hypot(np.std(ours, ddof=ddof), np.std(theirs, ddof=ddof))]
        )

    return spreads(1) / np.sqrt(5), {
        "those are standard deviations; divide by √n": spreads(1),
        "the squares are divided by n; a sample's by n − 1": spreads(0) / np.sqrt(5),
    }


@exercise("6.3")
def _():
    return np.array([0.04, 0.06, 0.06, 0.2]), {
        "each is multiplied by 4: that is Bonferroni's": np.array([0.04, 0.08, 0.12, 0.8]),
        "they are multiplied the wrong way round": np.array([0.01, 0.04, 0.09, 0.8]),
    }


@exercise("6.4")
def _(worth: dict):
    return max(worth, key=worth.get), {}
