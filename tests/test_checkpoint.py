"""Hostile files of models are one line that names the file, and the tensor if it is one."""

import json
import pickle
import struct
import tracemalloc

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from vars_core import checkpoint
from vars_core.errors import InputError
from vars_core.extractor import Extractor, SmallCNN, _load_weights
from vars_core.reconstruction.filters import load_filter


def raw(header, content=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + content


def tensor(offsets=(0, 8), shape=(2,), kind="F32"):
    return {"dtype": kind, "shape": list(shape), "data_offsets": list(offsets)}


NOTES = {"__metadata__": {"notes": "{}"}}
GOOD = save({"a": torch.ones(3)}, {"notes": "{}"})
HOSTILE = {
    "empty": b"",
    "text": b"no model at all",
    "zeros": bytes(100),
    "cut off in the length": GOOD[:5],
    "cut off in the header": GOOD[:30],
    "cut off in the tensors": GOOD[:-1],
    "more behind": GOOD + b"more",
    "a header of 2^63": raw(b"{}", length=2**63),
    "a header of 2^64 - 1": raw(b"{}", length=2**64 - 1),
    "a header of 100 MB": raw(b"{}", length=100_000_000),
    "a header longer than allowed": raw(b"{" + b" " * checkpoint.HEADER + b"}"),
    "a nested header": raw(b'{"a":' + b"[" * 100_000),
    "a header that is a list": raw(b"[]"),
    "a header that isn't UTF-8": raw(b'{"\xff": 1}'),
    "a name given twice": raw(b'{"a": {"dtype": "F32"}, "a": 7}'),
    "offsets outside": raw(NOTES | {"a": tensor((0, 800))}, bytes(8)),
    "offsets backwards": raw(NOTES | {"a": tensor((8, 0))}, bytes(8)),
    "offsets that overlap": raw(NOTES | {"a": tensor(), "b": tensor((4, 12))}, bytes(12)),
    "a negative shape": raw(NOTES | {"a": tensor(shape=(-2,))}, bytes(8)),
    "a shape of 2^62": raw(NOTES | {"a": tensor(shape=(2**62, 4))}, bytes(8)),
    "an unknown type": raw(NOTES | {"a": tensor(kind="F7")}, bytes(8)),
    "no notes": save({"a": torch.ones(3)}),
    "notes that are no JSON": save({"a": torch.ones(3)}, {"notes": "{"}),
    "notes that are a list": save({"a": torch.ones(3)}, {"notes": "[]"}),
    "notes nested deeply": save({"a": torch.ones(3)}, {"notes": "[" * 200_000}),
    "a pickle": pickle.dumps({"a": 1}),
    "NaN": save({"a": torch.tensor([1.0, float("nan")])}, {"notes": "{}"}),
    "infinity": save({"a": torch.tensor([1.0, float("-inf")], dtype=torch.bfloat16)}, {"notes": "{}"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_line_that_names_it(name, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(checkpoint.ModelFileError, match=r"model\.safetensors") as caught:
            checkpoint.read(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert isinstance(caught.value, InputError) and isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert checkpoint.Checkpoint(path, "mark").load() is None  # a training begins anew


def test_a_tensor_that_is_not_finite_is_named(tmp_path):
    for name in ("NaN", "infinity"):
        (tmp_path / "m.safetensors").write_bytes(HOSTILE[name])
        with pytest.raises(
            checkpoint.ModelFileError, match=r"m\.safetensors: tensor 'a': 1 of 2 values are not finite"
        ):
            checkpoint.read(tmp_path / "m.safetensors")


def test_folders_missing_files_and_good_ones(tmp_path):
    with pytest.raises(checkpoint.ModelFileError, match="directory"):
        checkpoint.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        checkpoint.read(tmp_path / "none")
    path = checkpoint.write(tmp_path / "m", {"a": torch.ones(3), "n": torch.tensor(7)}, one=[1, None])
    notes, tensors = checkpoint.read(path)
    assert notes == {"one": [1, None]} and tensors["a"].tolist() == [1] * 3 and tensors["n"] == 7


def test_weights_must_fit_and_say_which_does_not(tmp_path):
    state = SmallCNN().state_dict()
    first, file = next(iter(state)), tmp_path / "w.safetensors"
    for change, said in {
        "another type": ({first: state[first].int()}, "is of torch.int32, not torch.float32"),
        "truth": ({first: state[first] > 0}, "is of torch.bool"),
        "another shape": ({first: state[first][:1]}, "stem.0.weight"),
        "one more": ({"more": torch.ones(1)}, "'more' is unknown"),
        "NaN": ({first: state[first] * float("nan")}, f"tensor '{first}': "),
        "too large": ({first: torch.full_like(state[first], 1e300, dtype=torch.float64)}, "values beyond those of"),
    }.values():
        save_file({**state, **change}, file)
        with pytest.raises(checkpoint.ModelFileError, match=said):
            _load_weights(SmallCNN(), file, "small_cnn", "pretrained")
    save_file({name: tensor for name, tensor in state.items() if name != first}, file)
    with pytest.raises(checkpoint.ModelFileError, match=f"'{first}' is missing"):
        _load_weights(SmallCNN(), file, "small_cnn", "pretrained")
    model = SmallCNN()
    for kind in (torch.float64, torch.float32, torch.float16):  # halves are how some networks are published
        save_file({n: t.to(kind) if t.is_floating_point() else t for n, t in state.items()}, file)
        _load_weights(model, file, "small_cnn", "pretrained")
        assert torch.allclose(model.state_dict()[first], state[first], atol=1e-3)


def test_an_extractor_of_another_layout_is_one_line(tmp_path):
    file = tmp_path / "e.safetensors"
    checkpoint.write(file, nn.Linear(2, 2).state_dict(), extractor="small_cnn")
    with pytest.raises(checkpoint.ModelFileError, match=r"e\.safetensors: these weights are of another architecture"):
        Extractor.load(file)
    checkpoint.write(file, {}, more=1)
    with pytest.raises(checkpoint.ModelFileError, match="holds no extractor"):
        Extractor.load(file)


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        ({}, "holds no filter"),
        ({"filter": "Another", "settings": {}}, "holds no filter"),
        ({"filter": ["ConvDenoiser"], "settings": {}}, "holds no filter"),
        ({"filter": "ConvDenoiser", "settings": {"more": 1}}, "holds no ConvDenoiser"),
        ({"filter": "ConvDenoiser", "settings": 7}, "holds no filter"),
        (
            {"filter": "ConvDenoiser", "settings": {"channels": 8, "width": 200_000, "depth": 1}},
            "another architecture",
        ),
        (
            {"filter": "ConvDenoiser", "settings": {"channels": 8, "width": 8, "depth": 10**9}},
            "depth 1000000000, with",
        ),
        ({"filter": "ConvDenoiser", "settings": {"channels": 8, "width": 8, "depth": "1"}}, "depth 1, with"),
        ({"filter": "ConvDenoiser", "settings": {"channels": 8, "width": -8, "depth": 1}}, "holds no ConvDenoiser"),
    ],
)
def test_a_filter_with_hostile_notes_is_one_line(notes, said, tmp_path):
    file = checkpoint.write(tmp_path / "f.safetensors", {"a": torch.ones(1)}, **notes)
    with pytest.raises(checkpoint.ModelFileError, match=f"f.safetensors.*{said}"):
        load_filter(file)


def test_packed_models_are_a_quarter_as_large_and_off_by_half_a_step_at_most(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "matrix": torch.randn(64, 300) * torch.logspace(-6, 3, 64)[:, None],
        "kernel": torch.randn(32, 16, 3, 3),
        "zeros": torch.zeros(40, 40),
        "bias": torch.randn(5000),
        "small": torch.randn(3, 3),
        "count": torch.arange(2000).view(40, 50),
    }
    whole, packed = tmp_path / "whole.safetensors", tmp_path / "packed.safetensors"
    checkpoint.write(whole, {k: tensors[k] for k in ("matrix", "kernel")})
    checkpoint.pack(whole, packed)
    assert packed.stat().st_size < 0.3 * whole.stat().st_size
    checkpoint.write(whole, tensors, kind="toy")
    checkpoint.pack(whole, packed)
    notes, seen = checkpoint.read(packed)
    assert notes == {"kind": "toy"} and list(seen) == sorted(tensors) and checkpoint.read(whole)[0] == notes
    for name, tensor in tensors.items():
        off = (seen[name].double() - tensor.double()).abs()
        if name in ("matrix", "kernel"):
            largest = tensor.flatten(1).abs().amax(1).view(-1, *[1] * (tensor.ndim - 1))
            assert (off <= 1.0001 * largest / 254).all() and off.any()
        else:
            assert torch.equal(seen[name], tensor)
    checkpoint.pack(packed, whole)  # packed again, it stays what it is, but for rounding
    for name, tensor in checkpoint.read(whole)[1].items():
        torch.testing.assert_close(tensor, seen[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": torch.ones(4, 4, dtype=torch.int8), "a/scales": torch.ones(3)},
        {"a": torch.ones(4, 4, dtype=torch.int8), "a/scales": torch.ones(4, 1)},
        {"a": torch.ones(4, 4), "a/scales": torch.ones(4)},
        {"a": torch.ones(4, dtype=torch.int8), "a/scales": torch.ones(4)},
    ],
)
def test_scales_that_fit_no_tensor_are_a_line(tmp_path, tensors):
    file = checkpoint.write(tmp_path / "m.safetensors", tensors)
    with pytest.raises(checkpoint.ModelFileError, match="tensor 'a': its scales"):
        checkpoint.read(file)


def test_a_packed_value_that_is_too_large_is_refused(tmp_path):
    huge = {"weight": torch.full((2, 2), 127, dtype=torch.int8), "weight/scales": torch.full((2,), 3e38)}
    file = checkpoint.write(tmp_path / "m.safetensors", huge | {"bias": torch.zeros(2)})
    with pytest.raises(checkpoint.ModelFileError, match=r"'weight' has values beyond those of torch\.float32"):
        checkpoint.fit(nn.Linear(2, 2), checkpoint.read(file)[1], file, "Linear")
