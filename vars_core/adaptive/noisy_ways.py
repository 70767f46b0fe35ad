"""Ways to attack a shop that adds noise to every photo, for those who know all of it but the draws.

Each gives photos uint8 (A, H, W, 3) of `items`, within ε/255."""

import numpy as np
import torch
from torch import nn

from vars_core.adaptive.randomised import RandomisedShop
from vars_core.attacks.engine import attack_photos, linf
from vars_core.attacks.expectation import Expectation, MeanFeatures
from vars_core.attacks.objectives import Objective
from vars_core.attacks.promotion import push
from vars_core.attacks.square import square
from vars_core.extractor import to_images
from vars_core.runtime import images_at_once

STEP = 10  # × ε / steps, the first of steps that decay; with 2.5, PGD's, the photo settles before it is at the edge


def photos_at_once(draws: int) -> int:
    """So many photos that their `draws` draws fill a batch, at least one."""
    return max(1, images_at_once() // draws)


def settling(objective, images, epsilon, *, steps: int, generator, restarts: int = 1):
    """PGD for objectives with noise, which makes signs jump: momentum averages over steps, and steps that decay let
    the photo settle."""
    step = STEP * epsilon / steps
    options = dict(steps=steps, step=step, momentum=1.0, decay=True, restarts=restarts, generator=generator)
    return linf(objective, images, epsilon, **options)


def objective(noisy: RandomisedShop, items, aim: str, draws: int, generator, *, image_filter=None) -> Objective:
    """`aim` over `draws` draws a look: the expected count of lists where each serving has a draw of its own, the
    count by the mean features where scores are cached. `image_filter`: what the attacker has, if not the shop's."""
    path = nn.Sequential(noisy.image_filter if image_filter is None else image_filter, noisy.shop.extractor).eval()
    served = noisy.clean_scores[noisy.shop.known_users]
    if noisy.rule == "one":
        goal = push(noisy.shop, items, path, aim, served)
        return Expectation(goal, noisy.sigma, draws, generator, counts=aim != "promote")
    return push(noisy.shop, items, MeanFeatures(path, noisy.sigma, draws, generator), aim, served)


def through_noise(
    noisy: RandomisedShop, items, aim: str, epsilon: int, steps: int, draws: int, generator, *,
    attack=settling, image_filter=None,
) -> np.ndarray:  # fmt: skip
    """White box by expectation over `draws` draws a step; with another `image_filter`, a surrogate's, transfer."""
    goal = objective(noisy, items, aim, draws, generator, image_filter=image_filter)
    options = dict(steps=steps, generator=generator, batch=photos_at_once(draws), label=f"{aim}, {draws} draws")
    return attack_photos(attack, goal, to_images(noisy.shop.photos(items)), epsilon, **options)


def without_noise(noisy: RandomisedShop, items, aim: str, epsilon: int, steps: int, generator) -> np.ndarray:
    """White box through the filter as if no noise came before it."""
    path = nn.Sequential(noisy.image_filter, noisy.shop.extractor).eval()
    goal = push(noisy.shop, items, path, aim, noisy.clean_scores[noisy.shop.known_users])
    images = to_images(noisy.shop.photos(items))
    return attack_photos(settling, goal, images, epsilon, steps=steps, generator=generator, label=f"{aim}, no noise")


def by_asking(
    noisy: RandomisedShop, items, aim: str, epsilon: int, queries: int, draws: int, generator
) -> np.ndarray:
    """Square, which sees no gradient: each of `queries` answers is the objective over `draws` draws."""

    def attack(goal, images, epsilon, *, steps, generator):
        return square(goal, images, epsilon, queries=steps, generator=generator)

    goal = objective(noisy, items, aim, draws, generator)
    options = dict(steps=queries, generator=generator, batch=photos_at_once(draws), label=f"Square, {draws} draws")
    return attack_photos(attack, goal, to_images(noisy.shop.photos(items)), epsilon, **options)


def with_known_noise(
    noisy: RandomisedShop, items, aim: str, epsilon: int, steps: int, generator
) -> tuple[np.ndarray, np.ndarray]:
    """Photos made against the very draws that will serve them, and whether they are then listed (U, A).

    A shop whose draws are known is a network without noise: the reason why they are secret."""
    path, made = nn.Sequential(noisy.image_filter, noisy.shop.extractor).eval(), []
    draws = {"one": 1, "mean": noisy.draws, "median": noisy.voters}[noisy.rule]
    for item in items:
        source = noisy.noise_source(item, "upload").initial_seed()
        known = MeanFeatures(path, noisy.sigma, draws, seed=source)
        goal = push(noisy.shop, [item], known, aim, noisy.clean_scores[noisy.shop.known_users])
        options = dict(steps=steps, generator=generator, label=f"{aim}, noise known")
        made.append(attack_photos(settling, goal, to_images(noisy.shop.photos([item])), epsilon, **options))
    photos, users = np.concatenate(made), noisy.shop.reporting_users
    needed = noisy.entry_scores(users, items)
    listed = noisy.served_scores(users, items, photos, "upload") > needed
    return photos, np.where(torch.isposinf(needed).cpu(), np.nan, listed.cpu().double())
