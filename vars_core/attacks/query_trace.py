"""What a black-box attacker asks, and what it has after so many queries: the same attack looked at while it runs."""

from collections.abc import Sequence

import torch

from vars_core.attacks.engine import per_photo, quantise
from vars_core.attacks.objectives import Objective
from vars_core.extractor import to_photos


class QueryTrace(Objective):
    """An objective that remembers, per image, the best photo within ε asked about so far, at every number of
    queries in `marks`.

    `images` (N, 3, H, W) are the untouched photos, `epsilon` is in 8-bit steps. A query is one upload per image;
    probes beyond ε are queries too, but nothing that an attacker within ε could keep. `photos` maps marks to images.
    Raises ValueError for marks that aren't positive, and when it is narrowed to some of its images."""

    def __init__(self, objective, images: torch.Tensor, epsilon: int, marks: Sequence[int]):
        if not marks or min(marks) < 1:
            raise ValueError(f"marks are numbers of queries, 1 or more; got {list(marks)}")
        self.objective, self.origin, self.epsilon = objective, images, epsilon
        self.marks, self.queries, self.photos = sorted(set(marks)), 0, {}
        self.best, self.value = images, torch.full((len(images),), -torch.inf).to(images)

    @property
    def modules(self):
        return self.objective.modules

    def __getitem__(self, rows):
        raise ValueError("a trace counts the queries of all its images: run it in one batch")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        values = self.objective(images)
        self.queries += 1
        with torch.no_grad():
            within = ((images - self.origin).abs() * 255).amax((1, 2, 3)) <= self.epsilon + 1e-3
            better = within & (values > self.value)
            self.best = torch.where(per_photo(better), quantise(images), self.best)
            self.value = torch.where(better, values, self.value)
        if self.queries in self.marks:
            self.photos[self.queries] = self.best
        return values


class QueryLog(Objective):
    """An objective that keeps what is asked about its first image: `photos`, uint8 (H, W, 3) each, as uploaded."""

    def __init__(self, objective):
        self.objective, self.photos = objective, []

    @property
    def modules(self):
        return self.objective.modules

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.photos.append(to_photos(quantise(images[:1].detach()))[0])
        return self.objective(images)
