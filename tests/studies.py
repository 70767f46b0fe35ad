"""Studies in a process of their own, and what they wrote."""

import json
import os
import subprocess
import sys

from conftest import ROOT

NOTEBOOKS = (
    "00_one_photo",
    "01_data",
    "02_recommender",
    "03_attacks",
    "04_reconstruction",
    "05_detection",
    "06_ablations",
    "07_adaptive",
    "08_certificate",
    "A3_attacks_more",
    "A5_detection_more",
)


def study(name, *arguments, root=ROOT, profile="smoke", threads=1):
    """Run a study in a process of its own; its output when it fails. `threads` None: as many as there are cores."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VARS_") or k == "VARS_DEVICE"}
    if threads is None:
        environment = {k: v for k, v in environment.items() if not k.endswith("_NUM_THREADS")}
    command = [sys.executable, "-m", "vars_core", "study", name, "--profile", profile, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=root, env=environment | {"VARS_ROOT": str(root)}, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout + done.stderr


def metrics(folder, notebooks=NOTEBOOKS):
    return {name: json.loads((folder / "metrics" / f"{name}.json").read_text()) for name in notebooks}


def leaves(tree, path=()):
    """(keys, value) of every number in nested metrics; intervals are left out."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        elif not key.endswith("_ci"):
            yield (*path, key), value
