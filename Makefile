# Main targets: `make demo` and `make test`. Run `make lint` before a commit.
# ARGS is passed to the command: make test ARGS='-n0 -x tests/test_imports.py'

.PHONY: demo test lint bench bench-isolation evidence finance chaos reconcile certification newest-aiohttp clean
.DEFAULT_GOAL := test

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
NEWEST_VENV := .newest-venv
# At most four processes: each has its own Postgres, and more are not faster. `auto` is set in
# tests/conftest.py. An idle process takes tests from a busy one, because some last long.
WORKERS := -n auto --maxprocesses 4 --dist worksteal

demo: $(STAMP)
	@$(BIN)/predictu-dispatch demo $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest $(WORKERS) $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# Also measures other job queues, which it installs into .bench-venv. Needs nginx.
bench: $(STAMP)
	@$(BIN)/python -m tests.bench.bench $(ARGS)

# Takes 15 minutes; needs an idle machine.
bench-isolation: $(STAMP)
	@$(BIN)/python -m tests.bench.isolation $(ARGS)

# What sealing costs, and 200 kills of sealers, 2,000 flipped bits. Takes five minutes; the figures need an idle machine.
evidence: $(STAMP)
	@$(BIN)/python -m tests.bench.evidence $(ARGS)

# Reconciles a day of a million bookings, also beside a daemon, and kills it; then a statement of two
# million. Takes half an hour and 10 GB of disk; the figures need an idle machine.
finance: $(STAMP)
	@$(BIN)/python -m tests.bench.reconcile $(ARGS)
	@$(BIN)/python -m tests.bench.statement 2000000

# Injects faults for two minutes and checks the money afterwards.
chaos: $(STAMP)
	@$(BIN)/python -m tests.chaos.chaos $(ARGS)

# Reconciles ledgers with 10,000 planted faults, after two minutes of chaos; each must be found by the
# command and by a second classifier, and nothing else. Takes 20 minutes on a busy machine.
reconcile: $(STAMP)
	@$(BIN)/python -m tests.reconciliation.planted $(ARGS)

# Plays the whole certification against every mutant and every correct operator, and 50 times on one
# sandbox; writes the kill matrix and its table in the documents. Takes 26 minutes on two cores.
certification: $(STAMP)
	@$(BIN)/python -m tests.certification.kill_matrix $(ARGS)
	@$(BIN)/python -m tests.support.certification_documents

# Runs the tests of the HTTP client with the newest aiohttp and httptools, whatever pyproject.toml
# allows, in an environment of its own: whether the upper bound of aiohttp can be raised. pip prints
# that the project requires an older one and installs it all the same.
newest-aiohttp:
	@rm -rf $(NEWEST_VENV)
	@$(MAKE) --no-print-directory VENV=$(NEWEST_VENV) NEWEST="aiohttp httptools" $(NEWEST_VENV)/.stamp
	@$(NEWEST_VENV)/bin/python -c 'from importlib.metadata import version; \
	  print(*(f"{name} {version(name)}" for name in ("aiohttp", "httptools")), sep=", ")'
	@$(NEWEST_VENV)/bin/python -m pytest $(WORKERS) tests/edge/http $(ARGS)

clean:
	rm -rf $(VENV) $(NEWEST_VENV)

# Installs the pinned dependencies with hashes, then the project. Creating the environment without pip
# takes 0.2 s.
$(STAMP): deploy/requirements-dev.txt pyproject.toml
	@set -eu; \
	python=; \
	for candidate in python3 python3.14 python3.13 python3.12 python3.11; do \
	  if "$$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python=$$candidate; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11 or newer is needed; tried python3 and python3.11 to python3.14 on PATH." \
	    "On Debian 12 and later: apt install python3" >&2; exit 1; \
	fi; \
	echo "Preparing $(VENV) with $$("$$python" --version): seconds with uv, half a minute with pip"; \
	"$$python" -m venv --clear --without-pip $(VENV); \
	if uv --version >/dev/null 2>&1; then \
	  install="uv pip install --quiet --python $(BIN)/python"; \
	elif "$$python" -m pip --python $(BIN)/python --version >/dev/null 2>&1; then \
	  install="$$python -m pip --python $(BIN)/python --disable-pip-version-check install --quiet"; \
	elif $(BIN)/python -m ensurepip >/dev/null 2>&1; then \
	  install="$(BIN)/python -m pip --disable-pip-version-check install --quiet"; \
	else \
	  echo "No installer for $$python: it needs uv on PATH, or its own pip 22.3 or newer, or its module ensurepip." \
	    "On Debian: apt install python3-pip" >&2; exit 1; \
	fi; \
	$$install --require-hashes -r deploy/requirements-dev.txt; \
	$$install --no-deps --no-build-isolation -e .; \
	if [ -n "$(NEWEST)" ]; then $$install --upgrade $(NEWEST); fi; \
	touch $@
