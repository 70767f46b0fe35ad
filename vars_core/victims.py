"""The victims by the names that tables, files and metrics give them."""

from vars_core.amr import AMR
from vars_core.dvbpr import DVBPR
from vars_core.recommenders import BPRMF, VBPR, Popularity
from vars_core.visual_knn import VisualKNN

# fitted on features; DVBPR, which is fitted on photos, stands apart
BY_FEATURES = {"poprank": Popularity, "bprmf": BPRMF, "visualknn": VisualKNN, "vbpr": VBPR, "amr": AMR}
MODELS = BY_FEATURES | {"dvbpr": DVBPR}
