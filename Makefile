# `make demo` and `make test` are all that is needed; each first makes .venv, with the locked versions, if need be.
# Which index the packages come from is pip's configuration (pip.conf, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, ...).

PYTHON ?= python3
EXPERIMENT ?= demo
CORES ?=
ARGS ?=

# Nothing from outside .venv may slip into what is measured.
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME
# Bytecode is kept, or every process compiles torch anew, which takes longer than most of what it then does.
unexport PYTHONDONTWRITEBYTECODE

# Tests run in two processes; ARGS="-n 0" runs them in one, "-n 8" in eight.
test test-all: export PYTEST_ADDOPTS := -n 2 --dist worksteal

# Always called as `python -m`: a console script's first line breaks where the path holds a space.
VENV := .venv/bin/python
STARTED := $(shell date +%s)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lab lint format lock clean install

help: ## say what can be made
	@echo "make [PYTHON=python3.12] TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

demo: install ## every table and figure on small data [EXPERIMENT=demo] [CORES=2]
	@$(VENV) scripts/demo.py "$(EXPERIMENT)" --since $(STARTED) $(if $(CORES),--cores "$(CORES)")

test: install ## the tests [ARGS="-k norm"]
	$(VENV) -m pytest $(ARGS)

test-all: install ## the tests, the slow proofs too
	$(VENV) -m pytest -m "not gpu" $(ARGS)

lab: install ## JupyterLab, in which analysis/*.py open as notebooks
	@$(VENV) -m jupytext_config --settings-file .venv/share/jupyter/lab/settings/overrides.json set-default-viewer python
	$(VENV) -m jupyterlab $(ARGS) analysis

lint: install ## check style and types
	$(VENV) -m ruff check
	$(VENV) -m ruff format --check
	$(VENV) -m snakefmt --check Snakefile workflow
	$(VENV) -m mypy

format: install ## rewrite the sources in the project's style
	$(VENV) -m ruff check --fix
	$(VENV) -m ruff format
	$(VENV) -m snakefmt Snakefile workflow

lock: ## pin the versions anew after a change of pyproject.toml [PYTHON=python3.11] [ARGS=--upgrade]
	"$(PYTHON)" scripts/lock.py $(ARGS)

clean: ## remove .venv, caches and results/demo; data and other results stay
	rm -rf .venv results/demo build *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache

install:
	@"$(PYTHON)" scripts/install.py
