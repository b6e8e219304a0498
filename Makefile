# make demo: the main job on real speech; make test: the tests. Each installs what is missing, into .venv, nothing global.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint bench clean
install: $(VENV)/.installed

$(VENV)/.installed: setup.py pyproject.toml constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing masr into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	egs/freevoices/run.sh --conf conf/demo.yaml --nproc 2

test: install
	$(BIN)/python -m pytest -n 2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python benchmarks/run.py $(ONLY)

clean:
	rm -rf $(VENV) .venv-* build egs/*/data egs/*/exp
