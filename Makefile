# What you can do here. Every target makes the environment it needs: a bare machine with Python will do.
#
#   make run        try it: an appliance on loopback, with a user and a key, and the line to paste
#   make test       unit tests and scenarios, a few minutes
#   make test-all   other people's programs against us, in network namespaces (root, Go; Linux)
#   make test-long  every mix of clients, and soaks
#   make check      format, lint, types, generated pages
#   make fmt        put format and import order right
#   make bench      start time and memory of a fresh process, costs of the hot paths
#   make docs       regenerate the reference pages
#   make lock       resolve the locked requirements anew (needs uv)

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Any Python from 3.11 to 3.14; say PYTHON=… to choose.
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $(name))))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
CODE := appliance control derp stun tests docs
# flake8-async: a list of startables to keep (114); async without await, which an interface may ask for (124); a
# task_status that is handed on (128); a checkpoint in every path of every function (9xx).
NOT_OURS := ASYNC114,ASYNC124,ASYNC128,ASYNC9
# Tests force orders on purpose: they poll (110), outlive what they use (111), start soon (113), look into groups (401).
NOT_TESTS := $(NOT_OURS),ASYNC110,ASYNC111,ASYNC113,ASYNC401
CLIENTS := .cache/interop/current/.built .cache/interop/1.80/.built

.PHONY: help run test test-all test-long check fmt bench docs lock clean
help:
	@sed -n 's/^#   //p' Makefile

run: $(VENV)/.run
	$(BIN)/python -m appliance.try_out

test: $(VENV)/.dev
	$(BIN)/pytest -q -m "not interop and not long" $(ARGS)

test-all: $(VENV)/.interop $(CLIENTS)
	$(BIN)/pytest -q -rs --durations=10 -m "interop and not long" $(ARGS)

test-long: $(VENV)/.interop $(CLIENTS)
	$(BIN)/pytest -q -rs --durations=10 -m long $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/flake8-async --disable=$(NOT_OURS) $$(find $(filter-out tests,$(CODE)) -name "*.py" -size +0)
	$(BIN)/flake8-async --disable=$(NOT_TESTS) $$(find tests -name "*.py" -size +0)
	$(BIN)/mypy
	$(BIN)/python -m docs.generate --check

fmt: $(VENV)/.dev
	$(BIN)/ruff check --select I --fix $(CODE)
	$(BIN)/ruff format $(CODE)

bench: $(VENV)/.dev
	@set -e; for file in tests/bench/[!_]*.py; do \
		module=$${file%.py}; module=$${module//\//.}; echo "== $$module"; $(BIN)/python -m $$module; done

docs: $(VENV)/.dev
	$(BIN)/python -m docs.generate

# The stamps below stand for "this much is installed". Each is older than what it was made from only if that changed.

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 to 3.14 is needed, and none was found." \
		"hint: apt-get install python3 python3-venv, or make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: this Python cannot make environments." \
		"hint: apt-get install python3-venv (on Debian and Ubuntu it is a package of its own)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/run.txt pyproject.toml | $(BIN)/python
	$(PIP) --require-hashes -r requirements/run.txt
	PYTHONWARNINGS=ignore $(PIP) --no-index --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.interop: requirements/interop.txt $(VENV)/.dev
	$(PIP) --require-hashes -r requirements/interop.txt
	@touch $@

# The official clients, built from source once for each pinned version. Two jobs: linking takes a gigabyte each.
.cache/interop/current/.built: tests/interop/clients/go.mod tests/interop/clients/go.sum
.cache/interop/1.80/.built: tests/interop/clients-1.80/go.mod tests/interop/clients-1.80/go.sum
$(CLIENTS):
	@command -v go >/dev/null || { echo "error: Go is needed to build the official clients" \
		"(the version that $< names, or a newer one)." "hint: .ci/run installs what the tests need" >&2; exit 1; }
	@mkdir -p $(@D)
	cd $(<D) && CGO_ENABLED=0 go build -trimpath -p 2 -o $(CURDIR)/$(@D)/ tool
	@touch $@

# Versions are pinned with hashes, for all supported Pythons at once, and no address is written down.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-config --no-emit-index-url --no-header --annotation-style=line
lock:
	$(LOCK) -o requirements/run.txt pyproject.toml requirements/install.in
	$(LOCK) -o requirements/dev.txt --extra dev pyproject.toml requirements/install.in
	$(LOCK) -o requirements/interop.txt requirements/interop.in

clean:
	rm -rf $(VENV) .cache build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
