"""Filters that start from what an earlier run learned, and need a share of the training that others need."""

from torch import nn

from vars_core import pretrained
from vars_core.recommender.shop import Shop
from vars_core.reconstruction.filters import load_filter


def start(nets: dict[str, nn.Module], wanted: str | None, shop: Shop) -> bool:
    """Give each of `nets`, name → filter, the weights that pretrained/ has for its name, if `wanted`
    (reconstruction.start) says so; whether it did.

    All or none, so that filters that are compared have learned as long. None where pretrained/ has nothing for `shop`
    (`pretrained.to_start_from`), or where a filter is of another size there, which is said in a line."""
    folder = pretrained.to_start_from(shop.extractor, shop.catalogue) if wanted else None
    if folder is None:
        return False
    kept = {name: folder / "models" / "filter" / f"{name}.safetensors" for name in nets}
    missing = [name for name, file in kept.items() if not file.is_file()]
    known = {name: load_filter(file) for name, file in kept.items() if name not in missing}
    missing += [n for n, net in known.items() if (type(net), net.settings) != (type(nets[n]), nets[n].settings)]
    if missing:
        print(f"{', '.join(missing)}: not in {folder.name} of pretrained/, or of another size: trained from scratch")
        return False
    for name, net in known.items():
        nets[name].load_state_dict(net.state_dict())
    return True
