"""Seals: what a stage wrote is what a later notebook reads, or the file is named."""

import shutil
import subprocess

import pytest

from vars_core import seal


@pytest.fixture
def sealed(tmp_path):
    folder = tmp_path / "models" / "defence"
    (folder / "contrastive").mkdir(parents=True)
    (folder / "a b.npy").write_bytes(bytes(range(256)))
    (folder / "contrastive" / "net.safetensors").write_bytes(b"weights")
    seal.put(folder)
    return folder


def test_a_seal_holds_sums_that_coreutils_check(sealed):
    text = (sealed / seal.NAME).read_text()
    assert [line.split("  ")[1] for line in text.splitlines()] == ["a b.npy", "contrastive/net.safetensors"]
    assert seal.fault(sealed) is None
    seal.put(sealed)
    assert (sealed / seal.NAME).read_text() == text
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--quiet", "-c", seal.NAME], cwd=sealed, check=True)


def flip(folder):
    content = bytearray((folder / "a b.npy").read_bytes())
    content[100] ^= 1
    (folder / "a b.npy").write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (flip, "a b.npy is damaged: its content has changed"),
        (lambda f: (f / "a b.npy").write_bytes(b""), "a b.npy is damaged: its content has changed"),
        (lambda f: (f / "a b.npy").unlink(), "a b.npy is missing"),
        (lambda f: shutil.rmtree(f / "contrastive"), "contrastive/net.safetensors is missing"),
        (lambda f: (f / "contrastive" / "z").write_bytes(b""), "contrastive/z was added"),
        (lambda f: (f / "a b.npy").rename(f / "b.npy"), "a b.npy is missing"),
        (lambda f: (f / seal.NAME).write_text(""), "SHA256SUMS is damaged"),
        (lambda f: (f / seal.NAME).write_bytes(b"\xff\xfe"), "SHA256SUMS is damaged"),
        (lambda f: (f / seal.NAME).write_text("nonsense\n"), "SHA256SUMS is damaged"),
    ],
)
def test_what_changed_is_named(sealed, harm, said):
    harm(sealed)
    assert seal.fault(sealed) == said


def test_what_systems_leave_in_folders_is_no_change(sealed):
    (sealed / ".DS_Store").write_bytes(b"x")
    (sealed / "contrastive" / ".ipynb_checkpoints").mkdir()
    (sealed / "contrastive" / ".ipynb_checkpoints" / "a").write_bytes(b"x")
    assert seal.fault(sealed) is None


def test_without_a_seal_nothing_is_compared(sealed):
    (sealed / seal.NAME).unlink()
    flip(sealed)
    assert seal.fault(sealed) is None and seal.fault(sealed / "nowhere") is None
