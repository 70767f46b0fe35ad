"""ImageNet weights that a package of the registry brings."""

import importlib
from importlib import metadata

import pytest
import timm
import torch
from conftest import SHARED
from safetensors.torch import load_file

from vars_core import seal, weights
from vars_core.extractor import Extractor
from vars_core.weights import PACKAGE, Package, WeightsError, file_of

pytestmark = pytest.mark.usefixtures("on_cpu")
NAME = "tf_efficientnet_lite0"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with the network's tensors under other names, drawn at random; the tensors."""
    tensors = timm.create_model(NAME, num_classes=1000).state_dict()
    file = tmp_path / "toy_weights" / "w.pth"
    file.parent.mkdir()
    torch.save({f"_{place}": tensor for place, tensor in enumerate(tensors.values())}, file)
    about = tmp_path / "toy_weights-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-weights\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    package = Package("toy-weights", "toy_weights/w.pth", seal.of_file(file))
    monkeypatch.setitem(weights.PACKAGES, NAME, package)
    return file, tensors


def test_a_packages_tensors_become_the_networks(installed):
    _, tensors = installed
    seen = Extractor(NAME, PACKAGE).backbone.state_dict()
    assert seen and all(torch.equal(tensor, tensors[name]) for name, tensor in seen.items())


def test_a_file_that_is_not_the_known_one_is_refused(installed):
    file, _ = installed
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match=r"w\.pth: these are other weights: SHA-256 [0-9a-f]{64}, expected"):
        Extractor(NAME, PACKAGE)


def test_a_package_that_is_missing_or_unknown_is_a_line_that_helps(monkeypatch):
    monkeypatch.setitem(weights.PACKAGES, NAME, Package("no-such-weights", "w.pth", "0"))
    with pytest.raises(WeightsError, match="no-such-weights is not installed; `make weights` installs it"):
        file_of(NAME, PACKAGE)
    with pytest.raises(
        WeightsError, match="no package has weights of resnet18; there is one of tf_efficientnet_lite0"
    ):
        file_of("resnet18", PACKAGE)
    assert file_of("resnet18", False) is file_of("resnet18", True) is None


def test_the_registrys_package_holds_the_weights_that_were_published():
    try:
        metadata.distribution(weights.PACKAGES[NAME].distribution)
    except metadata.PackageNotFoundError:
        pytest.skip("the package is not installed: make weights")
    file = SHARED / "weights" / f"{NAME}.safetensors"
    if not file.is_file():
        pytest.skip("no other copy to compare with")
    seen, known = Extractor(NAME, PACKAGE).backbone.state_dict(), load_file(file)
    assert all(torch.equal(tensor, known[name]) for name, tensor in seen.items())
