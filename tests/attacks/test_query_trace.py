"""What a black box has after so many queries: values by hand, on an objective of one number."""

import numpy as np
import pytest
import torch

from vars_core.attacks.query_trace import QueryLog, QueryTrace
from vars_core.attacks.square import square
from vars_core.runtime import generator


class Brightness:
    modules = ()

    def __call__(self, images):
        return images.mean((1, 2, 3))


GREY = torch.full((2, 3, 4, 4), 100 / 255)


def test_a_trace_keeps_the_best_photo_within_the_budget():
    trace = QueryTrace(Brightness(), GREY, 4, marks=[1, 2, 3])
    for level in (102, 110, 101):  # the second is brightest, but 10 levels away
        trace(torch.full_like(GREY, level / 255))
    assert trace.queries == 3
    for mark in (1, 2, 3):
        assert torch.equal(trace.photos[mark] * 255, torch.full_like(GREY, 102))


def test_a_trace_ends_where_the_square_attack_ends():
    trace = QueryTrace(Brightness(), GREY, 8, marks=[1, 5, 30])
    found = square(trace, GREY, 8, queries=30, generator=generator(0, "trace"))
    assert torch.equal(trace.photos[30], found.images)
    values = [Brightness()(trace.photos[mark]).sum() for mark in (1, 5, 30)]
    assert values == sorted(values) and values[-1] > values[0]
    assert (found.queries == 30).all()


def test_a_trace_refuses_bad_marks_and_slices():
    with pytest.raises(ValueError, match="1 or more"):
        QueryTrace(Brightness(), GREY, 8, marks=[0])
    with pytest.raises(ValueError, match="one batch"):
        QueryTrace(Brightness(), GREY, 8, marks=[1])[:1]


def test_a_log_keeps_every_upload_of_the_first_image():
    log = QueryLog(Brightness())
    found = square(log, GREY, 8, queries=12, generator=generator(0, "trace"))
    assert len(log.photos) == 12 and all(photo.shape == (4, 4, 3) and photo.dtype == np.uint8 for photo in log.photos)
    best = max(photo.mean() for photo in log.photos)
    assert best == pytest.approx(found.images[0].mean().item() * 255, abs=1e-3)
