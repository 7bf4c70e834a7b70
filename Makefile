# Two commands matter: `make demo` (everything from a fresh clone to a page that talks to a bot) and `make test`
# (everything from a fresh clone to a green suite).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: test lint unit statements demo serve bench autobahn clean
.DEFAULT_GOAL := test

test: lint unit

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

# botbuilder pins an old aiohttp, so real bots live in environments of their own.
.tools/bots/.installed: tests/bots/requirements.txt
	$(PYTHON) -m venv .tools/bots
	.tools/bots/bin/python -m pip install --quiet -r tests/bots/requirements.txt
	touch $@

.tools/agents-bot/.installed: tests/bots/requirements-agents.txt
	$(PYTHON) -m venv .tools/agents-bot
	.tools/agents-bot/bin/python -m pip install --quiet -r tests/bots/requirements-agents.txt
	touch $@

tests/bots/js/node_modules/.installed: tests/bots/js/package.json tests/bots/js/package-lock.json
	cd tests/bots/js && npm ci --no-audit --no-fund --loglevel=error
	touch $@

tests/directlinejs/node_modules/.installed: tests/directlinejs/package.json tests/directlinejs/package-lock.json
	cd tests/directlinejs && npm ci --no-audit --no-fund --loglevel=error
	touch $@

web/node_modules/.installed: web/package.json web/package-lock.json web/.npmrc
	cd web && npm ci --loglevel=error
	touch $@

PAGE := src/landline/demo/static/index.html
$(PAGE): web/node_modules/.installed web/index.html web/vite.config.js $(wildcard web/src/*)
	cd web && npm run build

# Browser tests need Chromium. Where there is no root or no apt they are skipped, and say what is missing.
.tools/chromium:
	mkdir -p .tools
	command -v chromium || { test "$$(id -u)" = 0 && command -v apt-get && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } \
		|| echo "Chromium is not installed and cannot be installed from here: browser tests will be skipped."
	touch $@

# One test has nginx in front of a server. Where there is no root or no apt it is skipped, and says what is missing.
.tools/nginx:
	mkdir -p .tools
	test -x /usr/sbin/nginx || command -v nginx || { test "$$(id -u)" = 0 && command -v apt-get && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nginx-light >/dev/null; } \
		|| echo "nginx is not installed and cannot be installed from here: the test behind a proxy will be skipped."
	touch $@

.tools/benchmarks/.installed: benchmarks/requirements.txt pyproject.toml
	$(PYTHON) -m venv .tools/benchmarks
	.tools/benchmarks/bin/python -m pip install --quiet --editable . -r benchmarks/requirements.txt
	touch $@

# The stream socket against Autobahn's fuzzing client, which needs Python 2.7: docs/websocket.md.
PYTHON2 ?= python2.7
.tools/autobahn/.installed:
	@$(PYTHON2) --version 2>&1 | grep -q '^Python 2.7' || { echo "Autobahn needs Python 2.7: make autobahn PYTHON2=/path/to/python2.7"; exit 1; }
	$(PYTHON2) -m pip install --quiet --target .tools/autobahn autobahntestsuite==0.8.2
	touch .tools/autobahn/zope/__init__.py $@

autobahn: $(VENV)/.installed .tools/autobahn/.installed
	$(BIN)/python tests/server/echo_server.py 9301 & server=$$!; trap 'kill $$server' EXIT; sleep 2; \
		PYTHONPATH=.tools/autobahn $(PYTHON2) .tools/autobahn/bin/wstest -m fuzzingclient -s tests/server/fuzzingclient.json
	$(BIN)/python tests/server/autobahn.py

bench: .tools/benchmarks/.installed
	.tools/benchmarks/bin/python -m benchmarks

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.installed .tools/bots/.installed .tools/agents-bot/.installed tests/bots/js/node_modules/.installed \
		tests/directlinejs/node_modules/.installed $(PAGE) .tools/chromium .tools/nginx
	$(BIN)/python -m pytest

# docs/conformance.md: what checks each numbered statement.
statements: $(VENV)/.installed
	PYTHONPATH=src:tests $(BIN)/python -m conformance.page

demo: $(VENV)/.installed $(PAGE)
	$(BIN)/landline demo

serve: $(VENV)/.installed
	$(BIN)/landline serve

clean:
	rm -rf $(VENV) .tools tests/bots/js/node_modules tests/directlinejs/node_modules web/node_modules src/landline/demo/static
