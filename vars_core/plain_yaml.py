"""YAML 1.2 of plain values: `1e-3` is a number, `on` is text, a key given twice is an error, and a bomb is none."""

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError

LONGEST, VALUES, DEPTH = 100_000, 10_000, 9  # bytes and values; params.yaml has 7,000 and 150, two deep


def parse(content: bytes | str):
    """Text, numbers of 64 bits, true, false, null, and lists and sections of them, as they stand in `content`.

    Raises ValueError, in one line, for anything else, also for aliases that make much of little."""
    try:
        if len(content) > LONGEST:
            raise ValueError(f"more than {LONGEST:,} bytes")
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        value = YAML(typ="safe", pure=True).load(text)
        _check(value, "", [VALUES])
    except DuplicateKeyError as error:
        what = str(error.problem).split(" with value")[0]
        raise ValueError(f"line {error.problem_mark.line + 1}: {what}") from None
    except Exception as error:  # a mark or type that YAML doesn't know, or a value that looks like a date and is none
        what = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ValueError(f"{what:.500}") from None
    return value


def _check(value, place: str, left: list[int]) -> None:
    """Raises ValueError for what isn't plain; an alias counts as often as it stands there."""
    left[0] -= 1
    if left[0] < 0 or place.count(".") > DEPTH:
        raise ValueError(f"more than {VALUES:,} values or nested too deeply; aliases in aliases?")
    inside = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for key, inner in inside:
        if isinstance(value, dict) and not isinstance(key, str):
            raise ValueError(f"{place}: the name {str(key)[:40]!r} is a {type(key).__name__}; text expected")
        _check(inner, f"{place}.{str(key)[:40].replace('.', '')}".strip("."), left)
    if not isinstance(value, dict | list | int | float | str | None) or (type(value) is int and abs(value) >= 2**63):
        place = f"{place}: " if place else ""
        raise ValueError(f"{place}a {type(value).__name__}; numbers of 64 bits, text, true, false, lists expected")
