"""The victims by the names that tables, files and metrics give them."""

import numpy as np

from vars_core.amr import AMR
from vars_core.dvbpr import DVBPR
from vars_core.extractor import Extractor
from vars_core.recommenders import BPRMF, VBPR, Popularity, Recommender
from vars_core.visual_knn import VisualKNN

# fitted on features; DVBPR, which is fitted on photos, stands apart
BY_FEATURES = {"poprank": Popularity, "bprmf": BPRMF, "visualknn": VisualKNN, "vbpr": VBPR, "amr": AMR}
MODELS = BY_FEATURES | {"dvbpr": DVBPR}


def fit(
    name: str, split, features: np.ndarray, photos: np.ndarray, extractor: Extractor, cfg, seed: int, checkpoint=None
) -> tuple[Recommender, np.ndarray]:
    """The named victim, trained, and what it sees: its features (I, D) of `photos` (I, H, W, 3).

    All but DVBPR see `features`, which `extractor` made. Raises ValueError, naming the victims, for an unknown one.
    """
    if name not in MODELS:
        raise ValueError(f"no recommender is called {name!r}; there are {', '.join(MODELS)}")
    if name == "dvbpr":
        model = DVBPR().fit(split, photos, cfg, seed, extractor=extractor, checkpoint=checkpoint)
        return model, model.looks(photos)
    return MODELS[name]().fit(split, features, cfg, seed, checkpoint=checkpoint), features
