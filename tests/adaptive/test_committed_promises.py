"""No attack exceeds a certified number, in any committed table."""

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

TABLES = sorted(ROOT.glob("reports/**/tables/08_certificate"), key=str)


def test_there_is_one():
    assert ROOT / "reports" / "tables" / "08_certificate" in TABLES


@pytest.mark.parametrize("folder", TABLES, ids=lambda folder: folder.relative_to(ROOT).parts[-3])
def test_no_attack_exceeds_what_was_promised(folder):
    attacked = pd.read_csv(folder / "attacked.csv").dropna(subset=["bound"])
    assert len(attacked) and set(attacked.rule) == {"one", "median"}
    assert (attacked.value <= attacked.bound).all()
    promised = pd.read_csv(folder / "promises.csv")
    assert promised.bound.between(0, 1).all() and (promised.bound >= promised.point - 1e-9).all()
    for _, line in promised.groupby(["sigma", "rule"]):
        assert (np.diff(line.sort_values("epsilon").bound) >= 0).all()
