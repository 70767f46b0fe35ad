"""Poisoning or evasion: attacked photos that the recommender was trained on, or that it meets when it is frozen.

Only items that somebody bought can poison: a cold item is in no training triple, so its photo teaches nothing.
"""

import numpy as np
import pandas as pd
import torch

from vars_core.recommender import attack_metrics, ranking
from vars_core.recommender.vbpr import VBPR
from vars_core.runtime import device


def poisoned(features: np.ndarray, items, attacked: np.ndarray) -> np.ndarray:
    """`features` (I, D) with those of `items` (A,) replaced by `attacked` (A, D); a copy. ValueError on a misfit."""
    items = np.asarray(items)
    if attacked.shape != (len(items), features.shape[1]):
        raise ValueError(f"attacked features have shape {attacked.shape}, not {(len(items), features.shape[1])}")
    changed = features.copy()
    changed[items] = attacked
    return changed


def exposure(model, split, features: np.ndarray, users, items, new: np.ndarray, k: int) -> float:
    """ER@k of `items` for `users`, each alone with its features of `new` (A, D), the others' being `features`."""
    scores = model.scores(users, features)
    changed = model.item_scores(users, items, torch.from_numpy(new).to(device()))
    return attack_metrics.exposure_rate(ranking.item_ranks(scores, split.train[users], items, changed), k)


def compare(
    clean_models, split, features: np.ndarray, cfg, users, items, attacked: np.ndarray, k: int
) -> pd.DataFrame:
    """One row per seed: ER@k of `items` untouched, under evasion (frozen model) and after poisoning (re-trained).

    `clean_models` maps each seed to the VBPR trained with it on `features`; re-training uses the same seed."""
    changed, rows = poisoned(features, items, attacked), []
    for seed, clean in clean_models.items():
        trained = VBPR().fit(split, changed, cfg, seed)
        arms = {"untouched": (clean, features[items]), "evasion": (clean, attacked), "poisoning": (trained, attacked)}
        values = {name: exposure(m, split, features, users, items, new, k) for name, (m, new) in arms.items()}
        rows.append({"seed": seed, **values})
    return pd.DataFrame(rows)
