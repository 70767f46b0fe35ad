"""The benchmarks run, and measure what they say; on toy data, in seconds."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from timm.layers import Attention
from torch import nn

from benchmarks import (
    attacks,
    defence,
    filter_training,
    recommenders_cost,
    serving,
    shops,
    training_step,
    turns,
    vbpr_sweep,
)
from vars_core import extractor, param_file, params
from vars_core.extractor import Extractor
from vars_core.recommender import accuracy_metrics
from vars_core.recommender.vbpr import VBPR


@pytest.fixture(scope="module")
def toy():
    return shops.toy(0)


def ran(module, tmp_path, *arguments):
    """Table and run.json of a `--quick` run."""
    assert module.main(["--quick", "--out", str(tmp_path), *arguments]) == 0
    files = sorted(tmp_path.rglob("results.csv"))
    assert len(files) == 1
    run = json.loads(files[0].with_name("run.json").read_text())
    assert run["machine"]["cores"] >= 1 and run["packages"]["torch"] and len(run["date"]) == 10
    text = files[0].with_name("results.md").read_text()
    table = pd.read_csv(files[0])
    assert text.count("\n|") == len(table) + 2
    return table, run


def test_comparison_with_cornac(tmp_path):
    module = pytest.importorskip("benchmarks.recommenders_cornac")
    table, run = ran(module, tmp_path)
    assert set(zip(table.recommender, table.side, strict=True)) >= {("vbpr", "ours"), ("vbpr", "cornac")}
    values = table[["hr@20", "ndcg@20", "auc", "cold_auc"]]
    assert values.ge(0).all(axis=None) and values.le(1).all(axis=None)
    by = table[table.seed == "mean"].set_index(["recommender", "side"])
    gap = by.auc["vbpr", "ours"] - by.auc["vbpr", "cornac"]
    assert run["ours_minus_cornac"]["vbpr auc"][0] == pytest.approx(gap, abs=1e-4)
    assert by.cold_auc["bprmf", "ours"] == by.cold_auc["bprmf", "cornac"] == 0.5


def test_cornacs_scores_are_those_of_its_tables(toy):
    side = pytest.importorskip("benchmarks.cornac_side")
    parts, features = toy
    items = side.known_items(parts)
    assert not np.isin(items, parts.cold).any()
    data = side.dataset(parts, features, items, 0)
    assert data.csr_matrix.nnz == parts.train.nnz
    model = side.fit("vbpr", data, {"learning_rate": 0.01, "lambda_w": 0.01}, 1, 0)
    found = side.scores("vbpr", model, features, items, parts.train.shape)
    user, known, unknown = 3, items[5], parts.cold[0]
    look = model.theta_user[user] @ model.emb_matrix.T + model.beta_prime.ravel()
    base = model.gamma_user[user] @ model.gamma_item[5] + model.beta_item[5]
    assert found[user, known] == pytest.approx(base + look @ features[known], abs=1e-4)
    assert found[user, unknown] == pytest.approx(model.beta_item.mean() + look @ features[unknown], abs=1e-4)


def test_speed(tmp_path):
    module = pytest.importorskip("benchmarks.recommenders_speed")
    table, run = ran(module, tmp_path)
    assert (table["median"] > 0).all() and (table.least <= table["most"]).all()
    ours = table[table.side == "ours"]
    assert (ours["ours is faster by"] == 1).all() and len(ours) == 2
    for said in run["same_model_two_evaluations"].values():  # both evaluate alike, so their speeds may be compared
        assert said["ours"] == pytest.approx(said["cornac"], abs=1e-3)


def test_cost(tmp_path):
    table, _ = ran(recommenders_cost, tmp_path)
    assert set(table.what) == {"training", "full ranking"} and (table.seconds > 0).all()
    assert (table["peak MB"] >= table["MB at start"]).all()
    place = tmp_path / "recommenders_cost"
    assert (place / "cost.svg").stat().st_size > 1000 and (place / "cost.png").stat().st_size > 1000


def test_costs_shop_has_ten_distinct_items_and_one_held_out():
    parts, features = recommenders_cost.shop(200)
    assert (np.diff(parts.train.indptr) == 10).all() and parts.train.max() == 1
    assert parts.train.sum() == 2000 and features.shape == (200, 64)
    assert not parts.train[np.arange(200), parts.test].any()


def test_sweep(tmp_path):
    table, run = ran(vbpr_sweep, tmp_path)
    assert list(table.variant) == list(run["variants"]) and table.cold_auc[0] == 0.5  # BPR-MF


def test_sweeps_default_is_vbpr(toy):
    parts, features = toy
    cfg = SimpleNamespace(**vbpr_sweep.BASE | {"epochs": 2})
    ours, swept = (kind().fit(parts, features, cfg, 0).scores(None, features) for kind in (VBPR, vbpr_sweep.Swept))
    torch.testing.assert_close(ours, swept, atol=1e-4, rtol=1e-4)


def test_validation_cold_items_leave_training(toy):
    parts, _ = toy
    inner = vbpr_sweep.validation_cold(parts, 0)
    assert len(inner.cold) == round(0.1 * len(shops.trained(parts))) and not np.isin(inner.cold, parts.cold).any()
    assert not inner.train[:, inner.cold].nnz
    assert (inner.train + inner.cold_positives != parts.train).nnz == 0
    assert not np.isin(inner.validation, inner.cold).any() and (inner.test == -1).all()


def test_transformed_features():
    features = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32) * np.arange(1, 9)
    white = vbpr_sweep.transformed(features, "white 3", np.arange(50))[:50]
    assert np.cov(white.T, bias=True) == pytest.approx(np.eye(3), abs=1e-4)
    unit = vbpr_sweep.transformed(features, "unit", np.arange(50))
    assert np.linalg.norm(unit, axis=1) == pytest.approx(8**0.5)


def test_features_are_standardised_as_the_extractor_does():
    photos = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    eye = extractor.Extractor("small_cnn")
    raw = extractor.extract(eye, photos)
    eye.freeze_scaler(photos[:9])
    np.testing.assert_allclose(shops.standardised(raw, np.arange(9)), extractor.extract(eye, photos), atol=1e-3)


def test_toy_split_holds_together(toy):
    parts, features = toy
    values = accuracy_metrics.full_ranking(
        VBPR().fit(parts, features, SimpleNamespace(**vbpr_sweep.BASE), 0), features, parts
    )
    assert np.nanmean(values["cold_auc"]) > 0.6  # its tastes can be seen


def test_attacks(tmp_path, monkeypatch):
    pytest.importorskip("foolbox")
    monkeypatch.setenv("VARS_DEVICE", "cpu")
    table, run = ran(attacks, tmp_path)
    assert (table["images/s"] > 0).all() and {"floor", "ours", "foolbox", "fp32", "bf16"} <= set(table.side)
    for kind in ("trainable", "frozen"):
        found = run["small_cnn"][kind]
        assert 1 <= found["FLOPs over floor's"] <= attacks.GOALS["FLOPs"]
        assert found["values that differ"]["foolbox"] < 0.02  # the same attack, so speeds may be compared
    closed = run["small_cnn"]["bf16"]["share of the distance closed"]
    assert closed["fp32"] > 0.05 and closed["bf16"] == pytest.approx(closed["fp32"], rel=0.1)
    assert set(run["not installed"]) <= {"ART", "torchattacks"}


def test_flops_of_a_known_network():
    net = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)  # one multiply-add is two operations

    def goal(images):
        return net(images).sum((1, 2, 3))

    one_way = 2 * 3 * 5 * 9 * 8 * 8
    count = attacks.flops(lambda goal, images: attacks.floor(goal, images, 10), goal, torch.rand(2, 3, 8, 8))
    assert count == 10 * 2 * one_way  # no gradient of the weights


def test_a_missed_goal_is_named():
    fine = {"FLOPs over floor's": 1.0, "seconds over floor's": 1.04, "faster than": {"foolbox": 1.5, "ART": 1.3}}
    slow = fine | {"seconds over floor's": 1.06}
    found = attacks.misses("net", {"trainable": fine, "frozen": slow, "bf16": {"faster by": 1.6}})
    assert found == ["net, frozen: seconds 1.060 × the floor's, goal 1.05", "net: ART 1.30 ×, goal 1.4"]


def test_ratios_are_taken_within_a_round():
    speeds = pd.DataFrame({"a": [2.0, 20.0, 9.0], "b": [1.0, 10.0, 3.0]})  # the machine was busy in the first round
    assert turns.ratio(speeds, "a", "b") == 2


def test_rounds_start_with_another_job_each():
    order = []
    jobs = {name: (lambda name=name: order.append(name), 3) for name in "abc"}
    assert list(turns.alternating(jobs, 2)) == ["a", "b", "c"] and "".join(order) == "abcbca"


def test_missing_data_is_named(capsys):
    for arguments, says in (([], "--data is needed"), (["--data", "nowhere"], "nowhere: no such folder")):
        with pytest.raises(SystemExit):
            vbpr_sweep.main(arguments)
        assert says in capsys.readouterr().err


def test_what_the_defence_costs(tmp_path):
    table, run = ran(defence, tmp_path)
    assert {"resnet50", "small_cnn", "filter", "detector", "filter + detector", "convolution", "jpeg75"} <= set(
        table.what
    )
    by = table[table.side == 32].set_index("what")
    assert (table["ms per photo"] > 0).all() and by["× base"]["small_cnn"] == 1
    assert by["M multiply-adds"]["filter"] == pytest.approx(by["M multiply-adds"]["convolution"], rel=0.1)
    assert by["M multiply-adds"]["tiny"] < by["M multiply-adds"]["filter"]
    assert run["filter + detector over ResNet-50"] > 0 and run["goal"] == 1.5
    assert all(row["MB"] >= 0 for row in run["growth"])


def test_what_a_training_step_gains(tmp_path):
    table, run = ran(training_step, tmp_path, "--batch", "4")
    by = table.pivot(index="job", columns="variant", values="× the study's")
    assert set(by.index) == {"attack", "attack through filter", "filter step"}
    assert set(by.columns) == set(training_step.VARIANTS) - {"compiled"}
    assert (by["as the study does"] == 1).all() and (by > 0).all(axis=None)
    assert (table["images/s"] > 0).all() and (table["first call, s"] > 0).all()
    assert run["settings"]["profile"] == "smoke" and run["settings"]["batch"] == 4


def test_training_steps_variants_are_what_they_say():
    values = param_file.read(ROOT / "profiles" / "smoke.yaml")
    cfg = params.Study(**values | {"reconstruction": values["reconstruction"] | {"batch_size": 2}})
    seen = []

    def look(module, inputs, _):
        if isinstance(module, Attention):
            seen.append((module.fused_attn, torch.is_autocast_enabled("cpu")))
        if isinstance(module, Extractor):
            seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    def ran_as(job="attack through filter", **change):
        seen.clear()
        jobs = training_step.jobs_of(cfg, **training_step.AS_IT_IS | change)
        with nn.modules.module.register_module_forward_hook(look):
            jobs[job]()
        return seen[:2]

    assert ran_as() == [(False, True), True]  # on a CPU in bf16 the filter takes plain attention
    assert ran_as(mixed=False) == [(True, False), True]
    assert ran_as(fused=True) == [(True, True), True] and ran_as(fused=False) == [(False, True), True]
    assert ran_as(mixed=False, fused=False) == [(False, False), True]
    assert ran_as("attack") == [True] and ran_as("attack", last=False) == [False]


def test_filters_in_training(tmp_path):
    table, run = ran(filter_training, tmp_path, "--only", "as in real.yaml", "no gate", "--curve", "3")
    assert table.variant.tolist() == ["as in real.yaml", "no gate", "as in real.yaml"]
    assert table.steps.tolist() == [2, 2, 3] and run["settings"]["steps"] == 2
    recovered = table[[f"recovery, ε = {e}" for e in filter_training.BUDGETS]]
    assert recovered.ne(0).all(axis=None) and recovered.le(1).all(axis=None)
    assert table["clean feature change"].gt(0).all()  # two steps are enough to leave the identity
    assert not table.iloc[0, 2:6].equals(table.iloc[1, 2:6])


def test_serving(tmp_path):
    table, run = ran(serving, tmp_path)
    assert table.draws.tolist() == [1, 4] and (table["ms per upload"] > 0).all()
    promised = run["a promise takes, error 1e-6"]
    assert promised["ε = 1, σ = 0.25"]["draws"] < promised["ε = 2, σ = 0.25"]["draws"]
    assert run["draws a second"] > 0 and run["one draw × the extractor"] > 0
