"""cornac's BPR and VBPR on one of our splits: triples and features in, a matrix of scores out."""

import contextlib
import io
from collections import OrderedDict

import cornac
import numpy as np
from cornac.data import Dataset, ImageModality
from scipy import sparse

from benchmarks import shops

PARTS = {"bprmf": {"U": "u_factors", "V": "i_factors", "Bi": "i_biases"},
         "vbpr": {"Bi": "beta_item", "Gu": "gamma_user", "Gi": "gamma_item", "Tu": "theta_user", "E": "emb_matrix",
                  "Bp": "beta_prime"}}  # fmt: skip


class Scores:
    """A matrix (U, I) where `vars_core.recommender.ranking` expects a recommender, so that both sides are measured
    alike."""

    def __init__(self, matrix: np.ndarray):
        self.matrix = matrix

    def scores(self, users, features=None) -> np.ndarray:
        return self.matrix[users]


def known_items(parts, cold_too: bool = False) -> np.ndarray:
    """The items cornac is told of: those with training interactions, or `cold_too` all of them.

    cornac draws negatives from every item that it knows. Knowing the cold ones it learns that nobody wants them,
    which flatters it where they are only competitors (warm AUC) and ruins their own ranking (cold AUC).
    """
    return np.arange(parts.train.shape[1]) if cold_too else shops.trained(parts)


def dataset(parts, features, items, seed: int) -> Dataset:
    """cornac's data set of the training interactions; its item n is our `items[n]`."""
    pairs = sparse.coo_array(parts.train)
    users = OrderedDict((user, user) for user in range(parts.train.shape[0]))
    number = OrderedDict((int(item), n) for n, item in enumerate(items))
    rows = list(zip(pairs.row.tolist(), pairs.col.tolist(), [1.0] * pairs.nnz, strict=True))
    data = Dataset.build(rows, global_uid_map=users, global_iid_map=number, seed=seed)
    data.add_modalities(item_image=ImageModality(features=features[items]))
    return data


def fit(name: str, data: Dataset, settings: dict, epochs: int, seed: int, start: dict | None = None):
    """cornac's "bprmf" or "vbpr", trained with 20 (+ 20 visual) factors; `start` are tables to go on from."""
    settings = {key: value for key, value in settings.items() if key not in ("scale", "epochs")}
    if name == "bprmf":
        model = cornac.models.BPR(k=20, max_iter=epochs, seed=seed, init_params=start, **settings)
    else:
        sizes = {"k": 20, "k2": 20, "n_epochs": epochs}
        model = cornac.models.VBPR(**sizes, seed=seed, init_params=start, verbose=False, **settings)
    with contextlib.redirect_stdout(io.StringIO()):
        return model.fit(data)


def tables(name: str, model) -> dict:
    """The trained tables, as `fit` takes them in `start`."""
    return {key: getattr(model, attribute) for key, attribute in PARTS[name].items()}


def scores(name: str, model, features, items, shape) -> np.ndarray:
    """cornac's own scores of the items it knows, float32 (U, I).

    For others what our recommenders assume: mean bias, no factors of their own, and (VBPR) what the photo says.
    """
    out = np.empty(shape, np.float32)
    if name == "bprmf":
        out[:] = model.i_biases.mean()
    else:
        out[:] = (model.theta_user @ (features @ model.emb_matrix).T) + (features @ model.beta_prime).ravel()
        out += model.beta_item.mean()
    for user in range(shape[0]):
        out[user, items] = model.score(user)
    return out


def scaled(features: np.ndarray, settings: dict) -> np.ndarray:
    """Standardised features, or with scale "length" divided by √D, which makes their lengths about 1."""
    return features / np.float32(features.shape[1] ** 0.5) if settings.get("scale") == "length" else features
