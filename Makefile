# Everything sets itself up in .venv; a warm run installs nothing. Python 3.11+ and make are enough.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test lint fix screenshots clean unit integration system lowest engine nightly mutation machine attempts longer drills killing laws

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
LOWEST := .venv-lowest/bin
PIP := -m pip install --quiet --disable-pip-version-check
PYTEST := -m pytest -q -ra --durations=5
# Else each of the tests' processes would rewrite the asserts of every test file: 2 s each.
unexport PYTHONDONTWRITEBYTECODE
NO_PROXY_HERE := NO_PROXY="127.0.0.1,localhost,$$NO_PROXY" no_proxy="127.0.0.1,localhost,$$no_proxy"

help: ## Show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo
	@echo "make demo EXIT=1              stop when done; exit 0 only if the checker is satisfied"
	@echo "make demo BREAK=order EXIT=1  break it on purpose: order, double, orphan or exit"

demo: .venv/ready ## Three payers on disposable machines in a real Airflow; Ctrl-C stops it
	@$(BIN)/python -m tests.system.demo $(if $(EXIT),--exit) $(if $(BREAK),--break $(BREAK)) $(if $(DATE),--date $(DATE))

test: lint unit engine lowest integration system ## Lint and all tests, also with the lowest versions on Airflow 2.11

lint: .venv/ready ## ruff, mypy, import layers; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --exclude '*.md' .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fix: .venv/ready ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format --exclude '*.md' .

unit: .venv/ready
	$(NO_PROXY_HERE) $(BIN)/python $(PYTEST) -n 2 tests/unit

engine: .venv/ready ## The state machine of the whole engine, a bounded number of examples
	PYTHONHASHSEED=0 $(NO_PROXY_HERE) $(BIN)/python $(PYTEST) tests/state_machine

nightly: attempts drills killing mutation longer laws ## All attempts, 20 drills, 20 kills of each kind, all seeded bugs, 1,000 examples of each law, 4,000 of the state machine
	PYTHONHASHSEED=0 STATE_MACHINE_EXAMPLES=4000 $(NO_PROXY_HERE) $(BIN)/python $(PYTEST) tests/state_machine

laws: .venv/ready ## Every law that is told by examples, with 1,000 of them
	HYPOTHESIS_PROFILE=nightly $(NO_PROXY_HERE) $(BIN)/python $(PYTEST) -n 2 -m hypothesis tests/unit

machine: .venv/ready ## Boots the product's user data on real cloud-init and systemd (root, Debian)
	$(NO_PROXY_HERE) $(BIN)/python $(PYTEST) -n 3 tests/machine

mutation: .venv/ready ## Seeds bugs, one at a time, and shows which test turns red
	$(NO_PROXY_HERE) $(BIN)/python -m tests.seeded_bugs

# A file's tests share their local EC2: they stay in one process.
integration: .venv/ready
	$(NO_PROXY_HERE) $(BIN)/python $(PYTEST) -n 3 --dist loadfile tests/integration

system: .venv/ready
	$(NO_PROXY_HERE) $(BIN)/python $(PYTEST) -m "not nightly" tests/system

attempts: .venv/ready .venv-lowest/ready ## Every case of docs/attempts.md on Airflow 2.11 and 3.3; prints the table
	$(NO_PROXY_HERE) $(BIN)/python $(PYTEST) -s -m nightly tests/system/test_attempts.py

longer: .venv/ready .venv-lowest/ready ## Files and payer runs on both Airflows
	$(NO_PROXY_HERE) $(BIN)/python $(PYTEST) -m nightly tests/system/test_files.py tests/system/test_payer_runs.py

drills: .venv/ready ## kill -9 of Airflow's parts while ten jobs run: ROUNDS=20 SEED=1
	@$(BIN)/python -m tests.system.drills --rounds $(or $(ROUNDS),20) --seed $(or $(SEED),1) $(if $(LEASE),--lease $(LEASE))

killing: .venv/ready .venv-lowest/ready ## Every row of docs/killing.md on Airflow 2.11 and 3.3: N=20 VERSION=3.3 PATHS=failed,clear
	@$(NO_PROXY_HERE) $(BIN)/python -m tests.system.killing --n $(or $(N),20) $(if $(VERSION),--version $(VERSION)) $(if $(PATHS),--paths $(PATHS))

lowest: .venv-lowest/ready
	$(NO_PROXY_HERE) $(LOWEST)/python $(PYTEST) -W ignore -n 2 tests/unit

screenshots: .venv/ready ## Pictures of the demo for the docs, into docs/images (needs chromium)
	$(BIN)/python -m tests.system.screenshots

clean: ## Remove environments, the demo's folder and caches
	rm -rf .venv .venv-lowest .demo .hypothesis .mypy_cache .ruff_cache .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: pyproject.toml .ci/constraints.txt
	@$(call need_python)
	@echo "installing into .venv (some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP) -e ".[dev,files]" -c .ci/constraints.txt
	@touch $@

.venv-lowest/ready: pyproject.toml .ci/constraints-lowest.txt
	@$(call need_python)
	@echo "installing the lowest supported versions into .venv-lowest (some minutes the first time)"
	@test -x $(LOWEST)/python || $(PYTHON) -m venv .venv-lowest
	@$(LOWEST)/python $(PIP) -e ".[dev]" -c .ci/constraints-lowest.txt
	@touch $@

define need_python
if [ -z "$(PYTHON)" ]; then \
	echo "No Python 3.11 or later with venv found. Install one (Debian: python3 and python3-venv)," >&2; \
	echo "or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; fi
endef
