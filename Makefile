# Everything that a person does here. `make help` lists it.
# Needs Python 3.11+ and make; the rest is installed into .venv.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PEERS  := .venv-peers
NATIVE := $(wildcard serving/tidemill_serving/native/*.[ch])
PROTOS := $(shell find protos -name '*.proto') protos/generate.py
PIP    := $(BIN)/python -m pip --disable-pip-version-check
STUBS  := clients/tidemill/v1/__init__.py

# The tests start some hundred processes of ours. Without bytecode a server compiles for 0.4 s each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup protos check lint test fault bench bench-setup run demo clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

# What runs: the program as users install it. The build makes the stubs and our kernels, so a changed proto or
# C source installs anew.
$(VENV)/.run: pyproject.toml hatch_build.py $(PROTOS) $(NATIVE)
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
	$(BIN)/python -m pytest -n 4 --dist worksteal

fault: setup  ## the strain tests with their full counts, and a summary: some hours; TIDEMILL_FUZZ_SEED=N makes a run of the fuzz again
	@mkdir -p .build
	TIDEMILL_STRAIN=full TIDEMILL_STRAIN_REPORT=.build/strain.json $(BIN)/python -m pytest tests/fault --timeout 1800
	@echo "The figures are in .build/strain.json."

bench: setup bench-setup  ## measure; prints tables and writes JSON into .build/bench
	$(BIN)/python -m tests.bench.engine --json .build/bench/engine.json --plots .build/bench/plots
	$(BIN)/python -m tests.bench.store --json .build/bench/store.json
	$(BIN)/python -m tests.bench.ledger --json .build/bench/ledger.json
	$(BIN)/python -m tests.bench.platform --json .build/bench/platform.json

# What is compared with us, each in an environment of its own, never in ours. One that cannot be installed is absent from the
# bench, which says so; the next `make bench-setup` tries again.
$(PEERS)/.done: tests/bench/peers/litserve.txt
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	@touch $@

$(PEERS)-%/.done: tests/bench/peers/%.txt
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(LLAMA_FLAGS) $(@D)/bin/python -m pip --disable-pip-version-check install --quiet --requirement $< \
		&& $(@D)/bin/python -m pip uninstall --quiet --yes torchvision 2>/dev/null && touch $@ \
		|| echo "absent from the bench: $* could not be installed$(NEEDS-$*)"

# optimum-intel brings a torchvision that does not fit a torch without CUDA. llama.cpp is built from its source, for this
# processor: pip brings cmake and ninja as wheels, the compiler is the machine's own. Nothing but its library is built.
NEEDS-llama := ; it needs a C++ compiler (Debian: apt-get install g++)
LLAMA_FLAGS := CMAKE_ARGS="-DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAVA_BUILD=OFF \
	-DCMAKE_PROJECT_llama.cpp_INCLUDE_BEFORE=$(CURDIR)/tests/bench/peers/llama.cmake"
ENGINES := genai transformers llama openvino

bench-setup: $(PEERS)/.done $(PEERS)-bench/.done $(ENGINES:%=$(PEERS)-%/.done)  ## install the benches' peers apart and make their models
	$(PEERS)-bench/bin/python -m tests.bench.models
	-@test ! -e $(PEERS)-openvino/.done || $(PEERS)-openvino/bin/python -m tests.bench.models.openvino_ir

run: $(VENV)/.run  ## set up what is missing, start the platform, ask the demo model, serve until Ctrl-C
	$(BIN)/tidemill demo --stay

demo: $(VENV)/.run  ## the same, but end after the answer
	$(BIN)/tidemill demo

clean:  ## remove what was built; data and settings stay
	rm -rf $(VENV) $(PEERS) $(PEERS)-* .build build dist clients/tidemill/v1 clients/tidemill/engine .mypy_cache .ruff_cache .pytest_cache
