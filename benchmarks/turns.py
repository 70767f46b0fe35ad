"""Jobs that take turns, so that whatever else the machine does falls on all of them."""

import time
from collections.abc import Callable

import pandas as pd
import torch


def alternating(jobs: dict[str, tuple[Callable, int]], repeat: int) -> pd.DataFrame:
    """Run each job (a function, and how many things it does) once per round: units per second, one column per job.

    Every round starts with another job."""
    rounds, names = [], list(jobs)
    for n in range(repeat):
        first = n % len(names)
        seconds = {name: seconds_of(jobs[name][0]) for name in names[first:] + names[:first]}
        rounds.append({name: jobs[name][1] / seconds[name] for name in names})
    return pd.DataFrame(rounds)


def ratio(speeds: pd.DataFrame, one: str, other: str) -> float:
    """How many times as fast `one` is as `other`: the median over rounds of the ratio within a round."""
    return float((speeds[one] / speeds[other]).median())


def seconds_of(job: Callable) -> float:
    """Seconds of one call, with what it leaves on a GPU."""
    _finish()
    start = time.perf_counter()
    job()
    _finish()
    return time.perf_counter() - start


def _finish() -> None:
    if torch.cuda.is_available():  # kernels are only queued when a call returns
        torch.cuda.synchronize()
