"""The tables of README.md, reports/README.md and docs/times.md, regenerated from the reports:
`python -m vars_core.pipeline.readme [--timings]`.

A block stands between `<!-- begin:NAME -->` and `<!-- end:NAME -->`; NAME is one of BLOCKS.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from vars_core import param_file, paths
from vars_core.pipeline import notebooks, timings

PAGES = ("README.md", "reports/README.md", "docs/times.md")
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


LISTS = [  # row of the README's first table: title, metrics file, keys; at ε = 4, which nobody sees
    ("untouched photos", "03_attacks", ["exposure@20", "none"]),
    ("attacked, no defence", "07_adaptive", ["T2", "none", "exposure@20", SUBTLE]),
    ("filter and detector, the seller does not know them", "07_adaptive", ["T0", "both", "asr@1", SUBTLE]),
    ("… the seller knows both", "07_adaptive", ["T3", "both", "asr@1", SUBTLE]),
    (
        "behind noise, the seller knows everything but the draws",
        "07_adaptive",
        ["T2", "randomised", "exposure@20", SUBTLE],
    ),
]


def regenerated(text: str, root: Path, page: str = "README.md") -> str:
    """`text` of `page`, with its blocks as the reports have them now. Raises ValueError for other blocks."""

    def block(match: re.Match) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise ValueError(f"{page}: no block is called {name}; known: {', '.join(BLOCKS)}")
        return f"{match[1]}\n{BLOCKS[name](root, '../' * page.count('/'))}\n\n{match[3]}"

    return BLOCK.sub(block, text)


def old_pages(root: Path) -> dict[Path, str]:
    """Each of PAGES whose tables are old → its text as it should be. Raises OSError without README.md."""
    found = {}
    for name in PAGES:
        path = root / name
        if name == PAGES[0] or path.is_file():
            text = path.read_text(encoding="utf-8")
            new = regenerated(text, root, name)
            if new != text:
                found[path] = new
    return found


def lists_table(root: Path, up: str = "") -> str:
    """What share of lists attacked items reach, by what defends and what the seller knows, a column per catalogue."""
    metrics = {head: found for head, _, found in _catalogues(root, up)}
    rows = [
        [title, *(_per_cent(_value(found.get(file, {}), keys)) for found in metrics.values())]
        for title, file, keys in LISTS
    ]
    promised = [_promise(found.get("08_certificate", {})) for found in metrics.values()]
    costs = [
        _per_cent(_value(found.get("08_certificate", {}), [CALM, "mean_rule_ndcg_loss"]))
        for found in metrics.values()
    ]
    rows += [["no attack whatsoever exceeds, at ±1 and ±4", *promised], ["NDCG@20 that the noise costs", *costs]]
    return _table(["share of top-20 lists, photos changed by at most ±4 of 255", *metrics], rows)


def _promise(found: dict) -> str:
    bounds = [_per_cent(_value(found, ["certified_exposure", epsilon])) for epsilon in ("1", "4")]
    return ABSENT if bounds == [ABSENT, ABSENT] else " and ".join(bounds)


def _per_cent(value) -> str:
    return ABSENT if value is None else f"{100 * value:.2g} %" if abs(value) < 0.1 else f"{100 * value:.0f} %"


def notebook_table(root: Path, up: str = "") -> str:
    """Question, answer and executed copy of each notebook that has an answer."""
    rows = []
    for path in notebooks.sources(root):
        found = root / "reports" / "tables" / path.stem / "answer.json"
        answer = _json(found) if found.is_file() else {}
        number, name = path.stem.split("_", 1)
        rows.append(
            [
                f"[{number.lstrip('0') or 0} · {name.replace('_', ' ')}]({up}{path.relative_to(root).as_posix()})",
                answer.get("question", ABSENT),
                answer.get("answer", ABSENT),
                f"[executed]({up}reports/notebooks/{path.name})",
            ]
        )
    return _table(["notebook", "question", "answer", "with outputs"], rows)


def time_table(root: Path, up: str = "") -> str:
    """Minutes per stage, a column per profile and machine."""
    entries = timings.read(root / "reports" / "timings.json")
    if not entries:
        return "*No times yet.*"
    heads = [f"{e['profile']}: {e['cores']} × {e['cpu']}" + (f", {e['gpu']}" if "gpu" in e else "") for e in entries]
    stages = sorted({stage for e in entries for stage in e["seconds"]})
    rows = [[s, *(_minutes(e["seconds"].get(s)) for e in entries)] for s in stages]
    rows.append(["**all**", *(f"**{_minutes(sum(e['seconds'].values()))}**" for e in entries)])
    return _table(["minutes", *heads], rows)


def catalogue_table(root: Path, up: str = "") -> str:
    """The headline numbers of the synthetic catalogue beside those of every published one, each with its profile."""
    known = list(_catalogues(root, up))
    rows = [
        [title, *(_number(_value(found.get(file, {}), keys)) for *_, found in known)]
        for title, file, keys in HEADLINES
    ]
    return _table(["", *(head for head, *_ in known)], [["profile", *(profile for _, profile, _ in known)], *rows])


def _catalogues(root: Path, up: str) -> Iterator[tuple[str, str, dict]]:
    """Column head, profile and metrics by notebook of the pipeline's own run and of every published one."""
    own = timings.profile(param_file.read(root / "params.yaml"), root / "profiles")
    yield "synthetic", own, _metrics(root / "reports" / "metrics")
    for run in sorted((root / "reports" / "catalogues").glob("*/run.json")):
        folder, about = run.parent, _json(run)
        head = f"[{folder.name}]({up}reports/catalogues/{folder.name})"
        simulated = ", simulated feedback" * bool(about.get("simulated"))
        yield head + simulated, about.get("profile", ABSENT), _metrics(folder / "metrics")


def _metrics(folder: Path) -> dict:
    return {path.stem: _json(path) for path in folder.glob("*.json")}


BLOCKS = {"lists": lists_table, "notebooks": notebook_table, "times": time_table, "catalogues": catalogue_table}


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in r) + " |" for r in lines
    )


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None


def _minutes(seconds: float | None) -> str:
    return ABSENT if seconds is None else f"{seconds / 60:.1f}"


def _value(metrics: dict, keys: list[str]):
    value = metrics
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return None if isinstance(value, dict) else value


def _number(value) -> str:
    return ABSENT if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vars_core.pipeline.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--timings", action="store_true", help="first take the times of this machine's whole runs")
    options = parser.parse_args(arguments)
    root = paths.root()
    if options.timings:
        timings.publish(root)
    try:
        old = old_pages(root)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for path, new in old.items():
        paths.write(path, new)
        print(f"{path.relative_to(root)}: tables regenerated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
