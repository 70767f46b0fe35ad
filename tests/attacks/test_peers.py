"""Parity with other people's attacks, where they are installed beside the study (they are none of its requirements).

    make peers

installs them into scratch/peers and runs this file; with `PYTHONPATH=scratch/peers` any other run finds them. Apart,
and without dependencies, since torchattacks pins an old `requests`. Only this file and `benchmarks.attacks` use them.
"""

import numpy as np
import pytest
import torch
from test_attacks import CrossEntropy, network, pgd, photos
from torch import nn

from vars_core.attacks.apgd import apgd
from vars_core.attacks.engine import fgsm, gradient, quantise
from vars_core.attacks.square import square
from vars_core.extractor import to_images
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")


@pytest.fixture
def problem():
    """A smooth network, labels, images, and the same as an objective. Parity on zero gradients proves nothing."""
    net, labels, images = network(3).eval(), torch.arange(6) % 5, to_images(photos(6, 8, seed=5))
    objective = CrossEntropy(net, labels)
    assert (gradient(objective, images) != 0).double().mean() > 0.99
    return net, labels, images, objective


def test_pgd_and_fgsm_give_the_same_photos_as_art(problem):
    pytest.importorskip("art")
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    net, labels, images, objective = problem
    model = PyTorchClassifier(net, nn.CrossEntropyLoss(), (3, 8, 8), 5, clip_values=(0, 1), device_type="cpu")
    eps, x, y = 8 / 255, images.numpy(), np.eye(5, dtype=np.float32)[labels]
    iterated = ProjectedGradientDescentPyTorch(model, eps=eps, eps_step=0.25 * eps, max_iter=10, verbose=False)
    single = FastGradientMethod(model, eps=eps)
    for theirs, ours in (
        (iterated, pgd(objective, images, 8, random_start=False)),
        (single, fgsm(objective, images, 8)),
    ):
        reference = torch.from_numpy(theirs.generate(np.array(x, order="C"), y))
        torch.testing.assert_close(ours, quantise(reference), atol=1e-6, rtol=0)
        assert not torch.equal(ours, images)


@pytest.mark.parametrize(("kind", "momentum"), [("PGD", 0.0), ("MIFGSM", 1.0)])
def test_pgd_and_mim_give_the_same_photos_as_torchattacks(problem, kind, momentum):
    torchattacks = pytest.importorskip("torchattacks")
    net, labels, images, objective = problem
    options = {"random_start": False} if kind == "PGD" else {"decay": 1.0}
    theirs = getattr(torchattacks, kind)(net, eps=8 / 255, alpha=2 / 255, steps=10, **options)
    ours = pgd(objective, images, 8, step=2, random_start=False, momentum=momentum)
    torch.testing.assert_close(ours, quantise(theirs(images, labels).detach()), atol=1e-6, rtol=0)
    assert not torch.equal(ours, images)


class Margin(CrossEntropy):
    """Above 0 where the network names another class: what Square minimises elsewhere."""

    def __call__(self, images):
        logits = self.net(images)
        own = logits.gather(1, self.labels[:, None])[:, 0]
        return logits.scatter(1, self.labels[:, None], -torch.inf).amax(1) - own


def test_auto_pgd_and_square_fool_as_many_as_theirs():
    """Starts and draws differ, and theirs gives back an image that it could not fool: shares fooled are compared."""
    torchattacks = pytest.importorskip("torchattacks")
    net, images = network(3).eval(), to_images(photos(64, 8, seed=5))
    labels = net(images).argmax(1)

    def fooled(found):
        return (net(quantise(found.detach())).argmax(1) != labels).double().mean().item()

    for epsilon in (2, 4, 8):
        theirs = torchattacks.APGD(net, eps=epsilon / 255, steps=30, n_restarts=1, seed=0)(images, labels)
        ours = apgd(CrossEntropy(net, labels), images, epsilon, steps=30, generator=generator(0, "peer"))
        assert fooled(ours.images) >= fooled(theirs)
        theirs = torchattacks.Square(net, eps=epsilon / 255, n_queries=300, n_restarts=1, seed=0)(images, labels)
        ours = square(Margin(net, labels), images, epsilon, queries=300, generator=generator(0, "peer"))
        assert fooled(ours.images) >= fooled(theirs) - 0.05
    assert 0.2 < fooled(ours.images) < 0.95  # neither out of reach nor trivial
