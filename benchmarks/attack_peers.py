"""PGD as foolbox, ART and torchattacks run it: untargeted, from the image itself, steps of ε/4, one batch.

foolbox is among the tests' requirements. The others lie apart; `make peers` installs them."""

from collections.abc import Callable
from importlib import util

import numpy as np
import torch
from torch import nn

MODULES = {"foolbox": "foolbox", "ART": "art", "torchattacks": "torchattacks"}


def missing() -> list[str]:
    """The peers that can't be imported here."""
    return [name for name, module in MODULES.items() if util.find_spec(module) is None]


def attacks(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, epsilon: int, steps: int
) -> dict[str, Callable]:
    """name → a function without arguments that attacks `images` (N, 3, H, W) with `labels` (N,), for each installed
    peer. It returns what the peer gives, a tensor or an array (N, 3, H, W), not rounded."""
    makers = {"foolbox": _foolbox, "ART": _art, "torchattacks": _torchattacks}
    left_out = missing()
    return {
        name: make(net, images, labels, epsilon / 255, steps) for name, make in makers.items() if name not in left_out
    }


def _foolbox(net, images, labels, eps, steps):
    import foolbox

    model = foolbox.PyTorchModel(net, bounds=(0, 1), device=images.device)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=eps / 4, steps=steps, random_start=False)
    # `run`, not the call: that would clip and look for successes besides
    return lambda: attack.run(model, images, labels, epsilon=eps)


def _art(net, images, labels, eps, steps):
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        classes = net(images[:1]).shape[1]
    shape, kind = tuple(images.shape[1:]), "gpu" if images.is_cuda else "cpu"
    model = PyTorchClassifier(net, nn.CrossEntropyLoss(), shape, classes, clip_values=(0, 1), device_type=kind)
    settings = {"eps": eps, "eps_step": eps / 4, "max_iter": steps, "batch_size": len(images), "verbose": False}
    attack = ProjectedGradientDescentPyTorch(model, **settings)
    x = np.array(images.cpu().numpy(), order="C")  # ART takes and gives arrays
    y = np.eye(classes, dtype=np.float32)[labels.cpu()]
    return lambda: attack.generate(x, y)


def _torchattacks(net, images, labels, eps, steps):
    import torchattacks

    attack = torchattacks.PGD(net, eps=eps, alpha=eps / 4, steps=steps, random_start=False)
    return lambda: attack(images, labels)
