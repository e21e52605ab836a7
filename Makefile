# Everything that a person does here. `make help` lists it.
# Needs Python 3.11+ and make; the rest is installed into .venv.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PROTOS := $(shell find protos -name '*.proto') protos/generate.py
PIP    := $(BIN)/python -m pip --disable-pip-version-check
STUBS  := clients/tidemill/v1/__init__.py

.DEFAULT_GOAL := help
.PHONY: help setup protos check lint test fault bench run demo clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# What runs: the program as users install it. The build makes the stubs, so a changed proto installs anew.
$(VENV)/.run: pyproject.toml hatch_build.py $(PROTOS)
	@echo "Installing into $(VENV): about a minute, once ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --editable '.[cpu]'
	@touch $@

# What developers need besides.
$(VENV)/.dev: pyproject.toml $(VENV)/.run
	$(PIP) install --quiet 'pip>=25.1'
	$(PIP) install --quiet --no-build-isolation --group protos hatchling editables
	$(PIP) install --quiet --no-build-isolation --group dev --editable '.[cpu,postgres,otel]'
	@touch $@

$(STUBS): $(PROTOS) | $(VENV)/.dev
	$(BIN)/python protos/generate.py
	@touch $@

setup: $(VENV)/.dev $(STUBS)  ## make the virtual environment with all that developers need

protos: $(STUBS)  ## generate the stubs of the contract (only when a proto changed)

lint: setup  ## format and lint, without the slow checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

check: lint  ## lint, strict types, import rules, buf lint, a test for every rule
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/python -m tests.rules

test: check  ## set up what is missing, then run every test
	$(BIN)/python -m pytest -n 4

fault: setup  ## the strain tests with their full counts: about an hour; TIDEMILL_FUZZ_SEED=N makes a run of the fuzz again
	TIDEMILL_STRAIN=full $(BIN)/python -m pytest tests/fault --timeout 1800

bench: setup  ## measure; prints tables and writes JSON
	$(BIN)/python -m tests.bench.engine
	$(BIN)/python -m tests.bench.store

run: $(VENV)/.run  ## set up what is missing, start the platform, ask the demo model, serve until Ctrl-C
	$(BIN)/tidemill demo --stay

demo: $(VENV)/.run  ## the same, but end after the answer
	$(BIN)/tidemill demo

clean:  ## remove what was built; data and settings stay
	rm -rf $(VENV) build dist clients/tidemill/v1 clients/tidemill/engine .mypy_cache .ruff_cache .pytest_cache
