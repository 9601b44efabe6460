# Two commands for a fresh machine: `make demo` and `make test`. Each sets itself up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test test-all check format lint types imports bench accuracy docs clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once, about half a minute) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@
	@echo "ready"

demo: $(READY)  ## the main job, seen: a few hundred calls, almost half of them cut
	@$(BIN)/lastchunk demo

test: $(READY)  ## the tests, a few minutes
	@$(BIN)/python -m pytest -n auto

test-all: $(READY)  ## the tests with every cut of every body, half an hour
	@LASTCHUNK_TEST_ALL=1 $(BIN)/python -m pytest -n auto

check: format lint types imports test  ## all that must hold before a change lands

format: $(READY)  ## is the code formatted
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ."; exit 1; }

lint: $(READY)  ## ruff
	@$(BIN)/ruff check --quiet .

types: $(READY)  ## mypy, strict
	@$(BIN)/mypy --no-error-summary

imports: $(READY)  ## do the rooms import downstream only
	@$(BIN)/lint-imports --no-logo | tail -n 4

bench: $(READY)  ## what metering costs, side by side in one run
	@$(BIN)/python -m benchmarks

CORPUS ?= ../shared/corpus

accuracy: $(READY)  ## judge the counter on recordings (CORPUS=folder)
	@COLUMNS=80 $(BIN)/lastchunk accuracy --prefixes $(CORPUS)

docs: $(READY)  ## write docs/reference anew from the code
	@$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
