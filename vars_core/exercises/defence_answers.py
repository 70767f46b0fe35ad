"""The right answers to the exercises of notebooks 4 to 8, and what one gets by likely mistakes. Try first."""

import numpy as np
from scipy.stats import norm

from vars_core.exercises.checks import exercise, goal

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


# 7 · adaptive attackers


@exercise("7.1")
def _():
    return "T2", {"T3 knows the detector, too": "T3", "T1 knows how such a filter is made, but not this one": "T1"}


@exercise("7.2")
def _():
    first, second = np.array([0.1, 0.5, 0.0]), np.array([0.3, 0.1, 0.2])
    worst, best_mean = np.maximum(first, second).mean(), max(first.mean(), second.mean())
    return np.array([worst, best_mean]), {
        "the two are swapped": np.array([best_mean, worst]),
        "that is the mean over both attacks": np.array([(first + second).mean() / 2, best_mean]),
    }


@exercise("7.3")
def _(gradients):
    spread = gradients.std(0).mean()
    return np.array([spread / 2, 36]), {
        "the error falls with √n, not with n": np.array([spread / 4, 12]),
        "three times the draws do not make a third of the error": np.array([spread / 2, 12]),
    }


@goal("7.4")
def _(photos, clean, epsilon: int, unflagged, oblivious):
    photos = np.asarray(photos)
    if photos.dtype != np.uint8 or photos.shape != clean.shape:
        return False, f"uint8 photos of the shape {clean.shape} are expected"
    largest = int(np.abs(photos.astype(int) - clean).max())
    if largest > epsilon:
        return False, f"a value was changed by {largest}, more than {epsilon}"
    reached, bar = unflagged(photos), max(unflagged(sheet) for sheet in oblivious)
    return reached >= bar, f"{reached:.2%} of lists unflagged, by sellers who do not know the defence {bar:.2%}"


# 8 · certificate


@exercise("8.1")
def _():
    r = 2 * np.sqrt(3 * 64 * 64) / 255
    return np.array([r, r / 0.25]), {
        "ε is taken in grey levels, not divided by 255": np.array([255 * r, 255 * r / 0.25]),
        "the photo has three colours: d = 3 · 64 · 64": np.array([r, r / 0.25]) / np.sqrt(3),
    }


@exercise("8.2")
def _():
    w, x, limit, sigma, r = np.array([3.0, 4.0]), np.array([0.2, 0.1]), 1.5, 0.25, 0.1
    level = (w @ x - limit) / (sigma * np.linalg.norm(w))
    chance, moved = norm.cdf(level), norm.cdf(level + r / sigma)
    return np.array([chance, moved, moved]), {
        "that is the chance to stay below the limit": 1 - np.array([chance, moved, moved]),
        "the score's noise has σ ‖w‖, not σ": np.r_[
            norm.cdf(level * 5), np.repeat(norm.cdf(level * 5 + r / sigma), 2)
        ],
    }


@exercise("8.3")
def _():
    return 1 - 0.001 ** (1 / 20), {
        "that is a bound by the rule of three, at 0.05": 3 / 20,
        "that is the chance of a miss": 0.001 ** (1 / 20),
    }


@exercise("8.4", tolerance=1e-9)
def _(votes: int):
    return votes, {
        "more than half of the draws is not enough: chance alone gives 17 often": 17,
        "that many have a probability of just over 0.001": votes - 1,
    }
