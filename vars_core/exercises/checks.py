"""Check cells: `check("2.3", answer, …)` says whether an exercise's answer is right, and if not, the likely mistake.

Check cells import it from `answers`. A right answer is computed from what the
notebook has at hand, so that it fits whatever parameters it ran with, and stands here rather than in the cell, where
everybody would read it first."""

from collections.abc import Callable

import numpy as np

from vars_core import report

TOLERANCE = 0.02  # relative: an answer may be rounded
_EXERCISES: dict[str, tuple[Callable, float]] = {}
_GOALS: dict[str, Callable] = {}


def exercise(name: str, tolerance: float = TOLERANCE) -> Callable:
    """Register a function of what the check cell hands over: it gives the right answer (a number, an array of them, a
    word or a truth value), and a dict of likely mistakes, what is wrong → the answer that one gets then. An answer
    that chance takes part in has a larger relative `tolerance`."""

    def register(function):
        _EXERCISES[name] = function, tolerance
        return function

    return register


def goal(name: str) -> Callable:
    """Register a function of the answer and what the check cell hands over, for an exercise with many right answers:
    whether the goal is reached, and what was reached, in words."""

    def register(function):
        _GOALS[name] = function
        return function

    return register


def check(name: str, answer, **given) -> None:
    """Say whether `answer` to exercise `name` is right, or that there is none yet (`None` or `...`). Never raises for
    an answer. Raises KeyError for an exercise that isn't one."""
    if name not in _EXERCISES and name not in _GOALS:
        raise KeyError(f"there is no exercise {name}; there are {', '.join(sorted([*_EXERCISES, *_GOALS]))}")
    report.text(f"**{name}** · {_verdict(name, answer, given)}")


def _verdict(name: str, answer, given: dict) -> str:
    if answer is None or answer is ...:
        return "no answer yet: put yours in place of the `...` above, and run both cells again."
    if name in _GOALS:
        return _judged(_GOALS[name], answer, given)
    function, tolerance = _EXERCISES[name]
    right, mistakes = function(**given)
    if _same(answer, right, tolerance):
        return f"right: {_shown(right)}."
    said = next((why for why, wrong in mistakes.items() if _same(answer, wrong)), None)
    return "not yet. " + (f"Yours is what one gets when {said}." if said else _hint(answer, right))


def _judged(function: Callable, answer, given: dict) -> str:
    try:
        reached, said = function(answer, **given)
    except (TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:  # an answer of another kind
        return f"not yet. That could not be judged: {report.one_line(error)[:200]}"
    return f"{'right' if reached else 'not yet'}: {said}"


def _same(one, other, tolerance: float = TOLERANCE) -> bool:
    try:
        if isinstance(other, str | bool | np.bool_):
            same_kind = isinstance(one, str) == isinstance(other, str)
            return same_kind and (str(one).strip().casefold() == str(other).strip().casefold())
        one, other = np.asarray(one, float), np.asarray(other, float)
        if one.shape != other.shape:
            return False
        return bool(np.allclose(one, other, rtol=tolerance, atol=1e-9, equal_nan=True))
    except (TypeError, ValueError):  # an answer of another kind
        return False


def _hint(answer, right) -> str:
    if isinstance(right, str | bool | np.bool_):
        return "Look at the last figure or table again."
    try:
        answer, right = np.asarray(answer, float), np.asarray(right, float)
    except (TypeError, ValueError):
        return "A number is expected." if np.ndim(right) == 0 else f"{np.size(right)} numbers are expected."
    if answer.shape != right.shape:
        wanted = "one number" if right.ndim == 0 else f"numbers in the shape {right.shape}"
        return f"Expected {wanted}; yours has the shape {answer.shape}."
    if right.ndim:
        off = int((~np.isclose(answer, right, rtol=TOLERANCE, atol=1e-9)).sum())
        return f"{off} of {right.size} values are off."
    if np.isclose(answer, 100 * right, rtol=TOLERANCE):
        return "A share from 0 to 1 is expected, not per cent."
    return "It should be larger." if answer < right else "It should be smaller."


def _shown(value) -> str:
    if isinstance(value, str | bool | np.bool_):
        return str(value)
    numbers = np.asarray(value, float).ravel()
    shown = ", ".join(f"{number:.3g}" for number in numbers[:8])
    return shown + (", …" if numbers.size > 8 else "")
