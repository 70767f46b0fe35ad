"""params.yaml: YAML 1.2, bounds, and errors that name the parameter."""

import pytest
from conftest import ROOT
from pydantic import ValidationError
from ruamel.yaml import YAML

from vars_core import params

LAPTOP = (ROOT / "profiles/laptop.yaml").read_text()
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))


def error(tmp_path, old, new):
    assert old in LAPTOP
    (tmp_path / "params.yaml").write_text(LAPTOP.replace(old, new, 1))
    with pytest.raises(params.ParameterError) as caught:
        params.load(tmp_path / "params.yaml")
    return str(caught.value)


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.stem)
def test_every_profile_is_whole_and_valid(path):
    values = params.load(path)
    assert list(values) == list(params.Study.model_fields)
    for name, section in params.Study.model_fields.items():
        if name != "seed":
            assert list(values[name]) == list(section.annotation.model_fields)
    params.Study(**values)


def test_params_yaml_is_the_laptop_profile():
    assert (ROOT / "params.yaml").read_text() == LAPTOP


def test_every_parameter_says_why():
    for path in PROFILES:
        for line in path.read_text().splitlines():
            if ": " in line and not line.startswith("#"):
                assert "  # " in line, f"{path.name}: {line}"


def test_defaults_are_the_laptop_profile():
    values = params.load(ROOT / "profiles/laptop.yaml")
    for name, field in params.Study.model_fields.items():
        if name != "seed":
            assert field.annotation().model_dump() == values[name]


def test_numbers_and_words_are_those_of_yaml_1_2(tmp_path):
    (tmp_path / "p.yaml").write_text("a: 1e-3\nb: 5e-3\nc: on\nd: yes\ne: 010\nf: true\n")
    assert params.read(tmp_path / "p.yaml") == {
        "a": 0.001,
        "b": 0.005,
        "c": "on",
        "d": "yes",
        "e": 10,
        "f": True,
    }
    text = LAPTOP.replace("learning_rate: 1e-2", "learning_rate: 1e-3", 1)
    (tmp_path / "p.yaml").write_text(text)
    assert params.load(tmp_path / "p.yaml")["recommender"]["learning_rate"] == 0.001


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epsilons: [1, ", "epsilons: [0, ", "attacks.epsilons.0: ε in 8-bit steps, 1 to 255; got 0"),
        (
            "epsilons: [1, 2, 4, 8, 16]",
            "epsilons: [2, 300] ",
            "attacks.epsilons.1: ε in 8-bit steps, 1 to 255; got 300",
        ),
        (
            "unseen_epsilons: [3, 6, 12]",
            "unseen_epsilons: [3, 0]",
            "attacks.unseen_epsilons.1: ε in 8-bit steps, 1 to 255; got 0",
        ),
        (
            "unseen_epsilons: [3, 6, 12]",
            "unseen_epsilons: [3, 8]",
            "attacks.unseen_epsilons: kept for testing, so not in reconstruction.epsilons; got [8]",
        ),
        (
            "epsilons: [2, 4, 8]          # 8-bit steps, mixed",
            "epsilons: [2, 3, 8]          # 8-bit steps, mixed",
            "attacks.unseen_epsilons: kept for testing, so not in detection.epsilons; got [3]",
        ),
        ("  hooks: 20", "  hoks: 20", "attacks.hoks: unknown parameter; did you mean hooks?"),
        ("\nattacks:", "\natacks:", "atacks: unknown section; did you mean attacks"),
        ("  k: 20 ", "  k: 0 ", "recommender.k: expected greater than or equal to 1; got 0"),
        ("  checked: 4", "  checked: 1", "adaptive.checked: expected greater than or equal to 2; got 1"),
        ("learning_rate: 1e-2", "learning_rate: on", "recommender.learning_rate: expected number; got 'on'"),
        ("learning_rate: 1e-2", "learning_rate: .nan", "recommender.learning_rate: expected"),
        (
            "pretrained: false",
            "pretrained: 3",
            "recommender.pretrained: expected true, false or a file's path; got 3",
        ),
        ("source: synthetic", "source: web", "data.source: expected 'synthetic' or 'folder'; got 'web'"),
        (
            "taste_weights: null",
            "taste_weights: a.safetensors",
            "data: taste_weights belong to taste_extractor, which is null; got 'a.safetensors'",
        ),
        ("taste_extractor: null", "taste_extractor: 18", "data.taste_extractor: expected string; got 18"),
        ("taste_features: 1.6", "taste_features: -1", "data.taste_features: expected greater than or equal to 0"),
        ("epochs: 60", "epochs: 4.5", "recommender.epochs: expected integer; got 4.5"),
        ("epochs: 60", "epochs: '40'", "recommender.epochs: expected integer; got '40'"),
        ("epochs: 60", "epochs: true", "recommender.epochs: expected integer; got True"),
        ("  heads: 2", "  heads: 3", "reconstruction: width is a multiple of heads; got 64 and 3"),
        (
            "  patch: 4",
            "  patch: 7",
            "reconstruction.patch: expected a divisor of data.image_size, 64; got 7",
        ),
        ("seed: 0", "seed: -1", "seed: a whole number from 0 to 2147483647; got -1"),
        ("seed: 0", "seed: 0\nseed: 1", 'line 3: found duplicate key "seed"'),
        ("  hooks: 20", "#", "attacks.hooks: missing from the file"),
        ("seed: 0", "", "seed: section missing"),
        ("seed: 0", "seed: [", "is not YAML"),
    ],
)
def test_errors_name_the_parameter(tmp_path, old, new, said):
    assert said in error(tmp_path, old, new)


def test_every_problem_is_told_at_once(tmp_path):
    text = LAPTOP.replace("  k: 20 ", "  k: 0 ").replace("  hooks:", "  hoks:").replace("epochs: 60", "epochs: no")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(params.ParameterError) as caught:
        params.load(tmp_path / "params.yaml")
    assert len(str(caught.value).splitlines()) == 3


def test_only_the_named_sections_are_read(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: 3\nablations: {steps: -1, detector_steps: 1}\n")
    assert params.load(tmp_path / "params.yaml", ["seed"]) == {"seed": 3}
    with pytest.raises(params.ParameterError, match="attacks: section missing"):
        params.load(tmp_path / "params.yaml", ["attacks"])


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(params.ParameterError, match=r"params\.yaml is missing"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("")
    with pytest.raises(params.ParameterError, match="holds no sections"):
        params.load(tmp_path / "params.yaml")


def test_explain_reads_a_notebooks_own_error():
    with pytest.raises(ValidationError) as caught:
        params.Attacks(epsilons=[0], k=2)
    lines = params.explain(caught.value).splitlines()
    assert lines[0] == "attacks.epsilons.0: ε in 8-bit steps, 1 to 255; got 0"
    assert lines[1].startswith("attacks.k: unknown parameter")


def test_a_section_cannot_be_changed():
    with pytest.raises(ValidationError):
        params.Attacks().steps = 3


def test_dvc_and_we_read_the_same_numbers():
    assert YAML(typ="safe", pure=True).load(LAPTOP)["recommender"]["learning_rate"] == 0.01


def test_in_the_adaptive_regime_only_features_and_scores_count():
    cfg = params.Reconstruction(ranking_weight=0.1, adaptive_ranking_weight=7.0)
    changed = {name for name, value in cfg.adaptive.model_dump().items() if value != getattr(cfg, name)}
    assert changed == {"pixel_weight", "ranking_weight"}
    assert cfg.adaptive.pixel_weight == 0 and cfg.adaptive.ranking_weight == 7
