# `make demo` and `make test` are all that you need. If .venv is missing or out of date, they first make it with the
# locked versions. Pip's configuration (pip.conf, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, ...) decides which index the
# packages come from.

PYTHON ?= python3
EXPERIMENT ?= demo
CORES ?= all
ARGS ?=

# Nothing from outside .venv may influence what is measured.
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME
# Bytecode is kept. Otherwise every process compiles torch again, which takes longer than most of its actual work.
unexport PYTHONDONTWRITEBYTECODE

# Tests run in two processes; ARGS="-n 0" runs them in one, "-n 8" in eight.
test test-all test-cluster: export PYTEST_ADDOPTS := -n 2 --dist worksteal

# Tools are always called as `python -m`: the first line of a console script breaks if the path contains a space.
VENV := .venv/bin/python
# --no-compile: compiling everything at once takes as long as the rest of the installation. Python compiles a module
# when it is first imported.
PIP := $(VENV) -m pip install --no-input --disable-pip-version-check --no-compile --constraint constraints.txt
UV = build/uv/bin/python -m uv pip compile --universal --python-version 3.11 --no-annotate --quiet pyproject.toml

# .venv is complete when it holds its stamp, which is written last. The stamp's name is a checksum of what .venv depends
# on: the requirements, the lock file, the interpreter and the folder.
STAMP := .venv/made-$(shell { cat pyproject.toml constraints.txt; pwd; "$(PYTHON)" -VV; } 2>&1 | cksum | cut -d ' ' -f 1)
OLD := Python 3.11 or newer is needed; name one: make PYTHON=python3.11 ...
ALONE := import fcntl; fcntl.flock(9, fcntl.LOCK_EX

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-cluster lab lint format docs lock clean install

help: ## list the targets
	@echo "make [PYTHON=python3.12] TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## make every table and figure on small data [EXPERIMENT=demo] [CORES=2]
	@$(VENV) scripts/demo.py "$(EXPERIMENT)" --cores "$(CORES)"

test: $(STAMP) ## run the tests [ARGS="-k norm"]
	$(VENV) -m pytest $(ARGS)

test-all: $(STAMP) ## run all tests, also the slow ones
	$(VENV) -m pytest -m "not gpu and not cluster" $(ARGS)

test-cluster: $(STAMP)-cluster ## run the tests of the cluster on a Slurm of their own [ARGS="--times 3"]
	@tests/cluster/install.sh
	$(VENV) -m pytest -m "not slow and not gpu" tests/cluster tests/test_profiles.py $(ARGS)

lab: $(STAMP) ## start JupyterLab, where analysis/*.py open as notebooks
	@$(VENV) -m jupytext_config --settings-file .venv/share/jupyter/lab/settings/overrides.json set-default-viewer python
	$(VENV) -m jupyterlab $(ARGS) analysis

lint: $(STAMP) ## check style, types and the order of imports
	$(VENV) -m ruff check
	$(VENV) -m ruff format --check
	$(VENV) -m snakefmt --check Snakefile workflow
	$(VENV) -m mypy
	$(VENV) -c 'import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())'

format: $(STAMP) ## rewrite the sources in the project's style
	$(VENV) -m ruff check --fix
	$(VENV) -m ruff format
	$(VENV) -m snakefmt Snakefile workflow

docs: $(STAMP)-docs ## build the documentation as a site, in build/site
	$(VENV) -m mkdocs build --strict

lock: ## pin the versions again after a change of pyproject.toml [ARGS=--upgrade]; uv's configuration names the index
	"$(PYTHON)" -m venv build/uv
	build/uv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"
	$(UV) --all-extras --custom-compile-command "make lock" $(ARGS) --output-file constraints.txt
	$(UV) --extra vision --extra workflow --extra test --no-deps --no-header -c constraints.txt -o build/direct.txt
	{ sed '/- pip:$$/q' environment.yml; sed 's/^/      - /' build/direct.txt; } > build/environment.yml
	mv build/environment.yml environment.yml

clean: ## remove .venv, caches and results/demo; keep data and other results
	rm -rf .venv results/demo build *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache

install: $(STAMP)

# The lock is on an open file that all processes started here share. So another make waits even for a pip whose make was
# killed, and then checks again whether anything is left to do.
$(STAMP):
	@"$(PYTHON)" -c 'import sys; sys.exit("$(OLD)" if sys.version_info < (3, 11) else 0)'
	@exec 9>.venv.lock; "$(PYTHON)" -c '$(ALONE) | fcntl.LOCK_NB)' 2>/dev/null || { \
	    echo "waiting for another installation"; "$(PYTHON)" -c '$(ALONE))' || exit; }; \
	test -e $@ && exit; echo "making .venv with the locked packages (details: .venv/install.log)"; \
	rm -f .venv/made-* && "$(PYTHON)" -m venv --clear .venv || exit; \
	$(PIP) --editable '.[vision,workflow,test]' >.venv/install.log 2>&1 && touch $@ || { \
	    grep '^ERROR' .venv/install.log; echo "installation failed (details: .venv/install.log)"; exit 1; }

$(STAMP)-docs $(STAMP)-cluster: $(STAMP)-%: $(STAMP)
	@echo "adding what [$*] needs"
	@$(PIP) --editable '.[$*]' >>.venv/install.log 2>&1 || { tail -n 3 .venv/install.log; exit 1; }
	@touch $@
