"""The victims by the names that tables, files and metrics give them."""

import numpy as np

from vars_core.extractor import Extractor
from vars_core.recommender.amr import AMR
from vars_core.recommender.base import Recommender
from vars_core.recommender.bprmf import BPRMF
from vars_core.recommender.dvbpr import DVBPR
from vars_core.recommender.lightgcn import VisualLightGCN
from vars_core.recommender.popularity import Popularity
from vars_core.recommender.vbpr import VBPR
from vars_core.recommender.visual_knn import VisualKNN

# fitted on features; DVBPR, which is fitted on photos, stands apart
FITTED_ON_FEATURES = {
    "poprank": Popularity,
    "bprmf": BPRMF,
    "visualknn": VisualKNN,
    "vbpr": VBPR,
    "amr": AMR,
    "lightgcn": VisualLightGCN,
}
RECOMMENDERS = FITTED_ON_FEATURES | {"dvbpr": DVBPR}


def fit(
    name: str, split, features: np.ndarray, photos: np.ndarray, extractor: Extractor, cfg, seed: int, checkpoint=None
) -> tuple[Recommender, np.ndarray]:
    """The named victim, trained, and what it sees: its features (I, D) of `photos` (I, H, W, 3).

    All but DVBPR see `features`, which `extractor` made. Raises ValueError, naming the victims, for an unknown one.
    """
    if name not in RECOMMENDERS:
        raise ValueError(f"no recommender is called {name!r}; there are {', '.join(RECOMMENDERS)}")
    if name == "dvbpr":
        model = DVBPR().fit(split, photos, cfg, seed, extractor=extractor, checkpoint=checkpoint)
        return model, model.features_of(photos)
    return RECOMMENDERS[name]().fit(split, features, cfg, seed, checkpoint=checkpoint), features
