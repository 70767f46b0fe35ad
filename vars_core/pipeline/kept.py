"""Which run the models of pretrained/ come from, and whether it is still the committed one."""

import hashlib
import json
import subprocess
from pathlib import Path

from vars_core import param_file, pretrained, seal
from vars_core.errors import InputError
from vars_core.pipeline import stages, timings

ARTEFACTS = ("models/recommender", "models/filter", "models/defence")


def made_of(root: Path, published: str | None) -> dict[str, str]:
    """By what it can be told that models are old: DVC's hashes of the main run's, or, of a study that was
    `published` under that name, the hash of its metrics."""
    if published is None:
        lock = root / "dvc.lock"
        locked = stages.read(lock).get("stages", {}) if lock.is_file() else {}
        outs = [out for stage in locked.values() for out in stage.get("outs", [])]
        return {out["path"]: out["md5"] for out in outs if out["path"] in ARTEFACTS}
    metrics = root / "reports" / "catalogues" / published / "metrics"
    found = repr(sorted(seal.sums(metrics).items()))
    return {metrics.relative_to(root).as_posix(): hashlib.sha256(found.encode()).hexdigest()}


def profile(root: Path, published: str | None) -> str:
    """The profile of the main run, or of a study that was `published`. Raises InputError where there is none."""
    if published is None:
        return timings.profile(param_file.read(root / "params.yaml"), root / "profiles")
    run = root / "reports" / "catalogues" / published / "run.json"
    if not run.is_file():
        raise InputError(f"{run.parent.relative_to(root)} has no run.json: run the study with --publish first")
    return str(json.loads(run.read_text(encoding="utf-8"))["profile"])


def old(root: Path) -> list[str]:
    """A line for each folder of pretrained/ whose run isn't the committed one any more, or whose files changed."""
    found = []
    for folder in pretrained.folders(root):
        try:
            known = pretrained.about(folder).made_of
        except pretrained.PretrainedError as error:
            found.append(str(error))
            continue
        main = any(path in ARTEFACTS for path in known)
        now = made_of(root, None if main else folder.name)
        changed = [path for path, digest in known.items() if now.get(path) != digest]
        if changed:
            name = folder.relative_to(root).as_posix()
            found.append(
                f"{name}: {', '.join(changed)} made anew since; run `vars pretrained{'' if main else ' NAME'}`"
            )
    return found


def commit(root: Path) -> str:
    """The commit that `root` is at, with a + where files differ from it; "unknown" without git."""
    try:
        head, status = (
            subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "vars_core", "notebooks", "params.yaml"))
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if status else "")
