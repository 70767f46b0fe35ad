"""The nearest rival: the Adversarial Image Denoiser of *Denoise to Protect* (Merra et al., SIGIR 2023).

A U-Net before the extractor, trained on photos that were attacked once beforehand, by an insider (INSA) and by its
signed single step (SIGN), with budgets from 1 to 15 grey levels. The loss is the distance of the features; in the
second half of the training the mean squared change of the scores of all users comes on top.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from vars_core.attacks.engine import fgsm, linf
from vars_core.attacks.promotion import push
from vars_core.extractor import to_images, to_photos
from vars_core.recommender.shop import Shop
from vars_core.reconstruction.filters import UNetDenoiser
from vars_core.reconstruction.training import FilterLoss, train_filters
from vars_core.runtime import generator

LARGEST = 15  # grey levels
BATCH = 64  # photos attacked at once


def attacked_photos(shop: Shop, items, steps: int, seed: int) -> np.ndarray:
    """uint8 photos of `items`, every other one attacked by SIGN, the rest by INSA with `steps` steps of PGD."""
    draw, items = generator(seed, "denoise to protect"), np.asarray(items)
    budgets = torch.randint(1, LARGEST + 1, (len(items),), generator=draw).float()
    photos, signed = shop.photos(items).copy(), np.arange(len(items)) % 2 == 0
    for single in (True, False):
        for rows in np.split(chosen := np.flatnonzero(signed == single), range(BATCH, len(chosen), BATCH)):
            if not len(rows):
                continue
            goal, images = push(shop, items[rows], shop.extractor, "insa"), to_images(photos[rows])
            own = budgets[rows].to(images.device)
            found = fgsm(goal, images, own) if single else linf(goal, images, own, steps=steps, generator=draw)
            photos[rows] = to_photos(found)
    return photos


def train(
    model: UNetDenoiser, shop: Shop, items, ranking: torch.Tensor, cfg, *, steps: int, seed: int
) -> pd.DataFrame:
    """Train `model` on the photos of `items`, attacked beforehand. Returns the loss terms of both halves.

    `ranking` is M of `FilterLoss`, whose terms stand for the paper's two; `cfg` is `params.Reconstruction`."""
    photos, attacked = shop.photos(items), attacked_photos(shop, items, cfg.attack_steps, seed)
    loss = FilterLoss(shop.extractor, ranking, pixel_weight=0, feature_weight=1, identity_weight=0, ranking_weight=0,
                      gate_weight=0)  # fmt: skip
    halves = []
    for weight, part in ((0.0, steps // 2), (1.0, steps - steps // 2)):
        arms = {"aid": (model, replace(loss, ranking_weight=weight))}
        draw = generator(seed, "aid", weight)
        halves.append(train_filters(arms, photos, cfg, steps=part, generator=draw, fixed_attacks=attacked))
    return pd.concat(halves, ignore_index=True)
