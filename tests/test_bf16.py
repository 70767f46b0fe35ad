"""Training computes in bfloat16. A processor's own kernels for it can be wrong (oneDNN's are, on CPUs with AMX, for a
patch embedding of 24 channels): every product that our networks ask for is compared with that in float32."""

import pytest
import timm
import torch
from conftest import ROOT
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torchvision.models import get_model

from vars_core.detection.detectors import Detector
from vars_core.extractor import SmallCNN
from vars_core.param_file import load
from vars_core.params import Reconstruction
from vars_core.reconstruction import filters
from vars_core.runtime import mixed_precision

PRODUCTS = ("convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm")
READ = [load(path, ["reconstruction"])["reconstruction"] for path in sorted((ROOT / "profiles").glob("*.yaml"))]
BUILT = [Reconstruction(**values) for values in READ]
SHAPES = {str(shape): shape for cfg in BUILT for shape in (cfg.shape, cfg.denoiser_shape)}
NETWORKS = {
    "small CNN": SmallCNN,
    "squeezenet": lambda: get_model("squeezenet1_0", weights=None).features,
    "efficientnet": lambda: timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0),
    "U-Net": lambda: filters.UNetDenoiser(width=12),
}


class Compared(TorchDispatchMode):
    """Does every product in bfloat16 once more in float32, and keeps the relative difference."""

    def __init__(self):
        super().__init__()
        self.errors = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        half = [t for t in tree_leaves(args) if isinstance(t, torch.Tensor) and t.dtype == torch.bfloat16]
        if name in PRODUCTS and half:
            exact = func(*tree_map(lambda t: t.float() if isinstance(t, torch.Tensor) else t, args), **(kwargs or {}))
            for place, (found, wanted) in enumerate(zip(tree_leaves(out), tree_leaves(exact), strict=True)):
                if isinstance(wanted, torch.Tensor) and wanted.norm() > 0:
                    error = float((found.float() - wanted).norm() / wanted.norm())
                    key = (name, place, *(tuple(t.shape) for t in half[:2]))
                    self.errors[key] = max(error, self.errors.get(key, 0.0))
        return out


def errors(network, *images):
    """Of each product of one step, forward and back."""
    torch.manual_seed(0)
    network.to(memory_format=torch.channels_last).train()
    images = [i.contiguous(memory_format=torch.channels_last) if i.dim() == 4 else i for i in images]
    with Compared() as compared:
        with mixed_precision(images[0]):
            out = network(*images)
        out.float().square().sum().backward()
    return compared.errors


def assert_right(found):
    assert found
    wrong = {key: error for key, error in found.items() if error > 0.03}
    assert not wrong, wrong


def photos(n=32):
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    assert_right(errors(NETWORKS[name](), photos()))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_filters_of_every_profile(shape):
    vit = filters.GlobalViT(**shape)
    for network in (vit, filters.windowed_of_equal_cost(vit, 64), filters.conv_of_equal_cost(vit, 64)):
        torch.nn.init.normal_(network.out.weight)  # untrained it is zero, and nothing would flow back
        assert_right(errors(network, photos(8)))


def test_detector():
    features = torch.randn(32, 224)
    assert_right(errors(Detector(224), photos(), photos(), features, features))
