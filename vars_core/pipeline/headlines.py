"""Which numbers the tables of README.md and reports/README.md hold: by table its rows, each with a title, a metrics
file, the keys in it, and how the value is written."""

from collections.abc import Callable
from typing import NamedTuple

from vars_core import labels

CALM = "sigma@0.25"
MAIN = "reach:pgd@8"
SUBTLE = "reach:pgd@4"  # nobody sees it
VICTIMS = ("bprmf", "visualknn", "vbpr", "amr", "lightgcn", "dvbpr")
ARMS = ("global_vit", "windowed_vit", "conv", "jpeg75")
FILTERS = {
    "none": "no filter",
    "filter": "static filter",
    "filter_adaptive": "adaptive filter",
    "median": "median of 3 × 3",
    "gaussian": "Gaussian blur of 0.5 px",
    "aid": "Denoise to Protect's U-Net, of equal cost",
    "randomised": "behind noise",
}
NOISED = {
    "randomised": "noise and the global ViT",
    "noise + windowed_vit": "noise and a windowed ViT",
    "noise + conv": "noise and a convolution",
    "filter alone": "the global ViT without noise",
    "noise alone": "noise without a filter",
    "blur2": "blur of 2 px",
    "blur4": "blur of 4 px",
    "none": "nothing",
}
HONEST = ("jpeg75", "jpeg90", "sharpen", "noise, ε = 4", "noise, ε = 8", "noise, ε = 16")


HEADS = {  # what stands above the rows' titles
    "lists": "share of top-20 lists, photos changed by ±4 of 255 (NDCG@20 lost)",
    "recommenders": "",
    "attacks": "in lists, by the objective of the attack",
    "filter": "against sellers who do not know the filter",
    "detector": "at 1 % false alarms, the seller does not know the detector",
    "known": "in lists, the seller knows the filter (T2)",
    "noise": "in lists, the seller knows all but the draws",
    "arms": "in lists, the seller knows all but the draws",
}


class Row(NamedTuple):
    """A number of every catalogue: `kind` is share (in per cent), score or count; `price` finds in a run's metrics,
    by file, what it costs (a share, or None), which stands in brackets behind it."""

    title: str
    file: str
    keys: list[str]
    kind: str = "share"
    price: Callable[[dict], float | None] | None = None


def _price_of_pair(found: dict) -> float | None:
    return found.get("05_detection", {}).get("system", {}).get("ndcg_loss")


def _price_of_noise(found: dict) -> float | None:
    return found.get("08_certificate", {}).get(CALM, {}).get("clean_ndcg_loss")


def _price_of_promise(epsilon: str) -> Callable[[dict], float | None]:
    """Of the rule and the σ that the promise at `epsilon` holds for: the median of several draws."""

    def price(found: dict) -> float | None:
        metrics = found.get("08_certificate", {})
        sigma = metrics.get("certified_with_sigma", {}).get(epsilon)
        return None if sigma is None else metrics.get(f"sigma@{sigma:g}", {}).get("clean_ndcg_loss")

    return price


TABLES: dict[str, list[Row]] = {
    "lists": [  # the README's first
        Row("untouched photos", "03_attacks", ["exposure@20", "none"]),
        Row("attacked, no defence", "07_adaptive", ["T2", "none", "exposure@20", SUBTLE]),
        Row(
            "filter and detector, unknown to the seller",
            "07_adaptive",
            ["T0", "both", "asr@1", SUBTLE],
            price=_price_of_pair,
        ),
        Row("… known to the seller", "07_adaptive", ["T3", "both", "asr@1", SUBTLE]),
        Row(
            "noise and a filter, all known but the draws",
            "07_adaptive",
            ["T2", "randomised", "exposure@20", SUBTLE],
            price=_price_of_noise,
        ),
        Row(
            "… proven: no attack exceeds",
            "08_certificate",
            ["certified_exposure", "4"],
            price=_price_of_promise("4"),
        ),
    ],
    "recommenders": [
        Row("users", "01_data", ["users"], "count"),
        Row("items", "01_data", ["items"], "count"),
        *(
            Row(f"{metric}, {labels.recommender(name)}", "02_recommender", [name, key], kind)
            for metric, key, kind in (("HR@20", "hr@20", "share"), ("cold AUC", "cold_auc", "score"))
            for name in VICTIMS
        ),
    ],
    "attacks": [
        Row("untouched", "03_attacks", ["exposure@20", "none"]),
        Row("hook, ε = 8", "03_attacks", ["exposure@20", "pgd@8"]),
        *(
            Row(f"{aim}, ε = {epsilon}", "03_attacks", ["exposure@20", f"{aim}:pgd@{epsilon}"])
            for epsilon in (4, 8)
            for aim in ("promote", "insa", "reach")
        ),
    ],
    "filter": [
        *(
            Row(
                f"features taken back, ε = {e}, {labels.defence(arm)}",
                "04_reconstruction",
                [arm, "feature_recovery", f"pgd@{e}"],
            )
            for e in (2, 8)
            for arm in ARMS
        ),
        *(
            Row(
                f"exposure taken back, reach, ε = 8, {labels.defence(arm)}",
                "04_reconstruction",
                [arm, "exposure_recovery", MAIN],
            )
            for arm in ARMS
        ),
        *(
            Row(
                f"NDCG@20 lost on honest photos, {labels.defence(arm)}", "04_reconstruction", [arm, "clean_ndcg_loss"]
            )
            for arm in ARMS
        ),
    ],
    "detector": [
        *(
            Row(f"hook photos caught, ε = {e}", "05_detection", ["contrastive", "tpr@1", f"pgd@{e}"])
            for e in (1, 2, 4)
        ),
        Row("reach photos caught, ε = 2", "05_detection", ["contrastive", "tpr@1", "reach:pgd@2"]),
        Row("AUROC, hook, ε = 2", "05_detection", ["contrastive", "auroc", "pgd@2"], "score"),
        Row("AUROC, attacks it never saw", "05_detection", ["contrastive", "auroc", "unseen@8"], "score"),
        Row("AUROC, through another network", "05_detection", ["contrastive", "auroc", "other:pgd@8"], "score"),
        Row(
            "AUROC, attack against noise, ε = 8",
            "05_detection",
            ["contrastive", "auroc", "attack_vs_noise@8"],
            "score",
        ),
        Row("reach in lists, ε = 4, no defence", "05_detection", ["system", "undefended", SUBTLE]),
        Row("… past filter and detector", "05_detection", ["system", "asr@1", SUBTLE]),
    ],
    "known": [
        *(
            Row(f"{title}, ε = 4", "07_adaptive", ["T2", name, "exposure@20", SUBTLE])
            for name, title in FILTERS.items()
        ),
        Row("… static filter and detector, both known", "07_adaptive", ["T3", "both", "asr@1", SUBTLE]),
        Row("… adaptive filter and detector, both known", "07_adaptive", ["T3", "both_adaptive", "asr@1", SUBTLE]),
    ],
    "noise": [
        *(
            Row(f"{title}, ε = {e}", "08_certificate", keys)
            for e in ("4", "8")
            for title, keys in (
                ("no defence", ["none", "exposure", e]),
                ("behind noise", [CALM, "attacked_exposure", e]),
            )
        ),
        *(
            Row(
                f"no attack exceeds, ε = {e} (NDCG@20 lost)",
                "08_certificate",
                ["certified_exposure", e],
                price=_price_of_promise(e),
            )
            for e in ("0.5", "1", "2", "4")
        ),
        Row("untouched, behind noise", "08_certificate", [CALM, "clean_exposure"]),
        Row("NDCG@20 lost, mean of 32 draws", "08_certificate", [CALM, "mean_rule_ndcg_loss"]),
        Row("NDCG@20 lost, median, draws vote", "08_certificate", [CALM, "clean_ndcg_loss"]),
        Row("cold AUC without noise", "08_certificate", ["none", "cold_auc"], "score"),
        Row("cold AUC behind noise", "08_certificate", [CALM, "cold_auc"], "score"),
    ],
    "arms": [
        *(Row(f"{title}, ε = 4", "08_certificate", ["arms", name, "exposure"]) for name, title in NOISED.items()),
        *(
            Row(f"cold AUC with {NOISED[name]}", "08_certificate", ["arms", name, "cold_auc"], "score")
            for name in ("none", "randomised", "noise alone", "blur2", "blur4")
        ),
    ],
}
