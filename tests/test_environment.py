"""One requirements file is the single truth of the environment."""

import re
import subprocess
import tomllib

from conftest import ROOT
from hypothesis import settings
from packaging.requirements import Requirement
from ruamel.yaml import YAML

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(file):
    found = re.findall(r"(?m)^([A-Za-z0-9._-]+)==([^ ;\\]+)(.*(?:\n\s+--hash.*)*)", (ROOT / file).read_text())
    return {normal(name): (version, rest) for name, version, rest in found}


def test_conda_installs_the_file_that_make_installs():
    environment = YAML(typ="safe", pure=True).load(ROOT / "environment.yml")
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-r requirements.txt"]
    assert "python=3.11" in environment["dependencies"]
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    makefile = (ROOT / "Makefile").read_text()
    assert "REQUIREMENTS := requirements.txt requirements-test.txt" in makefile
    script = (ROOT / ".ci/environment").read_text()
    assert ".ci/environment $(REQUIREMENTS)" in makefile and '--require-hashes ${moved:+--reinstall} "$@"' in script
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in script


def test_every_requirement_has_a_hash_and_no_index():
    for file in ("requirements.txt", "requirements-test.txt"):
        text = (ROOT / file).read_text()
        # no address, and no option but hashes: an index or a folder of wheels would be one
        assert "://" not in text and set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", text)) == {"--hash"}, file
        for name, (_, rest) in pinned(file).items():
            assert "--hash=sha256:" in rest, f"{file}: {name}"


def test_the_files_cover_the_direct_dependencies():
    wanted = {"requirements.txt": PROJECT["project"]["dependencies"]}
    wanted["requirements-test.txt"] = PROJECT["dependency-groups"]["test"]
    for file, dependencies in wanted.items():
        found = pinned(file)
        for dependency in dependencies:
            required = Requirement(dependency)
            name = normal(required.name)
            assert name in found, f"{file}: {name} is missing; run `make lock`"
            assert found[name][0] in required.specifier, f"{file}: {dependency}"


def test_shared_packages_have_one_version():
    main, test = pinned("requirements.txt"), pinned("requirements-test.txt")
    for name in main.keys() & test.keys():
        assert main[name][0] == test[name][0], name


def test_make_knows_its_targets():
    targets = re.findall(r"(?m)^([a-z]+):.*## ", (ROOT / "Makefile").read_text())
    assert {"env", "repro", "test", "smoke", "lab", "check"} <= set(targets)
    for target in targets:
        done = subprocess.run(
            ["make", "-n", target, "P=smoke", "NAME=x", "DATA=y"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_the_profile_command_refuses_an_unknown_profile():
    done = subprocess.run(["make", "profile", "P=huge"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "class gpu laptop real-gpu real smoke" in done.stderr


def test_properties_draw_the_same_examples_in_the_suite_and_others_in_fuzz():
    suite, fuzz = settings.get_profile("suite"), settings.get_profile("fuzz")
    assert suite.derandomize and not fuzz.derandomize and suite.database is fuzz.database is None
    assert fuzz.max_examples > suite.max_examples
    assert "timeout 60 make fuzz ROUNDS=1 ||" in (ROOT / ".ci/run").read_text()
