"""Names that readers see: of attacks, defences, measures; and none of them on what a catalogue calls its things."""

import pytest

from vars_core import labels
from vars_core.attacks import campaign
from vars_core.recommender import victims
from vars_core.reconstruction import classics, online_attacks


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("none", "untouched"),
        ("noise@4", "noise, ε = 4"),
        ("pgd", "hook (PGD)"),
        ("reach:pgd@8", "reach (PGD), ε = 8"),
        ("other:pgd@8", "hook (PGD) through another network, ε = 8"),
        ("square@8", "Square, ε = 8"),
        ("cw", "C&W"),
        ("white box", "white box"),
        ("pgd of mine", "pgd of mine"),
    ],
)
def test_attacks(name, text):
    assert labels.attack(name) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("global_vit_adaptive", "global ViT, adaptive"),
        ("both_adaptive", "filter + detector, adaptive"),
        ("noise + conv", "noise + convolution"),
        ("noise + windowed_vit", "noise + windowed ViT"),
        ("aid64", "AiD64"),
        ("median", "median"),
        ("some_new_filter", "some new filter"),
    ],
)
def test_defences(name, text):
    assert labels.defence(name) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hr@20", "HR@20"),
        ("cold_auc", "AUC among cold items"),
        ("ndcg@20 lost", "NDCG@20 lost"),
        ("reach_pgd", "reach (PGD)"),
        ("fgsm", "hook (FGSM)"),
        ("jpeg75", "JPEG-75"),
        ("windowed_vit", "windowed ViT"),
        ("feature recovery, reach:pgd@8", "feature recovery, reach (PGD), ε = 8"),
        ("exposure@20", "exposure@20"),
        ("tpr@0.1", "caught at 0.1 % false alarms"),
        ("ci_low", "low"),
        ("none", "none"),
        ("item_id", "item_id"),
        ("my_own_column", "my_own_column"),
    ],
)
def test_columns(name, text):
    assert labels.header(name) == text


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("attack", "none", "untouched"),
        ("defence", "none", "no defence"),
        ("contrast", "reach:pgd − pgd", "reach (PGD) − hook (PGD)"),
        ("victim", "vbpr", "VBPR"),
        ("measure", "pgd@8 feature_recovery", "feature recovery, hook (PGD), ε = 8"),
        ("measure", "fpr@1 noise@8", "false alarms where 1 % are allowed, noise, ε = 8"),
        ("measure", "fpr@1", "false alarms where 1 % are allowed"),
        ("edit", "shift", "shifted by a pixel"),
        ("edit", "noise, ε = 4", "noise, ε = 4"),
        ("category", "none", "none"),
        ("attack", 3, 3),
    ],
)
def test_cells(column, value, text):
    assert labels.in_column(column, value) == text


def test_all_that_the_study_has_a_name_for_has_a_label():
    assert set(campaign.ATTACKS) <= set(labels.ALGORITHMS)
    assert {*victims.RECOMMENDERS, "poprank"} == set(labels.RECOMMENDERS)
    assert set(online_attacks.BENIGN) == set(labels.EDITS)
    assert set(classics.classics()) - {"median"} <= set(labels.DEFENCES)
