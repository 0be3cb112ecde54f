# Set-up, search, tests and checks. Every install goes through constraints.txt: a plain `torch` would be a CUDA build of gigabytes.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: tune test lint

tune: $(INSTALLED)
	$(BIN)/python -m recsys.tune --space search_spaces/ncf.yaml

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
