# Every target makes the environment it needs: on a machine with Python 3.11 and nothing else,
# `make demo` and `make test` are the only two commands to know.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check fix proof docs clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: $(STAMP) ## the whole tour on drawn faces, offline: train, prune, export, check, measure, card
	$(BIN)/slimface demo

test: check ## what CI runs: format, lint, types, layers, then every test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

check: $(STAMP) ## format, lint, types and layer contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell src tests docs recipes benchmarks README.md CHANGELOG.md CONTRIBUTING.md
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(STAMP) ## let ruff format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proof: $(STAMP) ## the heavy proofs; results belong into docs/ledger.md
	$(BIN)/python benchmarks/proof.py

docs: $(STAMP) ## build the documentation into site/
	$(BIN)/pip install --quiet '.[docs]' -c constraints.txt
	$(BIN)/mkdocs build --strict

clean: ## remove the environment and everything built
	rm -rf $(VENV) site dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# torch comes first and by its exact version, so that nothing else pulls another one in.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet -r constraints.txt
	$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
