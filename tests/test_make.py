"""`make` with stand-ins for Python and uv: what is called, where, and that nothing of the user's is touched."""

import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from conftest import ROOT

NOTED = r"""#!/bin/bash
printf '%s\x1f' "$(basename "$0")" "$@" >> "$CALLS"; printf '\n' >> "$CALLS"
"""
PYTHON = r"""
case "$*" in
  *version_info*) [ ! -e "$OTHER_VERSION" ] && [ ! -e "$0.other" ]; exit ;;
  "-m venv"*) [ -z "$VENV_FAILS" ] || { mkdir -p .venv/lib/half; exit 1; }
    mkdir -p .venv/bin .venv/lib/python3.11/site-packages
    cp "$0" .venv/bin/python; echo "$PWD/.venv" > .venv/bin/activate ;;
  *"pip install --quiet uv=="*) echo "$UV_SOURCE" > .venv/bin/uv; chmod +x .venv/bin/uv ;;
  *" study "*) exit "${STUDY:-0}" ;;
esac
"""
UV = r"""
case "$*" in
  --version) ;;
  "python find"*) exit 2 ;;
  "cache dir") echo "$CACHE" ;;
  *) [ -z "$NETWORK_FAILS" ] || [ -n "$UV_OFFLINE" ] && [ "$NETWORK_FAILS" != always ] ;;
esac
"""
FOREIGN = {"pyvenv.cfg": "home = /usr/bin\n", "bin/python": "#!/bin/false\n", "work.txt": "of years\n"}
EMPTY = (
    "requirements.txt",
    "requirements-test.txt",
    "notebooks/01_data.ipynb",
    "vars_core/__init__.py",
    "tests/test_make.py",
)
PLAIN, ODD = "clone", """a 'b' "c" $HOME `id` #;&%20 (é目) [x]*?$nope!~=,^|<>"""


@pytest.fixture
def machine(tmp_path):
    """A folder with the Makefile, and a PATH with a Python 3.11 and uv that only note how they are called."""
    tools = tmp_path / "tools"
    tools.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("UV_", "MAKE"))}
    environment |= {
        "PATH": f"{tools}:{environment['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "UV_SOURCE": NOTED + UV,
    }
    environment |= {"OTHER_VERSION": str(tmp_path / "other"), "CACHE": str(tmp_path / "cache")}
    for name, source in (*((p, PYTHON) for p in ("python3.11", "python3", "python")), ("uv", UV)):
        (tools / name).write_text(NOTED + source)
        (tools / name).chmod(0o755)

    def clone(name=PLAIN):
        folder = tmp_path / "at" / name
        for file in ("Makefile", ".ci/environment", "pyproject.toml", "profiles/smoke.yaml"):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
        write(folder, dict.fromkeys(EMPTY, ""))
        return folder

    def make(folder, *arguments, **more):
        """The exit status, the lines on stderr that aren't make's own, what was called with which arguments."""
        (tmp_path / "calls").write_text("")
        done = subprocess.run(
            ["make", *arguments], cwd=folder, env=environment | more, capture_output=True, text=True
        )
        calls = [line.split("\x1f")[:-1] for line in (tmp_path / "calls").read_text().splitlines()]
        said = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
        return SimpleNamespace(status=done.returncode, said=said, out=done.stdout, calls=calls)

    return SimpleNamespace(clone=clone, make=make, tools=tools, other=tmp_path / "other", at=tmp_path / "at")


def content(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    return {p.relative_to(folder).as_posix(): p.readlink() if p.is_symlink() else p.read_text() for p in files}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def of(calls, *words):
    return [call for call in calls if all(word in call for word in words)]


def remade(calls):
    return bool(of(calls, "venv"))


def test_an_environment_is_made_once(machine):
    clone = machine.clone()
    first = machine.make(clone, "env")
    assert first.status == 0 and not first.said
    assert of(first.calls, "venv") == [["python3.11", "-m", "venv", ".venv"]]
    (sync,) = of(first.calls, "sync")
    assert sync[1:] == ["pip", "sync", "--python", ".venv/bin/python", "--compile-bytecode", "--require-hashes",
                        "requirements.txt", "requirements-test.txt"]  # fmt: skip
    assert of(first.calls, "--editable") and not of(first.calls, "--reinstall")
    for file in clone.iterdir():
        os.utime(file, (2e9, 2e9))  # as git does when it switches branches and comes back
    second = machine.make(clone, "env")
    assert second.status == 0 and not of(second.calls, "uv") and not remade(second.calls)


@pytest.mark.parametrize("kind", ["link", "relative link", "dangling link", "file", "environment", "notes", "hidden"])
@pytest.mark.parametrize("name", [PLAIN, ODD])
def test_what_is_not_ours_is_left_alone(machine, kind, name):
    clone, theirs = machine.clone(name), machine.at / "theirs"
    write(theirs, FOREIGN)
    place = clone / ".venv"
    if kind == "link":
        place.symlink_to(theirs)
    elif kind == "relative link":
        place.symlink_to("../theirs")
    elif kind == "dangling link":
        place.symlink_to("nowhere")
    elif kind == "file":
        place.write_text("a file")
    else:
        write(place, {"environment": FOREIGN, "notes": {"work.txt": "of years"}, "hidden": {".work": "x"}}[kind])
    before = content(machine.at)
    for target in ("env", "test", "repro"):
        done = machine.make(clone, target)
        assert done.status and len(done.said) == 1, done.said
        assert done.said[0].startswith(".venv ") and "left alone" in done.said[0] and "run this again" in done.said[0]
        assert not done.calls
    assert content(machine.at) == before


def test_a_link_to_an_environment_of_ours_is_refused_too(machine):
    other, clone = machine.clone("other"), machine.clone()
    machine.make(other, "env")
    before = content(other)
    (clone / ".venv").symlink_to(other / ".venv")
    assert "symbolic link" in machine.make(clone, "env").said[0] and content(other) == before


def test_an_empty_folder_is_used(machine):
    clone = machine.clone()
    (clone / ".venv").mkdir()
    assert machine.make(clone, "env").status == 0 and (clone / ".venv/bin/python").is_file()


def test_what_was_interrupted_is_finished(machine):
    clone = machine.clone()
    failed = machine.make(clone, "env", VENV_FAILS="1", NETWORK_FAILS="always")
    assert failed.status and (clone / ".venv/lib/half").is_dir()
    failed = machine.make(clone, "env", NETWORK_FAILS="always")
    assert failed.status and remade(failed.calls) and not (clone / ".venv/lib/half").exists()
    assert "package registry" in failed.said[-1]
    done = machine.make(clone, "env")
    assert done.status == 0 and of(done.calls, "sync") and not remade(done.calls)
    assert not of(machine.make(clone, "env").calls, "uv")


def test_without_a_network_the_cache_of_uv_may_do(machine):
    done = machine.make(machine.clone(), "env", NETWORK_FAILS="1")
    assert done.status == 0 and len(of(done.calls, "sync")) == 2


def test_the_environment_of_an_earlier_makefile_is_taken_over(machine):
    clone = machine.clone()
    machine.make(clone, "env")
    (clone / ".venv/.vars-environment").unlink()
    write(clone / ".venv", {".installed": ""})
    done = machine.make(clone, "env")
    assert done.status == 0 and of(done.calls, "sync") and not remade(done.calls)
    assert not of(done.calls, "--reinstall") and not (clone / ".venv/.installed").exists()
    write(clone / ".venv", {".installed": ""})  # an older commit was checked out, and installed its own requirements
    assert of(machine.make(clone, "env").calls, "sync")


@pytest.mark.parametrize("legacy", [False, True])
def test_in_a_folder_that_moved_all_is_installed_anew(machine, legacy):
    machine.make(machine.clone(), "env")
    if legacy:
        (machine.at / PLAIN / ".venv/.vars-environment").unlink()
        write(machine.at / PLAIN / ".venv", {".installed": ""})
    clone = (machine.at / PLAIN).rename(machine.at / ODD)
    failed = machine.make(clone, "env", NETWORK_FAILS="always")
    assert failed.status and (clone / ".venv/bin/python").is_file()
    done = machine.make(clone, "env")
    assert done.status == 0 and len(of(done.calls, "--reinstall")) == 2
    assert str(clone) in (clone / ".venv/bin/activate").read_text()
    assert not of(machine.make(clone, "env").calls, "uv")


def test_requirements_that_changed_are_installed(machine):
    clone = machine.clone()
    machine.make(clone, "env")
    write(clone, {"requirements-test.txt": "pytest==9\n"})
    done = machine.make(clone, "env")
    assert of(done.calls, "sync") and not remade(done.calls) and not of(done.calls, "--reinstall")


@pytest.mark.parametrize("gone", ["removed", "dangling", "other version"])
def test_an_environment_of_ours_whose_python_is_gone_is_made_anew(machine, gone):
    clone = machine.clone()
    machine.make(clone, "env")
    python = clone / ".venv/bin/python"
    if gone == "other version":
        write(clone, {".venv/bin/python.other": ""})
    else:
        python.unlink()
    if gone == "dangling":
        python.symlink_to("/nowhere/python3.11")
    write(machine.at, {"theirs/work.txt": "of years"})
    (clone / ".venv/link").symlink_to(machine.at / "theirs")
    done = machine.make(clone, "env")
    assert done.status == 0 and remade(done.calls) and not python.is_symlink()
    assert content(machine.at / "theirs") == {"work.txt": "of years"}


def test_without_a_python_that_does_one_line_says_so(machine):
    machine.other.touch()
    clone = machine.clone()
    done = machine.make(clone, "env")
    assert done.status and len(done.said) == 1 and "Python 3.11, 3.12 or 3.13 is needed" in done.said[0]
    assert not (clone / ".venv").exists()


def test_without_uv_pip_gets_the_pinned_one(machine):
    (machine.tools / "uv").write_text("#!/bin/bash\nexit 127\n")
    done = machine.make(machine.clone(), "env")
    assert done.status == 0, done.said
    assert any(word.startswith("uv==") for call in done.calls for word in call) and of(done.calls, "sync")


def test_a_cache_that_cannot_be_written_is_not_used(machine, tmp_path):
    uv = machine.tools / "uv"
    uv.write_text(uv.read_text() + '\n[ "$2" != sync ] || echo "no cache: $UV_NO_CACHE"')
    (tmp_path / "file").touch()
    assert "no cache: 1" in machine.make(machine.clone(), "env", CACHE=str(tmp_path / "file/cache")).out


@pytest.mark.parametrize("name", ["a:b", "a\\b", "a\nb", "a{b", "a}b"])
def test_a_path_that_tools_cannot_handle_is_a_line(machine, name):
    clone = machine.clone(name)
    done = machine.make(clone, "env")
    assert done.status and len(done.said) == 1 and "rename it" in done.said[0]
    assert not (clone / ".venv").exists()


TARGETS = {
    "test": ["-m", "pytest"],
    "repro": ["-m", "dvc", "repro"],
    "lab": ["-m", "jupyterlab", "scratch/lab", *(["--allow-root"] if os.getuid() == 0 else [])],
    "check": ["-m", "vars_core", "check"],
    "lint": ["-m", "ruff", "check", "."],
    "strip": ["-m", "vars_core.pipeline.notebooks", "strip"],
    "student": [
        "-m",
        "vars_core.pipeline.notebooks",
        "student",
        "--to",
        "scratch/student",
    ],
    "readme": ["-m", "vars_core.pipeline.readme"],
    "timings": ["-m", "vars_core.pipeline.readme", "--timings"],
    "compare": ["-m", "vars_core", "compare"],
    "class": ["-m", "pytest", "-m", "lesson", "-n", "0", "-rs", "tests/test_class.py"],
    "site": ["-m", "sphinx", "-q", "-b", "html", "scratch/site/source", "scratch/site/html"],
    "slides": ["-m", "sphinx", "-q", "-b", "revealjs", "scratch/slides/source", "scratch/slides/html"],
}


@pytest.mark.parametrize("name", [ODD, "-rf", " a ", "$(touch x)", "..."])
def test_every_target_works_in_a_folder_of_any_name(machine, name):
    clone = machine.clone(name)
    for target, call in TARGETS.items():
        done = machine.make(clone, target)
        assert done.status == 0, (target, done.said)
        assert ["python", *call] in done.calls, target
    for target in ("smoke", "lock", "peers", "fuzz", "clean"):
        done = machine.make(clone, target)
        assert done.status == 0, (target, done.said)
    assert machine.make(clone, "profile", "P=smoke").status == 0 and (clone / "params.yaml").is_file()
    assert {p.name for p in machine.at.iterdir()} == {name} and not (clone / "x").exists()


def test_what_a_run_is_given_arrives_as_it_was_written(machine):
    clone, data, weights = machine.clone(), f"/data/{ODD}\\", "-w $x.safetensors"
    given = [
        f"DATA={data}",
        f"WEIGHTS={weights}",
        "EXTRACTOR=net",
        "PROFILE=real",
        "SET=attacks.epsilons=[1,2] seed=3",
    ]
    done = machine.make(clone, "catalogue", "NAME=shop", *given)
    assert done.status == 0, done.said
    (call,) = of(done.calls, "study")
    assert call[4:] == ["shop", f"--data={data}", "--profile=real", f"--weights={weights}",
                        "--extractor=net", "--set=attacks.epsilons=[1,2]", "--set=seed=3", "--publish"]  # fmt: skip
    (call,) = of(machine.make(clone, "compare", f"RUN={data}", f"WITH={weights}").calls, "compare")
    assert call[4:] == [data, f"--against={weights}"]


def test_a_catalogue_is_published_but_for_the_profile_smoke(machine):
    clone, given = machine.clone(), ["NAME=shop", "DATA=/data"]
    done = machine.make(clone, "catalogue", *given)
    assert of(done.calls, "study", "--publish", "--profile=laptop") and "Not published" not in done.out
    done = machine.make(clone, "catalogue", "PROFILE=smoke", *given)
    assert of(done.calls, "study", "--profile=smoke") and not of(done.calls, "--publish")
    assert "Not published" in done.out and "scratch/studies/shop" in done.out
    failed = machine.make(clone, "catalogue", "PROFILE=smoke", *given, STUDY="1")
    assert failed.status and "Not published" not in failed.out
    assert machine.make(clone, "catalogue", *given, STUDY="1").status
    assert machine.make(clone, "catalogue", "NAME=shop").said == ["NAME= and DATA= are needed"]


def test_random_properties_say_their_seed(machine):
    clone = machine.clone()
    done = machine.make(clone, "fuzz", "ROUNDS=2")
    (first, second), seeds = of(done.calls, "pytest"), [line.split("SEED=")[1] for line in done.out.splitlines()]
    assert [call[-1] for call in (first, second)] == [f"--hypothesis-seed={seed}" for seed in seeds]
    assert first[1:-1] == ["-m", "pytest", "-q", "-m", "hypothesis", "--hypothesis-profile=fuzz"]
    assert of(machine.make(clone, "fuzz", "ROUNDS=1", "SEED=7").calls, "--hypothesis-seed=7")
