"""What readers see for names that code, tables on disk and metrics use: attacks, defences, recommenders, measures.

`in_column` and `header` translate a table for display; what they don't know stays as it is written, as do all names
that come from a catalogue.
"""

import re

ALGORITHMS = {
    "noise": "noise",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "mim": "MIM",
    "apgd": "APGD",
    "square": "Square",
    "cw": "C&W",
    "cohen-bb": "feature black box",
}
DEFENCES = {
    "none": "no defence", "jpeg50": "JPEG-50", "jpeg75": "JPEG-75", "jpeg90": "JPEG-90", "bits3": "3 bits",
    "bits4": "4 bits", "bits5": "5 bits", "gaussian": "Gaussian blur", "tv": "total variation", "conv": "convolution",
    "blur1": "blur of 1 px", "blur2": "blur of 2 px", "blur3": "blur of 3 px", "blur4": "blur of 4 px",
    "halved": "half size and back", "robust": "robust extractor", "amr": "AMR", "both": "filter + detector",
    "bce": "BCE", "knn": "k-NN", "lid": "LID", "magnet": "MagNet", "mahalanobis": "Mahalanobis",
    "jpeg": "JPEG difference", "squeezing": "feature squeezing", "contrastive_separate": "contrastive, trained alone",
    "randomised": "behind noise", "randomised_both": "behind noise + detector",
}  # fmt: skip
RECOMMENDERS = {
    "poprank": "popularity",
    "bprmf": "BPR-MF",
    "visualknn": "visual k-NN",
    "dvbpr": "DVBPR",
    "amr": "AMR",
    "lightgcn": "LightGCN, visual",
    "vbpr": "VBPR",
}
EDITS = {
    "jpeg75": "JPEG-75",
    "jpeg90": "JPEG-90",
    "shift": "shifted by a pixel",
    "resize": "resized and back",
    "sharpen": "sharpened",
}
MEASURES = {
    "hr": "HR", "ndcg": "NDCG", "auc": "AUC", "mrr": "MRR", "cold_auc": "AUC among cold items", "auroc": "AUROC",
    "rank_shift": "rank shift", "rank_shift_log2": "rank shift (doublings)", "prediction_shift": "score shift",
    "feature_recovery": "feature recovery", "feature_recovery_unseen": "feature recovery, unseen attacks",
    "exposure_recovery": "exposure recovery", "clean_feature_mse": "feature change of clean photos",
    "clean_ndcg_loss": "NDCG lost on clean photos", "clean_hr_loss": "HR lost on clean photos",
    "clean_ndcg_loss_retrained": "NDCG lost on clean photos, recommender retrained",
    "clean_hr_loss_retrained": "HR lost on clean photos, recommender retrained", "clean_psnr": "PSNR of clean photos",
    "global_vit_ahead_by": "the global ViT is ahead by", "multiply_adds": "multiply-adds", "ci_low": "low",
    "ci_high": "high", "epsilon": "ε", "sigma": "σ", "auroc_seen": "AUROC, attacks it saw",
    "auroc_unseen": "AUROC, unseen attacks", "tpr1_seen": "caught at 1 % false alarms, attacks it saw",
    "tpr1_unseen": "caught at 1 % false alarms, unseen attacks", "looks_weigh": "looks weigh",
}  # fmt: skip
_ATTACK = re.compile(rf"(?:(\w+):)?({'|'.join(ALGORITHMS)})(?:@([\d.]+))?")
_WITHIN = re.compile(
    rf"(?<![\w:])(?:\w+:(?:{'|'.join(ALGORITHMS)})(?:@[\d.]+)?|(?:{'|'.join(ALGORITHMS)})@[\d.]+)(?!\w)"
)


_RATES = {
    "asr": "in lists unflagged, at {} % false alarms",
    "tpr": "caught at {} % false alarms",
    "fpr": "false alarms where {} % are allowed",
}


def attack(name: str) -> str:
    """ "reach (PGD), ε = 8" for reach:pgd@8, "hook (PGD)" for pgd, "noise, ε = 4" for noise@4, "untouched" for none;
    "through another network" for photos whose aim is `other`."""
    if name == "none":
        return "untouched"
    found = _ATTACK.fullmatch(name)
    if not found:
        return name
    aim, algorithm, epsilon = found.groups()
    how = ALGORITHMS[algorithm]
    if aim == "other":
        text = f"hook ({how}) through another network"
    elif algorithm == "noise" or (algorithm in ("square", "cohen-bb", "cw") and aim is None):
        text = how
    else:
        text = f"{aim or 'hook'} ({how})"
    return text + (f", ε = {epsilon}" if epsilon else "")


def defence(name: str) -> str:
    """filter, adaptive for filter_adaptive; global ViT for global_vit; noise + convolution for noise + conv."""
    if " + " in name:
        return " + ".join(defence(part) for part in name.split(" + "))
    if name in DEFENCES:
        return DEFENCES[name]
    if name.endswith("_adaptive"):
        return f"{defence(name.removesuffix('_adaptive'))}, adaptive"
    name = name.replace("aid", "AiD") if name.startswith("aid") else name
    return name.replace("_vit", " ViT").replace("_", " ")


def recommender(name: str) -> str:
    return RECOMMENDERS.get(name, name)


def measure(name: str) -> str:
    """ "HR@20" for hr@20, "caught at 1 % false alarms" for tpr@1, "feature recovery" for feature_recovery."""
    base, _, parameter = name.partition("@")
    if base in _RATES and parameter:
        return _RATES[base].format(parameter)
    return MEASURES[base] + f"@{parameter}" * bool(parameter) if base in MEASURES else name


def header(name: str) -> str:
    """A column's name: a measure's, an attack's, a defence's, or one with attacks or a measure in it in words."""
    if name in ALGORITHMS or name.endswith("_pgd"):
        return attack(name.replace("_pgd", ":pgd"))
    if (name in DEFENCES and name != "none") or re.fullmatch(r"\w+_(vit|adaptive)", name):
        return defence(name)
    first, blank, rest = name.partition(" ")  # "ndcg@20 lost"
    return _WITHIN.sub(lambda found: attack(found[0]), measure(first) + blank + rest)


def _measure_of_attack(name: str) -> str:
    """ "AUROC, hook (PGD), ε = 8" for "auroc pgd@8", in whatever order."""
    words = sorted(name.split(" "), key=lambda word: attack(word) != word)
    return ", ".join(measure(attack(word)) for word in words)


_COLUMNS = {
    "attack": attack, "contrast": lambda name: " − ".join(map(attack, name.split(" − "))),
    "defence": defence, "filter": defence, "variant": defence, "detector": defence, "arm": defence,
    "recommender": recommender, "victim": recommender, "model": recommender,
    "metric": measure, "measure": _measure_of_attack,
    "edit": lambda name: EDITS.get(name, name), "check": lambda name: name.replace("_", " "),
}  # fmt: skip


def in_column(column: str, value: object) -> object:
    """What a cell of `column` shows."""
    return _COLUMNS[column](value) if column in _COLUMNS and isinstance(value, str) else value
