"""When something was bought: numbers or ISO dates. Only their order counts in the study."""

from datetime import datetime

import numpy as np
import pandas as pd

EXPECTED = "a number (such as seconds) or an ISO date (2019-04-03) expected, the same kind in all rows"
EPOCH = datetime(1970, 1, 1)


def seconds(text: pd.Series) -> pd.Series:
    """Timestamps as float64: numbers as they are, whatever their unit, dates of the years 1 to 9999 as seconds since
    1970 (UTC where no zone is given). NaN where one is neither, or not of the kind that most are."""
    numbers = pd.to_numeric(text, errors="coerce").astype(float)
    numbers = numbers.where(np.isfinite(numbers))
    if numbers.notna().sum() * 2 >= len(text):
        return numbers
    known = {value: _date(value) for value in text.unique()}
    return text.map(known).astype(float)


def _date(text: str) -> float:
    """Computed without pandas, whose times in nanoseconds end in 2262."""
    try:
        moment = datetime.fromisoformat(f"{text}-01" if len(text) == 7 and text[4] == "-" else text)
    except ValueError:
        return np.nan
    if text.isdecimal():
        return np.nan
    zone = moment.utcoffset().total_seconds() if moment.tzinfo else 0.0
    return (moment.replace(tzinfo=None) - EPOCH).total_seconds() - zone
