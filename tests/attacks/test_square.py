"""The Square attack asks for scores only, never more than it may, and is kept per image."""

import numpy as np
import pytest
import torch
from test_attacks import CrossEntropy, Linear, interior, network, pgd, photos, steps_of, weights

from vars_core.attacks.engine import noise
from vars_core.attacks.objectives import Objective, WithThreshold
from vars_core.attacks.square import area, square
from vars_core.extractor import to_images
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")


def attack(objective, images, epsilon=8, **options):
    return square(objective, images, epsilon, **{"queries": 200, "generator": generator(0, "square"), **options})


def test_the_area_follows_the_schedule_of_the_paper():
    halved = [area(step, 10_000, 0.8) for step in (1, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)]
    assert halved == pytest.approx([0.8 / 2**k for k in range(10)])
    assert area(11, 1_000, 0.8) == pytest.approx(0.8 / 4)  # stretched: step 110 of 10,000


class Heard(Linear):
    """Keeps what it was asked, and refuses gradients."""

    def __init__(self, weights):
        super().__init__(weights)
        self.asked = []

    def __call__(self, images):
        assert not images.requires_grad and not torch.is_grad_enabled()
        self.asked.append(images.clone())
        return super().__call__(images)


def test_every_query_is_an_upload_within_the_budget():
    images, objective = to_images(photos(3)), Heard(weights())
    result = attack(objective, images, torch.tensor([4.0, 8.0, 16.0]), queries=60)
    assert len(objective.asked) == 60 and result.queries.tolist() == [60] * 3
    for asked in objective.asked:
        change = np.abs(steps_of(asked, images)).max((1, 2, 3))
        assert (change <= [4, 8, 16]).all()
        torch.testing.assert_close(asked * 255, (asked * 255).round(), atol=1e-4, rtol=0)
    stripes = steps_of(objective.asked[0], images)
    inner = (images.permute(0, 2, 3, 1).numpy() * 255 > 16) & (images.permute(0, 2, 3, 1).numpy() * 255 < 239)
    sign = np.sign(stripes).astype(float)
    sign[~inner] = np.nan
    assert (np.nanmax(sign, 1) == np.nanmin(sign, 1)).all()  # one sign per column and channel
    answers = torch.stack([Linear(weights())(asked) for asked in objective.asked])
    assert torch.equal(result.value, answers.max(0).values)  # the best answer of each image, not of the batch


def test_more_queries_do_not_hurt_and_it_beats_noise():
    images, objective = interior(8), CrossEntropy(network(1).eval(), torch.arange(8) % 5)
    values = [attack(objective, images, queries=q).value.mean().item() for q in (1, 50, 400)]
    noisy = objective(noise(images, 8, generator=generator(0, "n"))).mean().item()
    assert noisy < values[1] < values[2] and values[0] < values[1]


def test_score_queries_do_not_beat_the_gradient_on_a_smooth_network():
    images, objective = interior(8).double(), CrossEntropy(network(1).double().eval(), torch.arange(8) % 5)
    white = objective(pgd(objective, images, 8, steps=40))
    assert (attack(objective, images, queries=400).value <= white + 1e-9).all()


class Fall(Linear, Objective):
    modules = ()

    def __getitem__(self, rows):
        return self


def test_an_image_that_has_enough_asks_no_further():
    images, objective = interior(4).double(), Fall(weights().double())
    free = attack(objective, images)
    enough = torch.stack([free.value[0] - 0.3, free.value[1] + 9, objective(images)[2] - 9, free.value[3] - 0.1])
    result = attack(WithThreshold(objective, enough), images)
    assert result.success.tolist() == [True, False, True, True]
    assert result.queries[2] == 1 and result.queries[1] == 200
    assert 1 < result.queries[0] < 200 and 1 < result.queries[3] < 200
    assert torch.equal(result.images[1], free.images[1])  # not disturbed by the others' leaving


def test_at_least_one_query():
    with pytest.raises(ValueError, match="at least one query, got 0"):
        attack(Linear(weights()), interior(), queries=0)
