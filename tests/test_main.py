"""The command `vars`: help for everybody, examples that parse, errors in a line."""

import shlex
import subprocess
import sys

import pytest
from conftest import ROOT

from vars_core.__main__ import CONVERTERS, main, parser
from vars_core.data import convert

COMMANDS = [
    ["check"],
    ["compare"],
    ["convert"],
    ["screen"],
    ["study"],
    ["stage"],
    *(["convert", kind] for kind in CONVERTERS),
]


def helped(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--help"])
    assert done.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example_that_it_understands(command, capsys):
    examples = helped(capsys, *command).split("for example:\n")[1].strip().splitlines()
    for line in examples:
        words = shlex.split(line.split("vars_core ")[-1].removeprefix("  ").strip().removeprefix("vars "))
        assert words[: len(command)] == command or command == ["convert"]
        assert callable(parser().parse_args(words).run)


def test_the_top_names_all_commands(capsys):
    said = helped(capsys)
    assert all(f"  {command[0]} " in said for command in COMMANDS)


def test_help_imports_no_room_and_no_library():
    code = """
import sys
from vars_core.__main__ import main
try:
    main(["convert", "hm", "--help"])
except SystemExit:
    print({"torch", "numpy", "pandas", "dvc", "papermill"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_every_converter_takes_what_the_command_gives():
    for kind, (sources, *_) in CONVERTERS.items():
        names = getattr(convert, kind).__code__.co_varnames
        assert [*sources, "out"] == list(names[: len(sources) + 1])


def test_module_and_command_are_one(tmp_path):
    line = [sys.executable, "-m", "vars_core", "check", str(tmp_path / "nowhere")]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "nowhere: no such folder; a catalogue is a folder" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stage", "09_nothing"], "notebooks/09_nothing.ipynb is missing"),
        (["check", "{here}", "--params", "{here}/none.yaml"], "none.yaml is missing"),
        (["convert", "classes", "{here}/nowhere", "{here}/out"], "nowhere: no such folder; one folder per class"),
        (["study", "a b"], "a study's name has letters, digits, -, . and _; got 'a b'"),
        (["screen", "{here}/nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_done_is_a_line(arguments, said, tmp_path, capsys):
    assert main([a.format(here=tmp_path) for a in arguments]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("command", [["stage", "01_data"], ["check"], ["study", "x"]], ids=" ".join)
def test_another_python_is_a_line(command):
    line = [sys.executable, "-S", "-m", "vars_core", *command]  # -S: without installed packages
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "this Python isn't the study's" in done.stderr and "activate" in done.stderr


@pytest.mark.parametrize("option", ["--profile", "--params"])
def test_what_a_catalogue_is_checked_with_needs_one(option, capsys):
    assert main(["check", option, "smoke"]) == 1
    assert "name its folder" in capsys.readouterr().err
