# `make repro` runs the study, `make test` the tests; both make the environment first. `make help` lists the rest.
SHELL := /bin/bash
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.installed
export PATH := $(BIN):$(PATH)

REQUIREMENTS := requirements.txt requirements-test.txt
UV_VERSION := 0.13.9
# without their dependencies: torchattacks pins an old `requests`, and both find torch and numpy in the environment
PEERS := torchattacks==3.5.1 adversarial-robustness-toolbox==1.20.1

.PHONY: help env repro test smoke lab check lint strip profile lock readme catalogue student peers clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):[^#]*## /\1\t/' | expand -t 12

env: $(STAMP)  ## the environment, in .venv, from the pinned requirements

$(STAMP): $(REQUIREMENTS) pyproject.toml
	@set -euo pipefail; \
	if ! $(PY) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
	  for python in python3.11 python3 python; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$${found:-}" ]; then echo "Python 3.11 is needed, as python3.11 or python3 on the PATH." >&2; exit 1; fi; \
	  $$found -m venv --clear $(VENV); \
	fi; \
	if uv --version >/dev/null 2>&1; then uv=uv; else \
	  $(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip --upgrade >/dev/null; \
	  $(PY) -m pip install --quiet uv==$(UV_VERSION); uv=$(BIN)/uv; \
	fi; \
	$$uv pip sync --python $(PY) --require-hashes $(REQUIREMENTS); \
	$$uv pip install --python $(PY) --no-deps --editable .; \
	touch $@

repro: env strip  ## run every stage whose code, parameters or inputs changed; then the README's tables
	dvc repro
	$(PY) -m vars_core.pipeline.readme --timings

test: env  ## every test
	$(PY) -m pytest

peers: env  ## parity with ART's and torchattacks' attacks, installed apart, in scratch/peers
	@mkdir -p scratch
	uv pip install --quiet --python $(PY) --no-deps --target scratch/peers $(PEERS)
	@PYTHONPATH=scratch/peers $(PY) -c 'import art, torchattacks'  # else the tests would be skipped
	PYTHONPATH=scratch/peers $(PY) -m pytest -n 0 -rs tests/attacks/test_peers.py

smoke: env  ## all notebooks on a toy catalogue, in a temporary folder
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && $(PY) -m vars_core study smoke --profile smoke --work "$$work"

lab: env  ## JupyterLab on the notebooks; what they write goes to scratch/
	jupyter lab notebooks

check: env  ## are the committed reports those of the committed code?
	@$(PY) -m vars_core check

lint: env  ## ruff, and no outputs in notebooks/
	ruff check .
	ruff format --check .
	$(PY) -m vars_core.pipeline.notebooks strip --check notebooks/*.ipynb

strip: env  ## remove outputs from notebooks/, in place
	@$(PY) -m vars_core.pipeline.notebooks strip notebooks/*.ipynb

profile:  ## make profile P=gpu: params.yaml becomes profiles/gpu.yaml
	@[ -f "profiles/$(P).yaml" ] || { echo "P is one of: $(basename $(notdir $(wildcard profiles/*.yaml)))" >&2; exit 1; }
	cp "profiles/$(P).yaml" params.yaml

lock: env  ## compile the requirements files from pyproject.toml
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --universal --generate-hashes \
	  --python-version 3.11 --no-emit-index-url --no-annotate -q -o requirements.txt
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --group test -c requirements.txt --universal --generate-hashes \
	  --python-version 3.11 --no-emit-index-url --no-annotate -q -o requirements-test.txt

readme: env  ## the README's tables from the reports
	$(PY) -m vars_core.pipeline.readme

catalogue: env  ## make catalogue NAME=… DATA=folder [WEIGHTS=file] [EXTRACTOR=name] [PROFILE=laptop] [SET=section.parameter=value]
	@[ -n "$(NAME)" ] && [ -n "$(DATA)" ] || { echo "NAME= and DATA= are needed" >&2; exit 1; }
	$(PY) -m vars_core study "$(NAME)" --data "$(DATA)" --profile "$(or $(PROFILE),laptop)" --publish \
	  $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(EXTRACTOR),--extractor "$(EXTRACTOR)") \
	  $(foreach change,$(SET),--set "$(change)")

student: env  ## copies of the notebooks without solutions, in scratch/student
	@$(PY) -m vars_core.pipeline.notebooks student notebooks/*.ipynb --to scratch/student

clean:  ## remove scratch/ and caches; data, models and reports stay
	rm -rf scratch .pytest_cache .ruff_cache .hypothesis
	find vars_core tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
