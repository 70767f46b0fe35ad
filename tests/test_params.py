"""params.yaml: YAML 1.2, bounds, and errors that name the parameter."""

from itertools import pairwise

import pytest
from conftest import ROOT
from pydantic import ValidationError
from ruamel.yaml import YAML

from vars_core import param_file, params

LAPTOP = (ROOT / "profiles/laptop.yaml").read_text()
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))


def error(tmp_path, old, new):
    assert old in LAPTOP
    (tmp_path / "params.yaml").write_text(LAPTOP.replace(old, new, 1))
    with pytest.raises(params.ParameterError) as caught:
        param_file.load(tmp_path / "params.yaml")
    return str(caught.value)


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.stem)
def test_every_profile_is_whole_and_valid(path):
    values = param_file.load(path)
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
    values = param_file.load(ROOT / "profiles/laptop.yaml")
    for name, field in params.Study.model_fields.items():
        if name != "seed":
            assert field.annotation().model_dump() == values[name]


def test_numbers_and_words_are_those_of_yaml_1_2(tmp_path):
    (tmp_path / "p.yaml").write_text("a: 1e-3\nb: 5e-3\nc: on\nd: yes\ne: 010\nf: true\n")
    assert param_file.read(tmp_path / "p.yaml") == {
        "a": 0.001,
        "b": 0.005,
        "c": "on",
        "d": "yes",
        "e": 10,
        "f": True,
    }
    text = LAPTOP.replace("learning_rate: 1e-2", "learning_rate: 1e-3", 1)
    (tmp_path / "p.yaml").write_text(text)
    assert param_file.load(tmp_path / "p.yaml")["recommender"]["learning_rate"] == 0.001


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
            "recommender.pretrained: expected true, false, package or a file's path; got 3",
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
        param_file.load(tmp_path / "params.yaml")
    assert len(str(caught.value).splitlines()) == 3


def test_only_the_named_sections_are_read(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: 3\nablations: {steps: -1, detector_steps: 1}\n")
    assert param_file.load(tmp_path / "params.yaml", ["seed"]) == {"seed": 3}
    with pytest.raises(params.ParameterError, match="attacks: section missing"):
        param_file.load(tmp_path / "params.yaml", ["attacks"])


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(params.ParameterError, match=r"params\.yaml is missing"):
        param_file.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("")
    with pytest.raises(params.ParameterError, match="holds no sections"):
        param_file.load(tmp_path / "params.yaml")


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


LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqr"))
HOSTILE = {
    "billion laughs": (LAUGHS.encode(), "more than 10,000 values or nested too deeply"),
    "a list in itself": (b"a: &a [*a]\n", "nested too deeply"),
    "a section in itself": (b"a: &a\n  b: *a\n", "nested too deeply"),
    "an alias of nothing": (b"a: *b\n", "undefined alias"),
    "code": (b"a: !!python/object/apply:os.system [touch ran]\n", "could not determine a constructor"),
    "a name": (b"a: !!python/name:os.system\n", "could not determine a constructor"),
    "brackets": (b"a: " + b"[" * 10_000, "nested too deeply"),
    "braces": (b"a: " + b"{b: " * 10_000, "nested too deeply"),
    "dashes": (b"- " * 20_000, "nested too deeply"),
    "10 MB": (b"a: 1\n" * 2_000_000, "more than 100,000 bytes"),
    "many values": (b"a: [" + b"1," * 11_000 + b"]", "more than 10,000 values"),
    "NUL": (b"a: \0\n", "p.yaml"),
    "UTF-16": ("a: 1\n".encode("utf-16"), "utf-8"),
    "UTF-32": ("a: 1\n".encode("utf-32"), "p.yaml"),
    "Latin-1": (b"a: caf\xe9\n", "utf-8"),
    "tabs": (b"a:\n\tb: 1\n", "is not YAML"),
    "digits": (b"a: " + b"9" * 90_000, "p.yaml"),
    "hexadecimal digits": (b"a: 0x" + b"f" * 90_000, "a: a int; numbers of 64 bits"),
    "a number of 70 bits": (b"s:\n  a: 1180591620717411303424\n", "s.a: a int; numbers of 64 bits"),
    "a date": (b"a: 2020-01-01\n", "a: a date"),
    "no date": (b"a: 2020-13-45\n", "p.yaml"),
    "a set": (b"a: !!set {b, c}\n", "a: a "),
    "bytes": (b"a: !!binary aGVsbG8=\n", "a: a bytes"),
    "no bytes": (b"a: !!binary \xc3\xa9\n", "p.yaml"),
    "no number": (b"a: !!float abc\n", "p.yaml"),
    "no whole number": (b"a: !!int abc\n", "p.yaml"),
    "a key twice": (b"a: 1\nb: 2\na: 3\n", "line 3: found duplicate key"),
    "a number as key": (b"1: 2\n", "'1' is a int; text expected"),
    "a list as key": (b"? [a, b]\n: 2\n", "p.yaml"),
    "nothing as key": (b"~: 2\n", "NoneType"),
    "truth as key in a section": (b"s:\n  true: 2\n", "s: the name 'True' is a bool"),
    "nothing": (b"", "holds no sections"),
    "a list": (b"[1, 2]", "holds no sections"),
    "text": (b"words", "holds no sections"),
    "two documents": (b"a: 1\n---\nb: 2\n", "p.yaml"),
    "merge of a number": (b"a:\n  <<: 7\n", "p.yaml"),
    "open quotes": (b'a: "b\n', "is not YAML"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_a_parameter_error_that_names_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, said = HOSTILE[name]
    (tmp_path / "p.yaml").write_bytes(content)
    with pytest.raises(params.ParameterError, match=r"^p\.yaml") as caught:
        param_file.read(tmp_path / "p.yaml")
    assert said in str(caught.value) and len(str(caught.value)) < 1100
    assert not (tmp_path / "ran").exists()


def test_folders_and_byte_order_marks(tmp_path):
    with pytest.raises(params.ParameterError, match="directory"):
        param_file.read(tmp_path)
    (tmp_path / "p.yaml").write_bytes(b"\xef\xbb\xbf" + LAPTOP.encode())
    assert param_file.load(tmp_path / "p.yaml") == param_file.load(ROOT / "params.yaml")


def test_aliases_and_merges_of_plain_values_are_fine(tmp_path):
    (tmp_path / "p.yaml").write_text("a: &a {x: 1, y: [1, .5]}\nb:\n  <<: *a\n  x: 2\nc: *a\n")
    got = param_file.read(tmp_path / "p.yaml")
    assert got["b"] == {"x": 2, "y": [1, 0.5]} and got["c"] == got["a"]


@pytest.mark.parametrize(
    "value", [".inf", "-.inf", ".nan", "1e400", "-1", "'5'", "null", "[]", "{}", "true", "2020-01-01"]
)
def test_no_odd_value_passes_for_a_number(value, tmp_path):
    for line in LAPTOP.splitlines():
        name, _, rest = line.partition(": ")
        if line.startswith("  ") and rest.split(" ")[0].replace(".", "").replace("e-", "").isdigit():
            said = error(tmp_path, line, f"{name}: {value}")
            assert name.strip() in said and "\n" not in said
