"""What an extractor sees in the photos, as a few numbers per item, for simulated tastes.

torch is imported only when data.taste_extractor names a model: reading a catalogue needs none.
"""

import numpy as np

from vars_core.data.folder import CatalogueError

MAX_COMPONENTS = 16  # components: with more, each matters so little that no history shows a taste for it


def components(photos, cfg, seed: int) -> np.ndarray:
    """(N, C), C ≤ 16: principal components of the features that data.taste_extractor has of `photos`.

    Without data.taste_weights the network is drawn from `seed`. Raises CatalogueError naming the parameter."""
    found = principal_components(features(photos, cfg, seed))
    if not found.shape[1]:
        raise CatalogueError(f"data.taste_extractor: {cfg.taste_extractor} sees no difference between the photos")
    return found


def features(photos, cfg, seed: int) -> np.ndarray:
    """(N, D) features of `photos`, uint8 (N, H, W, 3), by the extractor that `cfg` (params.Data) names."""
    import torch

    from vars_core.extractor import Extractor, extract
    from vars_core.runtime import device

    name, weights = cfg.taste_extractor, cfg.taste_weights
    if name == "small_cnn" and weights:
        raise CatalogueError("data.taste_weights: small_cnn has no weights file; use null")
    with torch.random.fork_rng(devices=[]):  # whoever draws next from torch's own generator sees no difference
        torch.manual_seed(seed)
        try:
            extractor = Extractor(name, weights or False, ("data.taste_extractor", "data.taste_weights"))
        except (ValueError, FileNotFoundError) as error:
            raise CatalogueError(str(error)) from None
    try:
        return extract(extractor.to(device()).eval().requires_grad_(False), photos)
    except RuntimeError as error:  # too small for its strides, say
        side = photos.shape[1]
        raise CatalogueError(f"data.taste_extractor: {name} cannot take photos of {side} px ({error})") from None


def principal_components(features: np.ndarray) -> np.ndarray:
    """(N, C): at most 16 principal components of the standardised features (N, D), each of unit variance."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    varying = features[:, np.ptp(features, axis=0) > 0]
    if not varying.shape[1]:
        return np.empty((len(features), 0))
    scaled = StandardScaler().fit_transform(varying)
    analysis = PCA(min(MAX_COMPONENTS, *scaled.shape), whiten=True, random_state=0)
    found = analysis.fit_transform(scaled)
    return found[:, analysis.explained_variance_ > 1e-6 * analysis.explained_variance_[0]]  # the rest is rounding
