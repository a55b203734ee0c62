# Everything here works from a fresh clone: each target that needs .venv makes it first.
# Another interpreter (3.11 or newer): make setup PYTHON=/path/to/python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Test processes side by side: many tests wait for other processes, so one more than there are cores.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else 3)')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-full test-chaos test-replay-deep test-hardening test-hardening-acceptance check schema \
	milestone4-gate bench bench-budgets hooks dist verify-dist lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-25s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv: pinned dependencies, then nous itself

$(INSTALLED): requirements.lock pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh "$(PYTHON)" "$(VENV)"
	@touch $@

demo: $(INSTALLED) ## Show the main job: a daemon, commands in, events out (no key, no network)
	@bash scripts/demo.sh

test: check ## Set up, check and run the tests: what to type all day
	$(BIN)/pytest -n $(WORKERS) -m "not full"

test-full: $(INSTALLED) ## Run the heavy tests, and the property tests with many more examples
	$(BIN)/pytest -m full
	$(BIN)/pytest -n $(WORKERS) tests/property -m "not full" --hypothesis-profile=deep

test-replay-deep: $(INSTALLED) ## Replay 50,000 generated runs instead of 2,000
	$(BIN)/pytest tests/property/test_replay.py --hypothesis-profile=replay-deep

milestone4-gate: $(INSTALLED) ## What a milestone needs: a PASS line per requirement, offline (M4_GATE_LIVE_SMOKE=1 adds a live one)
	$(BIN)/python -m scripts.gate

test-chaos: $(INSTALLED) ## Kill daemons 2,000 times, signal them 500 times, break disks, a million lines of garbage, 2,000 runs in one daemon
	CHAOS_KILLS=2000 SIGNAL_RUNS=500 FUZZ_LINES=1000000 FUZZ_BODIES=1000000 SOAK_RUNS=2000 CUTS=1000 SPARE=40 $(BIN)/pytest tests/chaos tests/interaction/test_loop.py

test-hardening: $(INSTALLED) ## Fault injection, contention, atomic writes, exit codes, secrets, consent
	$(BIN)/python -m scripts.hardening

test-hardening-acceptance: milestone4-gate test-hardening test-chaos bench-budgets ## What a release needs: the gate, hardening, chaos, budgets, many processes on one store
	bash scripts/test_session_soak.sh

check: $(INSTALLED) ## Lint, types, the floors, generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/check_drift.py
	$(BIN)/python scripts/draw_states.py --check
	$(BIN)/python scripts/check_structure.py

schema: $(INSTALLED) ## Write protocol/v1 anew from the code
	$(BIN)/python scripts/check_drift.py --write

bench: $(INSTALLED) ## Measure, and print the figures
	$(BIN)/python -m scripts.bench

bench-budgets: $(INSTALLED) ## Measure, and fail if something became several times slower than it was
	$(BIN)/python -m scripts.bench --budgets

hooks: ## Have git run make check before each push
	@sh scripts/install_hooks.sh

dist: $(INSTALLED) ## Build the source archive and the wheel into dist/
	@sh scripts/dist.sh $(BIN)/python

verify-dist: $(INSTALLED) ## Use what was built as a stranger would
	@sh scripts/verify_dist.sh $(BIN)/python

lock: ## Make requirements.lock anew from requirements.in (LOCK_FLAGS=--upgrade for newer versions)
	@sh scripts/lock.sh "$(PYTHON)" $(LOCK_FLAGS)

clean: ## Remove everything the targets above made, .venv too
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find nous scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
