"""The README's tables, regenerated from the reports: `python -m vars_core.pipeline.readme [--timings]`.

A block stands between `<!-- begin:NAME -->` and `<!-- end:NAME -->`; NAME is notebooks, times or catalogues.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from vars_core import param_file, paths
from vars_core.pipeline import timings

ABSENT = "–"
BLOCK = re.compile(r"(<!-- begin:(?P<name>[\w-]+) -->\n).*?(<!-- end:(?P=name) -->)", re.DOTALL)

REACH = "reach:pgd@8"
CALM = "sigma@0.25"
SUBTLE = "reach:pgd@4"  # nobody sees it
VICTIMS = {
    "bprmf": "BPR-MF",
    "visualknn": "visual k-NN",
    "vbpr": "VBPR",
    "amr": "AMR",
    "lightgcn": "LightGCN, visual",
    "dvbpr": "DVBPR",
}
FILTERS = {"global_vit": "global ViT", "jpeg75": "JPEG 75"}
RECOVERED = [("global_vit", 2), ("global_vit", 4), ("global_vit", 8), ("jpeg75", 8)]
CLEAN = [
    ("feature change on clean photos", ["clean_feature_mse"]),
    ("exposure recovery, reach", ["exposure_recovery", REACH]),
    ("NDCG@20 lost on clean photos", ["clean_ndcg_loss"]),
]
HEADLINES = [  # row title, metrics file, keys
    ("users", "01_data", ["users"]),
    ("items", "01_data", ["items"]),
    *(
        (f"{title}, {metric}", "02_recommender", [name, key])
        for metric, key in (("HR@20", "hr@20"), ("AUC", "auc"), ("cold AUC", "cold_auc"))
        for name, title in VICTIMS.items()
    ),
    ("exposure@20, no attack", "03_attacks", ["exposure@20", "none"]),
    ("exposure@20, PGD to a hook, ε = 8", "03_attacks", ["exposure@20", "pgd@8"]),
    ("exposure@20, promote, ε = 8", "03_attacks", ["exposure@20", "promote:pgd@8"]),
    ("exposure@20, insa, ε = 8", "03_attacks", ["exposure@20", "insa:pgd@8"]),
    ("exposure@20, reach, ε = 4", "03_attacks", ["exposure@20", SUBTLE]),
    ("exposure@20, reach, ε = 8", "03_attacks", ["exposure@20", REACH]),
    *(
        (f"feature recovery, ε = {e}, {FILTERS[arm]}", "04_reconstruction", [arm, "feature_recovery", f"pgd@{e}"])
        for arm, e in RECOVERED
    ),
    *(
        (f"{title}, {arm}", "04_reconstruction", [key, *keys])
        for title, keys in CLEAN
        for key, arm in FILTERS.items()
    ),
    *((f"detector, AUROC, ε = {e}", "05_detection", ["contrastive", "auroc", f"pgd@{e}"]) for e in (2, 8)),
    *((f"detector, TPR at 1 % FPR, ε = {e}", "05_detection", ["contrastive", "tpr@1", f"pgd@{e}"]) for e in (2, 8)),
    ("detector, AUROC against noise, ε = 8", "05_detection", ["contrastive", "auroc", "attack_vs_noise@8"]),
    ("detector, AUROC, attack it never saw", "05_detection", ["contrastive", "auroc", "unseen@8"]),
    (
        "reaches lists unflagged (1 % FPR), reach, ε = 8, seller knows f",
        "07_adaptive",
        ["T0", "both", "asr@1", REACH],
    ),
    ("… and the filter (T2)", "07_adaptive", ["T2", "both", "asr@1", REACH]),
    ("… and the detector (T3)", "07_adaptive", ["T3", "both", "asr@1", REACH]),
    ("the same without a defence", "07_adaptive", ["T0", "none", "exposure@20", REACH]),
    ("exposure@20, reach, ε = 4, seller knows R (T2)", "07_adaptive", ["T2", "filter", "exposure@20", SUBTLE]),
    ("… in the adaptive regime", "07_adaptive", ["T2", "filter_adaptive", "exposure@20", SUBTLE]),
    ("… behind noise", "07_adaptive", ["T2", "randomised", "exposure@20", SUBTLE]),
    ("… without a filter", "07_adaptive", ["T2", "none", "exposure@20", SUBTLE]),
    ("NDCG@20 lost behind that noise (σ = 0.25), mean of 32 draws", "08_certificate", [CALM, "mean_rule_ndcg_loss"]),
    ("… median of 32 draws", "08_certificate", [CALM, "clean_ndcg_loss"]),
    ("cold AUC behind that noise", "08_certificate", [CALM, "cold_auc"]),
    *(
        (f"no attack exceeds, behind noise, ε = {e}", "08_certificate", ["certified_exposure", e])
        for e in ("0.5", "1", "2", "4")
    ),
]


def regenerated(text: str, root: Path) -> str:
    """`text` with its blocks as the reports have them now. Raises ValueError for a block of another name."""

    def block(match: re.Match) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise ValueError(f"README.md: no block is called {name}; known: {', '.join(BLOCKS)}")
        return f"{match[1]}\n{BLOCKS[name](root)}\n\n{match[3]}"

    return BLOCK.sub(block, text)


def notebook_table(root: Path) -> str:
    """Question, answer and executed copy of each notebook that has an answer."""
    rows = []
    for path in sorted((root / "notebooks").glob("0*.ipynb")):
        found = root / "reports" / "tables" / path.stem / "answer.json"
        answer = _json(found) if found.is_file() else {}
        number, name = path.stem.split("_", 1)
        rows.append(
            [
                f"[{int(number)} · {name}](notebooks/{path.name})",
                answer.get("question", ABSENT),
                answer.get("answer", ABSENT),
                f"[executed](reports/notebooks/{path.name})",
            ]
        )
    return _table(["notebook", "question", "answer", "with outputs"], rows)


def time_table(root: Path) -> str:
    """Minutes per stage, a column per profile and machine."""
    entries = timings.read(root / "reports" / "timings.json")
    if not entries:
        return "*No times yet.*"
    heads = [f"{e['profile']}: {e['cores']} × {e['cpu']}" + (f", {e['gpu']}" if "gpu" in e else "") for e in entries]
    stages = sorted({stage for e in entries for stage in e["seconds"]})
    rows = [[s, *(_minutes(e["seconds"].get(s)) for e in entries)] for s in stages]
    rows.append(["**all**", *(f"**{_minutes(sum(e['seconds'].values()))}**" for e in entries)])
    return _table(["minutes", *heads], rows)


def catalogue_table(root: Path) -> str:
    """The headline numbers of the synthetic catalogue beside those of every published one, each with its profile."""
    columns, profiles = {"synthetic": root / "reports" / "metrics"}, [_profile(root)]
    for run in sorted((root / "reports" / "catalogues").glob("*/run.json")):
        folder, about = run.parent, _json(run)
        head = f"[{folder.name}](reports/catalogues/{folder.name})"
        columns[head + ", simulated feedback" * bool(about.get("simulated"))] = folder / "metrics"
        profiles.append(about.get("profile", ABSENT))
    metrics = {head: {p.stem: _json(p) for p in m.glob("*.json")} for head, m in columns.items()}
    rows = [
        [title, *(_number(metrics[head].get(file, {}), keys) for head in columns)] for title, file, keys in HEADLINES
    ]
    return _table(["", *columns], [["profile", *profiles], *rows])


BLOCKS = {"notebooks": notebook_table, "times": time_table, "catalogues": catalogue_table}


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in r) + " |" for r in lines
    )


def _profile(root: Path) -> str:
    """That of the pipeline's own run."""
    return timings.profile(param_file.read(root / "params.yaml"), root / "profiles")


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None


def _minutes(seconds: float | None) -> str:
    return ABSENT if seconds is None else f"{seconds / 60:.1f}"


def _number(metrics: dict, keys: list[str]) -> str:
    value = metrics
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if value is None or isinstance(value, dict):
        return ABSENT
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vars_core.pipeline.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--timings", action="store_true", help="first take the times of this machine's whole runs")
    options = parser.parse_args(arguments)
    root = paths.root()
    if options.timings:
        timings.publish(root)
    path = root / "README.md"
    try:
        old = path.read_text(encoding="utf-8")
        new = regenerated(old, root)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if new != old:
        paths.write(path, new)
        print("README.md: tables regenerated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
