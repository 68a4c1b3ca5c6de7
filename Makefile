# Everything a person does with a checkout. `make` alone lists it.
# Each target sets up .venv first, once, and again when pyproject.toml or constraints.txt change.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --constraint constraints.txt
CANDIDATES := python3 python3.13 python3.12 python3.11
# One process a core, but no more than eight: each imports torch; one thread each, or they fight.
# Each begins with tests that lie together, and so share fixtures; who ends early takes of the others.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

.PHONY: help demo test soak real lint format docs bench clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## the whole job on rendered scenes: a table, and a report to open
	$(BIN)/vitscope demo

test: $(VENV)/.dev ## the fast tests
	$(PYTEST) -m "not slow and not real"

soak: $(VENV)/.dev ## the slow tests
	$(PYTEST) -m "slow and not real"

real: $(VENV)/.dev ## what needs trained weights: fetches them first
	$(BIN)/vitscope fetch focus-s || echo "real: the weights cannot be had here; their tests are skipped"
	$(PYTEST) -n 0 -m real

lint: $(VENV)/.dev ## ruff, its formatter, pyright (strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.dev ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs ## build the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "docs: site/index.html"

BENCHES := transport extract scenes
bench: $(VENV)/.dev ## timings: transport, extract, scenes; benchmarks/ has longer ones
	@for name in $(BENCHES); do \
	  echo "== benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py || exit 1; \
	done

clean: ## remove caches and built docs (not .venv, not runs/)
	rm -rf site dist .pytest_cache .hypothesis .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: what is installed in .venv. The tests' set contains the runtime's.
$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) --editable ".[dev]"
	@touch $@ $(VENV)/.runtime

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) --quiet --editable ".[docs]"
	@touch $@ $(VENV)/.runtime

# A candidate counts when it runs and is new enough: a version manager's shim may do neither.
$(BIN)/pip:
	@for python in $(CANDIDATES); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	      echo "$$python cannot make virtual environments; on Debian or Ubuntu:" \
	        "apt-get install python3-venv" >&2; exit 1; \
	    fi; \
	    echo "making $(VENV) with $$("$$python" --version)"; \
	    exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo "vitscope needs Python 3.11 or newer on the PATH (tried: $(CANDIDATES))" >&2; exit 1
