# Two commands on a fresh machine: `make demo` and `make test`. Each does its own set-up in .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
READY_BENCH := .venv/.ready-bench
READY_BROWSER := .venv/.ready-browser
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e

.DEFAULT_GOAL := help
.PHONY: help demo test test-hard test-browser check lint types docs-fresh format docs bench bench-gpu bench-search bench-methods clean

help:  ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: $(READY)  ## fine-tune MiniLM on IMDB: before, after, the picture
	$(BIN)/lightune run --time-budget 8m --output runs/demo --overwrite

test: $(READY)  ## the test suite
	$(BIN)/python -m pytest -m "not hard" -n 2 --dist loadfile

test-hard: $(READY)  ## the long tests as well
	$(BIN)/python -m pytest

test-browser: $(READY_BROWSER)  ## the report pages in Chromium (of the system, or CHROMIUM=path)
	$(BIN)/python -m pytest -m browser -rs

check: $(READY) lint types docs-fresh test  ## what a change must pass

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

docs-fresh: $(READY)
	$(BIN)/python docs/generate.py --check

format: $(READY)  ## format and mend what a tool can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)  ## regenerate the generated pages and schemas
	$(BIN)/python docs/generate.py

bench: $(READY_BENCH)  ## race lightune against the others; on an otherwise idle machine
	$(BIN)/python benchmarks/bench.py all

bench-search: $(READY)  ## race the search against Trainer.hyperparameter_search; forty minutes
	$(BIN)/python benchmarks/search.py

bench-methods: $(READY)  ## compare all methods, and write the table of docs/methods.md; half an hour
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python docs/generate.py

bench-gpu: $(READY)  ## the training steps of the race on a CUDA device
	$(BIN)/python benchmarks/gpu.py

clean:  ## forget the environment and every run
	rm -rf .venv runs build *.egg-info src/*.egg-info

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lightune needs Python 3.11 or later; say which with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) '.[offline,dev]'
	@touch $(READY)

$(READY_BENCH): $(READY)
	$(INSTALL) '.[offline,dev,bench]'
	@touch $(READY_BENCH)

$(READY_BROWSER): $(READY)
	$(INSTALL) '.[offline,dev,browser]'
	@touch $(READY_BROWSER)
