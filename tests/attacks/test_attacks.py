"""The attack engine: budgets in pixels, the 8-bit grid, independence of samples, and parity with foolbox."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vars_core.attacks.engine import fgsm, gradient, in_batches, linf, noise, quantise
from vars_core.attacks.objectives import hook
from vars_core.extractor import to_images, to_photos
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")


class Linear:
    """⟨w, x⟩ per image: its optimum in the ball is known."""

    def __init__(self, weights):
        self.weights = weights

    def __call__(self, images):
        return (images * self.weights).sum((1, 2, 3))


class CrossEntropy:
    """Untargeted: what foolbox maximises. `modules` as the study's own objectives have them."""

    def __init__(self, net, labels):
        self.net, self.labels, self.modules = net, labels, (net,)

    def __getitem__(self, rows):
        return CrossEntropy(self.net, self.labels[rows])

    def __call__(self, images):
        return F.cross_entropy(self.net(images), self.labels, reduction="none")


def weights(shape=(3, 8, 8), seed=0):
    return torch.randn(shape, generator=generator(seed, "weights"))


def photos(n=4, side=8, low=0, high=256, seed=0):
    return np.random.default_rng(seed).integers(low, high, (n, side, side, 3), np.uint8)


def interior(n=4, side=8, seed=0):
    """Images far enough from 0 and 255 that no budget up to 64 is clipped."""
    return to_images(photos(n, side, 64, 192, seed))


def network(seed=0):
    """Small, smooth, with batch normalisation and dropout, so that train and eval mode differ."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout(0.5),
        nn.Conv2d(8, 8, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 16, 5),
    )  # fmt: skip


def steps_of(adversarial, images):
    """Perturbation in 8-bit steps, from the photos that would be uploaded (int, N, H, W, 3)."""
    return to_photos(adversarial).astype(int) - to_photos(images)


def pgd(objective, images, epsilon, **options):
    return linf(objective, images, epsilon, **{"generator": generator(0, "pgd"), **options})


ATTACKS = {
    "fgsm": lambda o, x, e: fgsm(o, x, e),
    "pgd": pgd,
    "bim": lambda o, x, e: pgd(o, x, e, random_start=False),
    "mim": lambda o, x, e: pgd(o, x, e, momentum=1.0),
    "restarts": lambda o, x, e: pgd(o, x, e, restarts=2, steps=3),
    "noise": lambda o, x, e: noise(x, e, generator=generator(0, "noise")),
}


# Trap: ε added after normalisation, so that a nominal 4 is 0.92 grey levels.
@pytest.mark.parametrize("epsilon", [1, 2, 3, 4, 7, 8, 16, 32])
def test_fgsm_spends_exactly_epsilon_on_interior_pixels(epsilon):
    images, w = interior(), weights()
    change = steps_of(fgsm(Linear(w), images, epsilon), images)
    assert (change == epsilon * w.sign().int().permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("epsilon", [1, 4, 16, 255])
def test_no_attack_leaves_its_budget_or_the_grid(name, epsilon):
    net = network().eval()
    images = to_images(photos())
    attacked = ATTACKS[name](CrossEntropy(net, torch.arange(4)), images, epsilon)
    assert torch.equal(attacked, to_images(to_photos(attacked)))  # on the grid, and nothing is lost by saving
    change = steps_of(attacked, images)
    assert 0 < np.abs(change).max() <= epsilon


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_budget_and_grid_hold_for_any_shape(data):
    n, height, width = (data.draw(st.integers(1, top)) for top in (3, 9, 9))
    epsilon = data.draw(st.integers(1, 255))
    name = data.draw(st.sampled_from(sorted(ATTACKS)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    images = torch.from_numpy(rng.integers(0, 256, (n, 3, height, width), np.uint8)).float() / 255
    objective = Linear(torch.from_numpy(rng.normal(size=(3, height, width))).float())
    attacked = ATTACKS[name](objective, images, epsilon)
    assert attacked.shape == images.shape and attacked.dtype == images.dtype
    assert attacked.min() >= 0 and attacked.max() <= 1
    assert torch.equal(attacked, quantise(attacked))
    assert np.abs(steps_of(attacked, images)).max() <= epsilon


# Trap: truncation instead of rounding changes 24 % of untouched pixels by −1.
def test_an_untouched_photo_survives_bit_for_bit():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    for original in (levels, photos(8, 16)):
        images = to_images(original)
        assert (to_photos(images) == original).all()
        assert torch.equal(quantise(images), images)
        flat = linf(lambda x: x.sum((1, 2, 3)) * 0, images, 4, random_start=False, generator=generator(0))
        assert (to_photos(flat) == original).all()


# Trap: truncation makes attacks one-sided (+0/−1 at ε = 4).
@pytest.mark.parametrize("attack", ["fgsm", "bim"])
@pytest.mark.parametrize("epsilon", [1, 3, 4, 5])
def test_signs_are_symmetric_on_a_symmetric_problem(attack, epsilon):
    images, w = interior(), weights()
    up = steps_of(ATTACKS[attack](Linear(w), images, epsilon), images)
    down = steps_of(ATTACKS[attack](Linear(-w), images, epsilon), images)
    assert (up == -down).all() and (up > 0).any() and (up < 0).any()
    assert np.abs(up).min() == epsilon


@pytest.mark.parametrize("epsilon", [1, 4, 8, 64])
@pytest.mark.parametrize("attack", ["fgsm", "bim", "pgd", "mim"])
def test_the_linear_optimum_is_reached(attack, epsilon):
    """max ⟨w, x + δ⟩ − ⟨w, x⟩ = ε ‖w‖₁ / 255."""
    # in double on the grid, so that rounding takes nothing
    images, objective = quantise(interior().double()), Linear(weights().double())
    gain = objective(ATTACKS[attack](objective, images, epsilon)) - objective(images)
    torch.testing.assert_close(gain, (epsilon / 255 * objective.weights.abs().sum()).expand(4))


# Trap: C&W's atanh cannot move saturated pixels, so white product photos look robust.
@pytest.mark.parametrize("attack", ["fgsm", "bim", "pgd", "mim"])
def test_saturated_pixels_are_perturbed(attack):
    images = interior(1)
    images[:, :, :4], images[:, :, 4:6] = 1, 0  # white above, then black
    change = steps_of(ATTACKS[attack](Linear(-torch.ones(3, 8, 8)), images, 8), images)
    assert (change[:, :4] == -8).all() and (change[:, 4:6] == 0).all()
    change = steps_of(ATTACKS[attack](Linear(torch.ones(3, 8, 8)), images, 8), images)
    assert (change[:, :4] == 0).all() and (change[:, 4:6] == 8).all()


@pytest.mark.parametrize("attack", ["fgsm", "bim"])
def test_several_budgets_in_one_batch(attack):
    images, objective = interior(), CrossEntropy(network().double().eval(), torch.arange(4))
    images, run = images.double(), ATTACKS[attack]
    budgets = torch.tensor([1.0, 4.0, 8.0, 16.0])
    together = run(objective, images, budgets)
    for row, epsilon in enumerate((1, 4, 8, 16)):
        alone = run(objective[row : row + 1], images[row : row + 1], epsilon)
        assert torch.equal(together[row], alone[0])
        assert np.abs(steps_of(together, images)[row]).max() == epsilon


# Trap: results depend on batch composition (torchattacks' C&W).
@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_a_sample_alone_is_the_same_sample_in_a_batch(momentum):
    images = interior(6).double()
    objective = CrossEntropy(network().double().eval(), torch.arange(6) % 5)

    def attack(objective, batch):
        return pgd(objective, batch, 8, random_start=False, momentum=momentum)

    together = attack(objective, images)
    assert not torch.equal(together, images)
    for size in (1, 4):
        assert torch.equal(in_batches(attack, objective, images, batch=size), together)


class Bumpy(Linear):
    """Many local maxima, so that restarts end in different places."""

    def __call__(self, images):
        return (torch.sin(300 * images) * self.weights).sum((1, 2, 3))


def test_restarts_are_merged_per_sample():
    images, objective = interior(6), Bumpy(weights())
    merged = pgd(objective, images, 8, restarts=4, steps=3)
    draw = generator(0, "pgd")  # one stream, so the singles start where the restarts did
    singles = torch.stack([objective(linf(objective, images, 8, steps=3, generator=draw)) for _ in range(4)])
    assert len(singles.argmax(0).unique()) > 1  # else a merge by batch would pass too
    assert torch.equal(objective(merged), singles.max(0).values)


class Late(Linear):
    """Image 0 gets no gradient from the first two calls."""

    calls = 0

    def __call__(self, images):
        self.calls += 1
        awake = torch.ones(len(images))
        awake[0] = float(self.calls > 2)
        return super().__call__(images) * awake


# Trap: 0/0 in the momentum freezes a sample as NaN for good (torchattacks' MIFGSM).
def test_a_zero_gradient_sample_recovers():
    images = interior(2)
    attacked = pgd(Late(weights()), images, 8, momentum=1.0, random_start=False)
    assert torch.isfinite(attacked).all()
    assert (np.abs(steps_of(attacked, images)) == 8).all()


# Trap: `.backward()` leaves gradients in the model (foolbox, ART).
@pytest.mark.parametrize("attack", ["fgsm", "pgd", "restarts"])
def test_no_gradient_is_left_in_the_model(attack):
    net = network().requires_grad_(True)
    images = interior()
    attacked = ATTACKS[attack](CrossEntropy(net, torch.arange(4)), images, 8)
    assert all(p.grad is None for p in net.parameters())
    assert images.grad is None and not images.requires_grad and not attacked.requires_grad


# Trap: weight gradients that nobody uses cost 55–60 % more multiply-adds.
def test_an_attack_costs_forward_plus_input_gradient_and_no_more():
    images, kernels = interior(), torch.randn(6, 3, 3, 3, generator=generator(0))
    mixed = torch.randn(6, 6, 3, 3, generator=generator(1))

    def objective(x):  # no modules: PyTorch's counter hooks them and autograd.grad refuses its hooks
        return F.conv2d(F.conv2d(x, kernels, padding=1).tanh(), mixed).square().mean((1, 2, 3))

    def cost(trainable, run):
        kernels.requires_grad_(trainable), mixed.requires_grad_(trainable)
        with FlopCounterMode(display=False) as counter:
            run(objective)
        return counter.get_total_flops()

    floor = cost(False, lambda objective: gradient(objective, images))
    assert floor > 0
    assert cost(True, lambda objective: pgd(objective, images, 8, steps=7)) <= 1.02 * 7 * floor
    assert cost(True, lambda objective: fgsm(objective, images, 8)) <= 1.02 * floor


class Raises(CrossEntropy):
    def __call__(self, images):
        super().__call__(images)
        raise RuntimeError("planted")


# Trap: dropout on while attacking; flags not restored, also when the attack raises.
@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_attacks_run_in_eval_mode_and_give_the_flags_back(attack):
    net = network().train()
    net[1].eval()
    flags = [m.training for m in net.modules()]
    running = net[1].running_mean.clone()
    images, labels = interior(), torch.arange(4)
    once, again = (ATTACKS[attack](CrossEntropy(net, labels), images, 8) for _ in range(2))
    assert [m.training for m in net.modules()] == flags
    with pytest.raises(RuntimeError, match="planted"):
        ATTACKS[attack](Raises(net, labels), images, 8)
    assert [m.training for m in net.modules()] == flags
    assert torch.equal(once, again)
    assert torch.equal(net[1].running_mean, running)
    assert torch.equal(once, ATTACKS[attack](CrossEntropy(net.eval(), labels), images, 8))


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
@pytest.mark.parametrize("wrong", [lambda x: x.sum(), lambda x: x.sum((2, 3)), lambda x: x.sum((1, 2, 3))[:-1]])
def test_an_objective_gives_one_value_per_image(attack, wrong):
    with pytest.raises(ValueError, match="one value per image"):
        ATTACKS[attack](wrong, interior(), 8)


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "noise"])
@pytest.mark.parametrize("epsilon", [0, -1, 300, float("nan"), torch.tensor([8.0, 8.0, 0.0, 8.0])])
def test_budgets_outside_the_range_are_refused(attack, epsilon):
    with pytest.raises(ValueError, match="8-bit steps"):
        ATTACKS[attack](Linear(weights()), interior(), epsilon)


def test_the_noise_control_is_uniform_and_without_direction():
    images = interior(8, 32)
    change = steps_of(noise(images, 8, generator=generator(0, "n")), images)
    assert set(np.unique(change)) == set(range(-8, 9))
    assert abs(change.mean()) < 0.1 and change.std() == pytest.approx(8 / 3**0.5, rel=0.02)


def test_same_seed_same_attack():
    images, objective = interior(), Bumpy(weights())
    one, two = (pgd(objective, images, 8, steps=2) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, pgd(objective, images, 8, steps=2, generator=generator(1, "pgd")))


# Trap: an untrained zero-init ResNet has 93 % zero gradients, so parity on it proves nothing.
@pytest.mark.parametrize("name", ["LinfPGD", "LinfFastGradientAttack"])
def test_the_same_photos_as_foolbox(name):
    foolbox = pytest.importorskip("foolbox")
    net = network(3).double().eval()
    images, labels = to_images(photos(6, 8, seed=5)).double(), torch.arange(6) % 5
    objective, kind = CrossEntropy(net, labels), getattr(foolbox.attacks, name)
    assert (gradient(objective, images) != 0).double().mean() > 0.99
    if name == "LinfPGD":  # α = 2.5 ε / K with K = 10
        theirs, ours = (
            kind(rel_stepsize=0.25, steps=10, random_start=False),
            pgd(objective, images, 8, random_start=False),
        )
    else:
        theirs, ours = kind(random_start=False), fgsm(objective, images, 8)
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    _, reference, _ = theirs(model, images, labels, epsilons=8 / 255)
    torch.testing.assert_close(ours, quantise(reference), atol=1e-6, rtol=0)
    assert not torch.equal(ours, images)


def test_momentum_is_that_of_the_paper():
    """Dong et al. 2018, eq. 6, sample by sample. (foolbox 3.3.4 leaves the gradient unnormalised.)"""
    images = quantise(to_images(photos(3, seed=5)).double())
    objective = CrossEntropy(network(3).double().eval(), torch.arange(3))
    eps, found = 8 / 255, []
    for row in range(3):
        clean = x = images[row : row + 1]
        velocity = 0
        for _ in range(10):
            slope = gradient(objective[row : row + 1], x)
            velocity = velocity + slope / slope.abs().sum()
            x = (x + 0.25 * eps * velocity.sign()).clamp(clean - eps, clean + eps).clamp(0, 1)
        found.append(quantise(x))
    ours = pgd(objective, images, 8, random_start=False, momentum=1.0)
    torch.testing.assert_close(ours, torch.cat(found), atol=1e-9, rtol=0)


def test_decaying_steps_by_hand():
    """Four steps of 8, 6, 4 and 2 grey levels, where nothing turns them around."""
    images, objective = quantise(torch.full((2, 3, 8, 8), 0.5)), Linear(weights())
    found = linf(objective, images, 100, steps=4, step=8, random_start=False, decay=True, generator=generator(0))
    torch.testing.assert_close(found - images, (20 / 255 * objective.weights.sign()).expand(2, -1, -1, -1))


# Trap: normalisation outside the attacked function rescales ε.
def test_hook_through_a_normalising_extractor_still_spends_epsilon_in_pixels():
    class Normalised(nn.Module):
        def forward(self, x):
            return ((x - 0.485) / 0.02).mean(3).flatten(1)

    images, features = interior(), Normalised()
    attacked = fgsm(hook(features, features(images.flip(0)).detach()), images, 4)
    assert (np.abs(steps_of(attacked, images)).max((1, 2, 3)) == 4).all()
