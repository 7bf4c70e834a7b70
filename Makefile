# Two commands matter: `make demo` (everything from a fresh clone to a page that talks to a bot) and `make test`
# (everything from a fresh clone to a green suite).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   := .tools/demo

# Modules are compiled once, not at each of the thousands of starts of a server.
unexport PYTHONDONTWRITEBYTECODE

# Nobody who types make has asked for pip's advice.
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore

# Tests wait more than they work, so that there may be more workers than cores. A file stays with one of them.
WORKERS ?= 4
SIDE_BY_SIDE = --numprocesses $(WORKERS) --dist loadfile

PYTHON_IS_NEW = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "Landline needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)." >&2; \
	echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
NODE_IS_NEW = node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b > 18) ? 0 : 1)' 2>/dev/null

.PHONY: test lint unit soak statements rooms demo serve bench autobahn clean
.DEFAULT_GOAL := test

test: lint unit

$(VENV)/.installed: pyproject.toml
	@$(PYTHON_IS_NEW)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

# What Landline itself needs, and nothing that only its tests do.
$(DEMO)/.installed: pyproject.toml
	@$(PYTHON_IS_NEW)
	@echo "Installing Landline into $(DEMO)"
	@$(PYTHON) -m venv $(DEMO)
	@$(DEMO)/bin/python -m pip install --quiet --editable .
	@touch $@

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
	cd web && npm ci --no-audit --no-fund --loglevel=error
	touch $@

PAGE := src/landline/demo/static/index.html
# A page that is built already does without Node.
$(PAGE): web/package.json web/package-lock.json web/index.html web/vite.config.js web/guide.js $(wildcard web/src/*) \
		$(wildcard docs/howto/*.md docs/reference/*.md)
	@if $(NODE_IS_NEW); then \
		$(MAKE) --no-print-directory web/node_modules/.installed && cd web && npm run --silent build -- --logLevel warn; \
	elif test -f $@; then \
		echo "Node 20.19 or newer is not there: the page stays as it is."; \
	else \
		echo "The page is built by Node 20.19 or newer; node is $$(node --version 2>/dev/null || echo not there)." >&2; exit 1; \
	fi
	@touch $@

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

# The store in PostgreSQL is tested with a real one, and a pooler. Where there is no root or no apt those tests are skipped.
.tools/postgresql:
	mkdir -p .tools
	{ test -x /usr/sbin/pgbouncer && ls /usr/lib/postgresql/*/bin/initdb >/dev/null; } || \
		{ test "$$(id -u)" = 0 && command -v apt-get && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql pgbouncer >/dev/null; } \
		|| echo "PostgreSQL cannot be installed from here: the tests that need what is missing will be skipped."
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
	$(BIN)/python tests/wire/echo_server.py 9301 & server=$$!; trap 'kill $$server' EXIT; sleep 2; \
		PYTHONPATH=.tools/autobahn $(PYTHON2) .tools/autobahn/bin/wstest -m fuzzingclient -s tests/wire/fuzzingclient.json
	$(BIN)/python tests/wire/autobahn.py

bench: .tools/benchmarks/.installed
	.tools/benchmarks/bin/python -m benchmarks

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.installed .tools/bots/.installed .tools/agents-bot/.installed tests/bots/js/node_modules/.installed \
		tests/directlinejs/node_modules/.installed web/node_modules/.installed $(PAGE) .tools/chromium .tools/nginx \
		.tools/postgresql
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# The same for hours, with much more drawn at random: LANDLINE_SEED=4711 make soak draws the same again.
soak: export LANDLINE_SOAK = 1
soak: SIDE_BY_SIDE += --timeout 0
soak: unit

# docs/conformance.md: what checks each numbered statement.
statements: $(VENV)/.installed
	PYTHONPATH=src:tests $(BIN)/python -m conformance.page

# docs/rooms.md: who imports whom, and how large everything is.
rooms: $(VENV)/.installed
	$(BIN)/python docs/draw_rooms.py

demo: $(DEMO)/.installed $(PAGE)
	@$(DEMO)/bin/landline demo

serve: $(DEMO)/.installed
	@$(DEMO)/bin/landline serve

clean:
	rm -rf $(VENV) .tools tests/bots/js/node_modules tests/directlinejs/node_modules web/node_modules src/landline/demo/static
