"""Interactions that a converter keeps, step by step: when none is left, the step that lost them is named."""

import zlib

import pandas as pd

from vars_core.data.ids import Matcher, canonical_column
from vars_core.data.tables import ROW, CatalogueError


class Kept:
    """Counts what each step leaves of the table `where`, in all its pieces together.

    `match` finds the ids of the item table `table`; `share` of the users stays."""

    def __init__(self, where: str, table: str, match: Matcher, share: float = 1.0):
        self.where, self.table, self.match, self.share = where, table, match, share
        self.counts, self.strangers, self.met = {}, 0, ""

    @property
    def left(self) -> int:
        """Interactions after the last step."""
        return list(self.counts.values())[-1]

    def step(self, frame: pd.DataFrame, mask, why: str) -> pd.DataFrame:
        """The rows of `frame` in `mask`; `why` is the reason when no row of any piece is left."""
        frame = frame[mask]
        self.counts[why] = self.counts.get(why, 0) + len(frame)
        return frame

    def of_known_items(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows (user_id, item_id) of items of the table, with its ids."""
        for name, what in (("user_id", "user"), ("item_id", "item")):
            for row in frame.loc[frame[name] == "", ROW]:
                raise CatalogueError(f"{self.where}, row {row}: no {what}")
        found = self.match.column(canonical_column(frame["item_id"]))
        self.strangers += int((found == "").sum())
        first = next(iter(self.match.known))
        self.met = (
            self.met or f"ids don't meet: {self.table} has {first}, {self.where} has {frame['item_id'].iloc[0]}"
        )
        return self.step(frame.assign(item_id=found), found != "", self.met)

    def of_items_with_photo(self, frame: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
        """Rows of the `items` that are written."""
        return self.step(
            frame, frame["item_id"].isin(items["item_id"]), f"no row of {self.where} is of an item with a photo"
        )

    def of_chosen_users(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows of a share of the users, always the same ones: by a hash of the id, so no list of users is needed."""
        if self.share >= 1:
            return frame
        chosen = {user: zlib.crc32(user.encode()) < self.share * 2**32 for user in frame["user_id"].unique()}
        why = f"--share {self.share:g} keeps none of the users of {self.where}"
        return self.step(frame, frame["user_id"].map(chosen).astype(bool), why)

    def check(self) -> None:
        """Raise CatalogueError with the first step that left nothing."""
        for why, number in self.counts.items():
            if not number:
                raise CatalogueError(f"no interaction is left: {why}")

    def remarks(self) -> dict[str, int]:
        """Ids that were changed and rows of unknown items, in words, and how many."""
        rows = f"rows of {self.where} left out, whose items {self.table} doesn't have"
        return self.match.remarks(f"ids of {self.where}") | ({rows: self.strangers} if self.strangers else {})
