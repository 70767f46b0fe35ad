"""How long stages take, by machine and profile: noted beside what they wrote, published by `make timings` only."""

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from vars_core import param_file, paths
from vars_core.pipeline import notebooks

# Linux without any of these has no GPU, and importing torch to hear so takes longer than noting the time of a stage.
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def machine() -> dict:
    """What the run's time depends on: processor, cores, memory, GPU, python and torch."""
    found = {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch").split("+")[0],
    }
    name = _gpu()
    return found | ({"gpu": name} if name else {})


def profile(values: dict, folder: Path | None = None) -> str:
    """The name of the profile with these values, or "own"."""
    for path in sorted((folder or paths.root() / "profiles").glob("*.yaml")):
        if param_file.read(path) == values:
            return path.stem
    return "own"


def record(path: Path, stage: str, seconds: float, used: str) -> None:
    """Set the seconds of one stage in the file's entry for this machine and profile."""
    here = {**machine(), "profile": used}
    entries = read(path)
    entry = next((e for e in entries if all(e.get(k) == v for k, v in here.items())), None)
    if entry is None:
        entry = {**here, "seconds": {}}
        entries.append(entry)
    entry["seconds"][stage] = round(seconds, 1)
    _write(path, entries)


def publish(root: Path) -> None:
    """Take the times of whole runs of the pipeline and of studies into root/reports/timings.json; other machines'
    stay. A study of one's own catalogue or parameters belongs to no profile, and isn't taken."""
    stages = sorted(path.stem for path in notebooks.sources(root))
    published, noted = root / "reports" / "timings.json", "scratch/timings.json"
    entries = read(published)
    for entry in (e for path in (root / noted, *sorted(root.glob(f"scratch/studies/*/{noted}"))) for e in read(path)):
        if entry["profile"] == "own" or sorted(entry["seconds"]) != stages:
            continue
        same = [e for e in entries if _key(e) == _key(entry)]
        entries = [e for e in entries if e not in same] + [entry]
    entries.sort(key=lambda e: json.dumps(_key(e)))
    if entries != read(published):
        _write(published, entries)


def read(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _key(entry: dict) -> list:
    return [entry.get(name) for name in ("profile", "cpu", "cores", "gpu")]


def _write(path: Path, entries: list[dict]) -> None:
    paths.write(path, json.dumps(entries, indent=2, ensure_ascii=False) + "\n")


def _gpu() -> str | None:
    maybe = not sys.platform.startswith("linux") or any(Path(driver).exists() for driver in GPU_DRIVERS)
    if not maybe or os.environ.get("VARS_DEVICE", "").startswith("cpu"):
        return None
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
