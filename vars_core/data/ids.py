"""Ids that should be equal: one Unicode form, and leading zeros that another program took away."""

import re
import unicodedata
from collections.abc import Iterable

import pandas as pd

NOT_IN_AN_ID = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f-\x9f]')  # an id becomes a file name on any system
LONGEST = 240  # bytes of an id: with its suffix it has to fit the 255 of a file's name


def canonical(text: str) -> str:
    """The id without space around it, in the Unicode form NFC: a Mac may write file names decomposed."""
    return unicodedata.normalize("NFC", text).strip()


def canonical_column(text: pd.Series) -> pd.Series:
    """`canonical` of each value; quick where all is ASCII and stripped."""
    changed = {value: canonical(value) for value in text.unique() if not value.isascii()}
    return text.map(lambda value: changed.get(value, value)) if changed else text


def is_a_name(item: str) -> bool:
    """Can the id be a file's name on any system?"""
    return not (NOT_IN_AN_ID.search(item) or item.startswith(".") or len(item.encode()) > LONGEST)


class Matcher:
    """Finds ids of another file among the `known` ones: as they stand, else by number.

    Programs that take ids for numbers drop leading zeros (0108775015 → 108775015) or add `.0`. Such an id is matched
    where only one known id is that number; `changed` then holds it with the id it was taken for."""

    def __init__(self, known: Iterable[str]):
        self.known = dict.fromkeys(known)
        self.changed = {}
        self._by_number = {}
        for item in self.known:
            number = _number(item)
            if number is not None:
                self._by_number[number] = None if number in self._by_number else item

    def find(self, item: str) -> str | None:
        """The known id that `item` stands for, or None."""
        if item in self.known:
            return item
        found = self._by_number.get(_number(item))
        if found is not None:
            self.changed[item] = found
        return found

    def column(self, items: pd.Series) -> pd.Series:
        """`find` of each value; "" where there is none."""
        found = {item: self.find(item) or "" for item in items.unique()}
        return items.map(found)

    def remarks(self, what: str) -> dict[str, int]:
        """That `what` was matched by number, and how many ids: empty where all ids stood as they should."""
        if not self.changed:
            return {}
        given, meant = next(iter(self.changed.items()))
        padded = len({len(item) for item in self.known}) == 1 and len(given) < len(meant)
        how = f"padded to {len(meant)} digits" if padded else "matched by number"
        return {f"{what} were {how} ({given} is {meant})": len(self.changed)}


def _number(item: str) -> str | None:
    found = re.fullmatch(r"0*([0-9]+)(?:\.0+)?", item)
    return found[1] if found else None
