# `make demo` and `make test` set up all they need on a fresh machine with Python 3.11+ and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILED := $(VENV)/compiled/bin
SOURCES = $(shell find quicbus broker clients -name '*.py') tools/compiling.py tools/training.py pyproject.toml
SECONDS ?= 15
FUZZ_SECONDS ?= 6
TOOLS := $(VENV)/tools/bin
AUDIT_SERVICE ?= pypi

# Without bytecode of its own each of a thousand processes that the tests start would compile quicbus anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-compiled lint types tests format bench abuse simulate fuzz lock check-deps clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.fast: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fast]'
	@touch $@

$(VENV)/.installed: $(VENV)/.fast
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fast,dev]'
	@touch $@

setup: $(VENV)/.installed ## make .venv with everything in it

demo: $(VENV)/.fast ## three brokers as one mesh, live counters of this machine, a broker that is killed
	@$(BIN)/quicbus demo --seconds $(SECONDS)

test: lint types tests ## format, lint, types and all tests: what CI runs

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

tests: setup
	$(BIN)/python -m pytest -n 3

$(VENV)/compiled/.installed: $(VENV)/.installed $(SOURCES)
	rm -rf $(VENV)/compiled $(VENV)/wheels
	HATCH_BUILD_HOOKS_ENABLE=1 $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(VENV)/wheels .
	$(PYTHON) -m venv $(VENV)/compiled
	$(COMPILED)/python -m pip install --quiet --disable-pip-version-check "$$(ls $(VENV)/wheels/quicbus-*.whl)[fast,dev]"
	$(COMPILED)/python -c "import site; open(site.getsitepackages()[0] + '/tests.pth', 'w').write('$(CURDIR)')"
	@touch $@

test-compiled bench: export PYTHONSAFEPATH = 1

test-compiled: $(VENV)/compiled/.installed ## all tests on a wheel whose modules are compiled; needs a C compiler, 15 minutes
	TESTS_COMPILED=1 $(COMPILED)/python -m pytest -n 2 --import-mode=append

format: setup ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/compiled/.bench ## quicbus beside NATS, zenoh, Mosquitto and Redis, an hour or two; writes docs/benchmarks.md; then the parts
	$(COMPILED)/python -m benchmarks.peers.install
	$(COMPILED)/python -m benchmarks.peers --json benchmarks.json --write docs
	-$(COMPILED)/python -m benchmarks.wide_area --seconds 8 --write docs
	$(COMPILED)/python -m pytest benchmarks --import-mode=append --benchmark-enable -q

$(VENV)/compiled/.bench: $(VENV)/compiled/.installed
	$(COMPILED)/python -m pip install --quiet --disable-pip-version-check "$$(ls $(VENV)/wheels/quicbus-*.whl)[fast,bench]"
	@touch $@

abuse: setup ## every attack with full strength on both engines beside good clients; writes docs/abuse.md
	$(BIN)/python -m tests.abuse --write docs/abuse.md

simulate: setup ## thousands of nodes in one process: random worlds, crashes, growth; writes docs/simulation.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[simulate]'
	$(BIN)/python -m quicbus_broker.simulation --write docs

fuzz: setup ## coverage-guided fuzzing of all that reads a peer's bytes, a few minutes; Linux, Python 3.11 to 3.14
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

$(VENV)/tools/.installed:
	$(PYTHON) -m venv $(VENV)/tools
	$(TOOLS)/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.9' 'uv>=0.8'
	@touch $@

lock: $(VENV)/tools/.installed ## write requirements.lock: one version of every dependency, extras too, on all platforms
	$(TOOLS)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --upgrade \
		--custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

check-deps: $(VENV)/tools/.installed ## look for known vulnerabilities in requirements.lock; fails where it can't ask
	$(TOOLS)/python -m tools.check_dependencies $(TOOLS)/pip-audit $(AUDIT_SERVICE)

clean: ## remove what the other targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks dist build
