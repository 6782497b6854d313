# `make demo` and `make test` do everything on a fresh machine that has Python 3.11 or later.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all lint clean

$(INSTALLED): pyproject.toml constraints.txt
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/diffcli prepare digits
	$(BIN)/diffcli train --preset digits --name demo
	$(BIN)/diffcli sample latest --num 100 --class 0,1,2,3,4,5,6,7,8,9
	@echo "the picture of ten digits of each class is the grid named above"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

test-all: lint
	$(BIN)/python -m pytest -m ''

clean:
	rm -rf $(VENV)
