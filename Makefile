# The two commands of this house are `make demo` and `make test`; `make lint` comes before a commit.
# ARGS goes to the command that is started: make test ARGS='-n0 -x tests/test_imports.py'

.PHONY: demo test lint bench bench-isolation chaos clean
.DEFAULT_GOAL := test

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
# More than four test processes, each with a Postgres of its own, gain nothing; pytest-xdist counts the machine's cores.
WORKERS := -n auto --maxprocesses 4

demo: $(STAMP)
	@$(BIN)/predictu-dispatch demo $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest $(WORKERS) $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# Beside what a user would pick instead, whose packages it installs into .bench-venv. Needs nginx.
bench: $(STAMP)
	@$(BIN)/python -m tests.bench.bench $(ARGS)

# A quarter of an hour, on a machine with nothing else to do.
bench-isolation: $(STAMP)
	@$(BIN)/python -m tests.bench.isolation $(ARGS)

# Two minutes of kills, freezes and cuts, and the proof from the books that the money is right.
chaos: $(STAMP)
	@$(BIN)/python -m tests.chaos.chaos $(ARGS)

clean:
	rm -rf $(VENV)

# Pins with hashes first, then the project itself, which has no hash. Without pip inside, the environment is made in 0.2 s.
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
	touch $@
