# Two commands for a fresh machine: `make demo` and `make test`. Each sets itself up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo torture kill9 memory load outage test test-again test-all check format lint types imports bench \
	bench-gateway accuracy docs clean

help:  ## what there is
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

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

test-again: $(READY)  ## the tests that failed last, if they are few, alone and once more
	@$(BIN)/python tests/again.py

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

outage: $(READY)  ## a minute without the ledger under load, on both databases
	@$(BIN)/python tests/ledger/minute_outage.py

bench-gateway: $(READY)  ## this gateway beside nginx, Go, Portkey and LiteLLM
	@$(BIN)/python -m benchmarks.peers

CORPUS ?= ../shared/corpus

accuracy: $(READY)  ## judge the counter on recordings (CORPUS=folder)
	@COLUMNS=80 $(BIN)/lastchunk accuracy --prefixes $(CORPUS)

POSTGRES ?= postgresql://postgres@127.0.0.1:5432/test

torture: $(READY)  ## the whole fault matrix on both databases (POSTGRES=URL)
	@COLUMNS=80 $(BIN)/lastchunk torture --postgres $(POSTGRES) --html torture.html

COUNT ?= 1000

kill9: $(READY)  ## kill -9 under load on each database (COUNT=1000 POSTGRES=URL)
	@$(BIN)/python -m lastchunk.torture.kill9 --count $(COUNT) --postgres $(POSTGRES)

memory: $(READY)  ## the gateway's memory under 2,000 open streams, ten minutes
	@$(BIN)/python -m lastchunk.torture.memory

STREAMS ?= 1000
MINUTES ?= 10
DATABASE ?= sqlite

load: $(READY)  ## ten minutes of full load (STREAMS= MINUTES= DATABASE=postgresql)
	@$(BIN)/python -m lastchunk.torture.full_load --streams $(STREAMS) --minutes $(MINUTES) \
		$(if $(filter postgresql,$(DATABASE)),--postgres $(POSTGRES))

docs: $(READY)  ## write docs/reference anew from the code
	@$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
