"""A defence that changes the victim: the extractor itself, fine-tuned until attacks move its features less.

It needs no labels and keeps the features' meaning, so that the shop's recommender goes on without re-training:
Schlarmann et al., Robust CLIP (FARE), ICML 2024, after adversarial training (Madry et al. 2018).
"""

import copy

import numpy as np
import torch

from vars_core.attacks.engine import linf
from vars_core.attacks.objectives import untargeted
from vars_core.extractor import Extractor
from vars_core.reconstruction.trainer import learning_rate_factor
from vars_core.reconstruction.training import next_batch
from vars_core.runtime import device, mixed_precision, progress


def finetune_robust(
    extractor: Extractor,
    photos: np.ndarray,
    *,
    epsilon: int,
    attack_steps: int,
    steps: int,
    batch_size: int,
    learning_rate: float = 1e-3,
    generator: torch.Generator,
) -> Extractor:
    """A copy f′ of `extractor` f with min E max_{‖δ‖∞ ≤ ε} ‖f′(x + δ) − f(x)‖² over `photos` (N, H, W, 3).

    Half of every batch is attacked by PGD on f′ as it stands, half is clean (there f′ shall stay f). Statistics of
    normalisation layers and the scaler stay f's. Returned frozen, in eval mode."""
    student = copy.deepcopy(extractor).to(device(), memory_format=torch.channels_last).eval()
    student.backbone.requires_grad_(True)
    optimiser = torch.optim.AdamW(student.backbone.parameters(), learning_rate, weight_decay=1e-4)
    rows = []
    for step in progress(range(steps), "robust extractor"):
        images, rows = next_batch(photos, rows, batch_size, generator)
        with torch.no_grad(), mixed_precision(images):
            clean_features = extractor(images).float()
        half = len(images) // 2
        with mixed_precision(images):
            objective = untargeted(student, clean_features[:half])
            attacked = linf(objective, images[:half], epsilon, steps=attack_steps, generator=generator)
            change = student(torch.cat([attacked, images[half:]])).float() - clean_features
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * learning_rate_factor((step + 0.5) / steps)
        optimiser.zero_grad()
        change.square().mean().backward()
        torch.nn.utils.clip_grad_norm_(student.backbone.parameters(), 1.0)
        optimiser.step()
    return student.eval().requires_grad_(False)
