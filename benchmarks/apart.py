"""Measurements in a process of their own, so that one's memory and caches are not the next one's."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from vars_core import paths

_CALL = """
import importlib, json, sys
name, function, arguments = json.loads(sys.argv[1])
print(json.dumps(getattr(importlib.import_module(name), function)(*arguments)))
"""


def call(function, *arguments):
    """`function(*arguments)` of a script in this folder, in a fresh Python; values travel as JSON.

    Linux hands the peak memory of a process on to those it starts, so a caller imports nothing large before this.
    Raises RuntimeError with the last lines of what the process said."""
    script = Path(function.__code__.co_filename)
    places = [str(paths.root()), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places)), "VARS_QUIET": "1"}
    task = json.dumps(
        [f"benchmarks.{script.stem}", function.__name__, [str(a) if isinstance(a, Path) else a for a in arguments]]
    )
    done = subprocess.run([sys.executable, "-c", _CALL, task], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{script.name}, {function.__name__}:\n" + "\n".join(done.stderr.splitlines()[-20:]))
    return json.loads(done.stdout.splitlines()[-1])


def peak() -> float:
    """The most memory this process has held so far, in MB (10^6 bytes): getrusage's ru_maxrss."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e6
