"""All eight notebooks, executed on the toy catalogue as `make smoke` does; this takes a minute or two."""

import csv
import json
import shutil
import subprocess
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from readings import odd
from studies import NOTEBOOKS, leaves, metrics, study

from benchmarks import extractors, randomised
from vars_core import param_file, params, paths, pretrained
from vars_core.__main__ import main
from vars_core.adaptive.randomised import RandomisedShop
from vars_core.data import split
from vars_core.detection.defence import Defence
from vars_core.detection.detectors import Detector
from vars_core.detection.starting import start as start_detectors
from vars_core.extractor import Extractor, agree
from vars_core.recommender.shop import Shop
from vars_core.reconstruction import filters, starting

PUSHES = ("insa:pgd", "promote:pgd", "reach:pgd")


def tree_state():
    git = ["git", "-C", str(ROOT), "status", "--porcelain"]
    done = subprocess.run(git, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The work folder of a finished smoke run, and whether the working tree was the same afterwards."""
    work, before = tmp_path_factory.mktemp("smoke"), tree_state()
    study("smoke", "--work", work)
    return work, (before, tree_state())


@pytest.fixture(scope="session")
def found(smoke):
    return metrics(smoke[0] / "reports")


def test_smoke_executes_every_notebook_without_an_error(smoke):
    executed = smoke[0] / "reports" / "notebooks"
    assert len(NOTEBOOKS) == 11 and {p.stem for p in executed.glob("*.ipynb")} == set(NOTEBOOKS)
    for path in executed.glob("*.ipynb"):
        cells = nbformat.read(path, 4).cells
        outputs = [o for c in cells if c.cell_type == "code" for o in c.outputs]
        assert outputs and all(o.output_type != "error" for o in outputs)
        images = [o for o in outputs if "image/png" in o.get("data", {})]
        assert all(o.metadata["image/png"]["alt"] for o in images) and len(images) > 0
        assert not any("nan" in str(o.get("data", {}).get("text/markdown", "")).split() for o in outputs)


def test_smoke_reads_well(smoke):
    """Its numbers mean nothing, but sentences must hold whatever they are."""
    found = {path.stem: odd(path) for path in (smoke[0] / "reports" / "notebooks").glob("*.ipynb")}
    assert not any(found.values()), found


def test_smoke_leaves_the_working_tree_as_it_was(smoke):
    before, after = smoke[1]
    if before is None:
        pytest.skip("not a git checkout")
    assert after == before


def test_smoke_answers_every_question_with_a_number(smoke):
    for name in NOTEBOOKS[1:]:
        answer = json.loads((smoke[0] / "reports" / "tables" / name / "answer.json").read_text())
        assert answer["question"].endswith("?") and any(c.isdigit() for c in answer["answer"])
        assert " nan" not in answer["answer"] and " inf" not in answer["answer"]


def test_smoke_metrics_keep_the_contract(found):
    for name in ("poprank", "bprmf", "vbpr"):
        assert {"hr@10", "ndcg@10", "auc", "mrr"} <= set(found["02_recommender"][name])
    attacks = {"none", *(f"{a}@{e}" for a in ("noise", "fgsm", "pgd", *PUSHES) for e in (8, 16))}
    attacked = found["03_attacks"]
    assert attacks <= set(attacked["exposure@10"]) and attacks <= set(attacked["rank_shift"])
    assert attacks - {"none"} == set(attacked["psnr"])
    harmful = {a for a in attacks if not a.startswith(("none", "noise"))}
    trained = ("conv", "windowed_vit", "global_vit", "global_vit_adaptive", "robust", "aid")
    for arm in ("jpeg50", "jpeg75", "jpeg90", "median", "bits3", "gaussian", "tv", *trained):
        assert {"clean_feature_mse", "feature_recovery"} <= set(found["04_reconstruction"][arm])
        assert harmful <= set(found["04_reconstruction"][arm]["feature_recovery"])
    assert {"mim@8", "apgd@8", "square@8", "cw", "pgd@6", "other:pgd@8"} <= set(
        found["04_reconstruction"]["global_vit"]["feature_recovery"]
    )
    assert "clean_ndcg_loss" in found["04_reconstruction"]["amr"]
    rivals = ("squeezing", "magnet", "lid", "mahalanobis", "knn", "jpeg")
    for detector in ("contrastive", "contrastive_separate", "bce", "prototype", "nearest_clean", *rivals):
        assert {"auroc", "tpr@5"} <= set(found["05_detection"][detector])
        assert "tpr@1" not in found["05_detection"][detector]  # 43 validation photos: 99 are needed
        named = set(found["05_detection"][detector]["auroc"])
        assert {"pgd@8", "promote:pgd@8", "unseen@8", "attack_vs_noise@8"} <= named
    assert {"asr@5", "undefended", "benign_flagged", "ndcg_loss"} <= set(found["05_detection"]["system"])
    assert {"attention", "loss", "perturbations", "size", "contrastive", "joint"} <= set(found["06_ablations"])
    for tier in ("T0", "T2", "T3", "T4"):  # T1 needs a second training
        for defence in ("none", "filter", "detector", "both", "filter_adaptive", "both_adaptive"):
            assert "reach:pgd@8" in found["07_adaptive"][tier]["randomised"]["exposure@10"]
            assert "reach:pgd@8" in found["07_adaptive"][tier][defence]["exposure@10"]
        assert "reach:pgd@8" in found["07_adaptive"][tier]["both"]["asr@5"]
        assert "reach:pgd@8" in found["07_adaptive"][tier]["randomised"]["asr@5"]
    assert {"clean_ndcg_loss", "cold_auc", "clean_exposure"} <= set(found["08_certificate"]["sigma@0.25"])
    assert set(found["08_certificate"]["sigma@0.25"]["certified_exposure"]) == {"0.5", "8"}
    assert "8" in found["08_certificate"]["none"]["exposure"] and found["08_certificate"]["confidence"] == 0.99
    checks = found["07_adaptive"]["sanity"]
    assert len(checks) >= 5 and all(isinstance(v, bool) for v in checks.values())


def test_smoke_shares_are_shares_and_intervals_are_intervals(found):
    shares = ("exposure@", "asr@", "tpr@", "hr@", "ndcg@", "auroc", "undefended", "benign_flagged")

    def check(tree, path=()):
        for key, value in tree.items():
            if isinstance(value, dict):
                check(value, (*path, key))
            elif key.endswith("_ci"):
                assert value[0] <= value[1] and key.removesuffix("_ci") in tree, (*path, key)

    for name in NOTEBOOKS:
        check(found[name])
        for path, value in leaves(found[name]):
            assert isinstance(value, str) or np.isfinite(value), path
            if any(part.startswith(share) for part in path for share in shares):
                assert 0 <= value <= 1, (name, *path)


def test_smoke_numbers_make_sense(found):
    attacks, arms = found["03_attacks"], found["04_reconstruction"]
    psnr = attacks["psnr"]
    for algorithm in ("noise", "fgsm", "pgd", *PUSHES):
        assert psnr[f"{algorithm}@16"] < psnr[f"{algorithm}@8"]
    # noise of ε is uniform: its mean square is ε²/3, less where pixels are clipped
    assert psnr["noise@8"] == pytest.approx(20 * np.log10(255 / (8 / 3**0.5)), abs=1)
    assert psnr["fgsm@8"] >= 20 * np.log10(255 / 8) - 0.01 and psnr["pgd@8"] >= 20 * np.log10(255 / 8) - 0.01
    assert attacks["rank_shift"]["none"] == 0
    assert arms["none"]["clean_feature_mse"] == 0 and arms["none"]["clean_ndcg_loss"] == 0
    assert "clean_psnr" not in arms["none"]  # infinite (as under a hardly trained filter): absent, never 0 or null
    assert arms["jpeg50"]["clean_psnr"] < arms["jpeg75"]["clean_psnr"]


# Trap: the headline as a minimum of means. Worst cases per item over nested sets of attacks can only rise.
def test_smoke_knowing_more_never_reaches_less(found):
    adaptive = found["07_adaptive"]
    for defence in ("none", "filter", "detector", "both", "randomised"):
        key = "asr@5" if defence in ("detector", "both") else "exposure@10"
        for attack, value in adaptive["T0"][defence][key].items():
            if not attack.endswith("_ci"):
                more = [adaptive[tier][defence][key][attack] for tier in ("T2", "T3")]
                assert value <= more[0] <= more[1]


# Traps: ε in another unit than pixels; float or unsaved adversarial images; visual metrics over a part of them.
def test_smoke_photos_are_8_bit_and_within_their_budget(smoke):
    folder = smoke[0] / "data" / "attacked"
    clean = np.load(folder / "none.npy").astype(int)
    for epsilon in (8, 16):
        for algorithm in ("noise", "fgsm", "pgd", *(name.replace(":", "-") for name in PUSHES)):
            changed = np.load(folder / f"{algorithm}@{epsilon}.npy")
            assert changed.dtype == np.uint8
            assert (np.abs(changed - clean).max((1, 2, 3)) == epsilon).all()
    table = rows(smoke[0] / "reports" / "tables" / "03_attacks" / "outcomes.csv")
    largest = [row for row in table if row["metric"] == "linf"]
    assert len(largest) == 13 and all(float(row["value"]) <= float(row["epsilon"]) for row in largest)
    assert all(int(row["n"]) == len(clean) for row in table if row["metric"] in ("psnr", "ssim", "linf"))


# Traps: the defence trained or calibrated on what it is tested on.
def test_smoke_attacks_items_that_the_defence_never_saw(smoke):
    parts = split.load(smoke[0] / "data" / "prepared" / "split.npz")
    attacked = np.load(smoke[0] / "data" / "attacked" / "items.npy")
    train, validation, test = (set(parts.defence[name]) for name in ("train", "validation", "test"))
    assert set(attacked) <= test and not test & (train | validation) and not train & validation
    assert set(attacked) <= set(parts.cold)
    hooks = np.load(smoke[0] / "data" / "attacked" / "hooks.npy")
    assert (np.asarray(parts.train.sum(0)).ravel()[hooks] > 0).all()


# Trap: pickles run code on load.
def test_smoke_writes_no_pickles(smoke):
    for path in smoke[0].rglob("*"):
        assert path.suffix not in (".pt", ".pth", ".pkl", ".pickle", ".ckpt"), path
        if path.suffix == ".npy":
            np.load(path, allow_pickle=False)


def test_smoke_says_that_feedback_is_simulated(smoke):
    assert "(simulated feedback)" in (smoke[0] / "reports/tables/03_attacks/outcomes.md").read_text()


def test_denoisers_are_compared_behind_the_recommender_of_a_study(smoke, tmp_path, monkeypatch):
    monkeypatch.setenv("VARS_WORKSPACE", str(smoke[0]))  # the benchmark sets it, too: put back afterwards
    variants = [randomised.OWN, "recommender of raw photos", "extractor fine-tuned"]
    assert (
        randomised.main(
            [str(smoke[0]), "--only", *variants, "--steps", "2", "--sigmas", "0.25", "--out", str(tmp_path)]
        )
        == 0
    )
    table = pd.read_csv(tmp_path / "randomised" / "results.csv").set_index("variant")
    assert table.index.tolist() == ["no defence", *variants] and table.sigma.tolist() == [0, 0.25, 0.25, 0.25]
    assert table.lost["no defence"] == 0 and table["cold AUC"].between(0.3, 1).all()
    assert (table.attacked >= table["attacked low"]).all() and (table.attacked <= table["attacked high"]).all()
    for epsilon in ("0.5", "1", "2", "4"):
        assert (table[f"point, ε = {epsilon}"][1:] <= table[f"promised, ε = {epsilon}"][1:]).all()
    assert table["ndcg@10"][randomised.OWN] != table["ndcg@10"]["recommender of raw photos"]


def test_extractors_are_compared_and_rows_are_kept(found, tmp_path, monkeypatch):
    asked = ["--profile", "smoke", "--sides", "32", "--steps", "1", "--kept", str(tmp_path / "kept")]
    assert extractors.main([*asked, "--out", str(tmp_path)]) == 0
    (row,) = rows(tmp_path / "extractors" / "results.csv")
    assert row["extractor"] == "small_cnn" and float(row["ms a photo"]) > 0
    assert float(row["hr@10"]) == pytest.approx(found["02_recommender"]["vbpr"]["hr@10"], abs=1e-3)
    assert float(row["low, ε = 4"]) <= float(row["reach, ε = 4"]) <= float(row["high, ε = 4"])
    assert float(row["recovery, ε = 8"]) < 1
    monkeypatch.setattr(extractors, "row_of", None)  # nothing is computed any more
    assert extractors.main([*asked, "--out", str(tmp_path / "again")]) == 0
    assert rows(tmp_path / "again" / "extractors" / "results.csv") == [row]


def test_extractors_of_what_is_not_there_are_refused(tmp_path, capsys):
    for asked in (["--data", str(tmp_path / "none")], ["--weights", str(tmp_path / "none.safetensors")]):
        with pytest.raises(SystemExit):
            extractors.main(["--profile", "smoke", "--kept", str(tmp_path), *asked])
        assert "no such f" in capsys.readouterr().err


def test_a_folder_without_a_study_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        randomised.main([str(tmp_path)])
    assert "no study whose notebooks 1 and 2 have run" in capsys.readouterr().err


def test_means_over_seeds_by_hand():
    one = {"catalogue": "drawn", "variant": "own", "sigma": 0.25, "attacked low": 0.0}
    table = pd.DataFrame([one | {"seed": seed, "attacked": value} for seed, value in enumerate((0.01, 0.02, 0.03))])
    (row,) = randomised.over_seeds(table).to_dict("records")
    assert row["measure"] == "attacked" and row["seeds"] == 3 and row["mean"] == pytest.approx(0.02)
    half = 4.302653 * 0.01 / 3**0.5  # Student's 97.5 % quantile with two degrees of freedom
    assert (row["low"], row["high"]) == pytest.approx((0.02 - half, 0.02 + half), rel=1e-5)


@pytest.fixture
def elsewhere(smoke, tmp_path, monkeypatch):
    """A root with the smoke run's catalogue, whose models lie in pretrained/ only, in a notebook run by hand."""
    monkeypatch.setenv("VARS_ROOT", str(tmp_path))
    monkeypatch.setenv("VARS_WORKSPACE", str(smoke[0]))  # the command sets it, too: put back afterwards
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy(ROOT / "profiles" / "smoke.yaml", tmp_path / "params.yaml")
    assert main(["pretrained", "--work", str(smoke[0])]) == 0
    shutil.copytree(smoke[0] / "data" / "prepared", tmp_path / "data" / "prepared")
    monkeypatch.delenv("VARS_WORKSPACE")
    return tmp_path


def test_models_of_a_run_are_kept_small_and_serve_where_none_were_trained(smoke, elsewhere, capsys):
    values = param_file.load(elsewhere / "params.yaml")
    cfg = params.Reconstruction(**values["reconstruction"])
    (folder,) = pretrained.folders()
    about, card = pretrained.about(folder), (folder / "README.md").read_text()
    assert about.drawn and about.profile == "smoke" and "| global_vit: feature recovery | pgd | " in card
    shop = Shop.open(params.Recommender(**values["recommender"]), params.Attacks(**values["attacks"]), 0)
    assert "models/recommender: from pretrained/synthetic, as no run made it here" in capsys.readouterr().out
    known = np.load(smoke[0] / "models" / "recommender" / "features.npy")
    assert shop.features.shape == known.shape and agree(shop.features, known, 0.1)
    defence = Defence.load(pretrained.read_from("models/defence") / "contrastive", shop.extractor)
    assert np.isfinite(list(defence.thresholds.values())).all()
    assert RandomisedShop.open(shop, 0.25, draws=2, error=None).shop.features.shape == known.shape
    # a study of another catalogue with the same extractor starts from them; of another extractor, from scratch
    given = Extractor("small_cnn", str(folder / "models" / "recommender" / "extractor.safetensors"))
    for extractor in (shop.extractor, given, Extractor.load(smoke[0] / "models/recommender/extractor.safetensors")):
        net = filters.GlobalViT(**cfg.shape)
        assert starting.start({"global_vit": net}, "pretrained", replace(shop, extractor=extractor))
        kept = filters.load_filter(folder / "models" / "filter" / "global_vit.safetensors")
        assert all(
            torch.equal(a, b) for a, b in zip(net.state_dict().values(), kept.state_dict().values(), strict=True)
        )
    net = filters.GlobalViT(**cfg.shape | {"width": 8})
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert not starting.start({"global_vit": net}, "pretrained", shop)
    assert not starting.start({"global_vit": net}, "pretrained", replace(shop, extractor=Extractor("small_cnn")))
    assert not starting.start({"nobody's": net}, "pretrained", shop)
    assert not starting.start({"global_vit": net}, None, shop)
    # of the same photos split otherwise, they may have learned from those that judge them
    anew = replace(shop, catalogue=replace(shop.catalogue, fingerprint="another"))
    assert not starting.start({"global_vit": filters.GlobalViT(**cfg.shape)}, "pretrained", anew)
    abroad = replace(shop, catalogue=replace(shop.catalogue, fingerprint="another", name="films"))
    assert starting.start({"global_vit": filters.GlobalViT(**cfg.shape)}, "pretrained", abroad)
    said = capsys.readouterr().out
    assert "global_vit: not in synthetic of pretrained/, or of another size: trained from scratch" in said
    assert "nothing in pretrained/ was trained for these features (small_cnn)" in said
    assert "pretrained/synthetic learned from synthetic split otherwise" in said
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_detectors_start_from_kept_ones(elsewhere, capsys):
    values = param_file.load(elsewhere / "params.yaml")
    cfg = params.Reconstruction(**values["reconstruction"])
    shop = Shop.open(params.Recommender(**values["recommender"]), params.Attacks(**values["attacks"]), 0)
    kept = Defence.load(pretrained.read_from("models/defence") / "contrastive", shop.extractor)
    detector, image_filter = Detector(shop.extractor.dim), filters.GlobalViT(**cfg.shape)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    pair = {"contrastive": detector}, "pretrained"
    assert not start_detectors({"contrastive": detector}, None, shop)
    assert not start_detectors(*pair, shop, {"contrastive": filters.GlobalViT(**cfg.shape | {"width": 8})})
    assert not start_detectors({"nobody's": detector}, "pretrained", shop)
    assert not start_detectors({"contrastive": Detector(3)}, "pretrained", shop)
    assert all(torch.equal(before[name], tensor) for name, tensor in detector.state_dict().items())
    assert "contrastive: not in synthetic of pretrained/, or of another size" in capsys.readouterr().out
    assert start_detectors(*pair, shop, {"contrastive": image_filter})
    for net, known in ((detector, kept.detector), (image_filter, kept.image_filter)):
        assert all(torch.equal(known.state_dict()[name].cpu(), tensor) for name, tensor in net.state_dict().items())


def test_kept_models_are_not_taken_for_another_catalogue_or_extractor(elsewhere):
    assert pretrained.read_from("models/filter").is_relative_to(elsewhere / "pretrained")
    own = paths.write_to("models/recommender")  # notebook 2, run by hand, with a network of its own
    Extractor("small_cnn").save(own / "extractor.safetensors")
    with pytest.raises(paths.MissingArtefact, match=r"run notebooks/04_reconstruction\.ipynb first"):
        pretrained.read_from("models/filter")
    shutil.rmtree(own)
    meta = elsewhere / "data" / "prepared" / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"fingerprint": "another"}))
    (elsewhere / "data" / "prepared" / "SHA256SUMS").unlink()
    with pytest.raises(paths.MissingArtefact):
        pretrained.read_from("models/filter")


def test_screening_takes_no_defence_of_drawings(elsewhere):
    with pytest.raises(paths.MissingArtefact, match="models/defence is missing"):
        pretrained.defence_of_photos()
    about = elsewhere / "pretrained" / "synthetic" / "about.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"drawn": False}))
    assert pretrained.defence_of_photos() == about.parent / "models" / "defence" / "contrastive"
