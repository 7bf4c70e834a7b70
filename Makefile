# Two commands matter: `make test` (everything from a fresh clone to a green suite) and `make serve`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: test check unit lint serve clean
.DEFAULT_GOAL := test

test: lint unit

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

# botbuilder pins an old aiohttp, so real bots live in an environment of their own.
.tools/bots/.installed: tests/bots/requirements.txt
	$(PYTHON) -m venv .tools/bots
	.tools/bots/bin/python -m pip install --quiet -r tests/bots/requirements.txt
	touch $@

tests/directlinejs/node_modules/.installed: tests/directlinejs/package.json tests/directlinejs/package-lock.json
	cd tests/directlinejs && npm ci --no-audit --no-fund --loglevel=error
	touch $@

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.installed .tools/bots/.installed tests/directlinejs/node_modules/.installed
	$(BIN)/python -m pytest

serve: $(VENV)/.installed
	$(BIN)/landline serve

clean:
	rm -rf $(VENV) .tools tests/directlinejs/node_modules
