# Every target sets up .venv by itself, once: all it needs is Python 3.11 or newer.
#   make start ARGS="--api 127.0.0.1:9000"     arguments go to the command behind the target
#   make test PYTHON=/opt/python3.13/bin/python3    a Python of your choice for .venv

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help start test check format demo bench soak clean

help:
	@echo "make start   run a node               make check   format, lint, types, import contracts"
	@echo "make demo    two nodes, real data     make test    all tests"
	@echo "make bench   measure this machine     make soak    the long tests"
	@echo "make clean   remove .venv and caches"

start: $(VENV)/base.stamp
	@exec $(BIN)/civicnode start $(ARGS)

demo: $(VENV)/demo.stamp
	@exec $(BIN)/python -m cli.demo $(ARGS)

bench: $(VENV)/dev.stamp
	@exec $(BIN)/civicnode bench --output bench-results/latest.json $(ARGS)

# Hundreds of interpreters start in there, and compiling it all is half of what a start costs: bytecode is kept.
test soak: export PYTHONDONTWRITEBYTECODE :=

# Two at a time, the one that is done first taking over from the other: much of it is waiting for processes and disks.
test: $(VENV)/dev.stamp
	@exec $(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

soak: $(VENV)/dev.stamp $(VENV)/fuzzer.stamp
	@CIVICNODE_TEST_PROFILE=soak exec $(BIN)/python -m pytest -m "soak or not soak" $(ARGS)

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- setting up -------------------------------------------------------------------------------------------

# The first of these that runs, is new enough and has what makes an environment is taken.
PYTHONS := $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python
NEW_ENOUGH := import sys; sys.version_info >= (3, 11) or sys.exit(1); import venv

# A .venv whose Python is gone (moved, upgraded away) is made again.
$(shell $(BIN)/python -c '' 2>/dev/null || rm -f $(VENV)/*.stamp)

# Debian packages ensurepip apart (python3-venv); where only pip is there, it fills the environment from outside.
$(VENV)/python.stamp:
	@for python in $(PYTHONS); do \
		if "$$python" -c "$(NEW_ENOUGH), ensurepip" >/dev/null 2>&1; then \
			echo "Setting up $(VENV) with $$python (once)" >&2; \
			"$$python" -m venv --clear $(VENV) && touch $@ && exit 0; \
		fi; \
	done; \
	for python in $(PYTHONS); do \
		if "$$python" -c "$(NEW_ENOUGH), pip" >/dev/null 2>&1; then \
			echo "Setting up $(VENV) with $$python (once)" >&2; \
			"$$python" -m venv --clear --without-pip $(VENV) && \
			"$$python" -m pip --python $(BIN)/python install --quiet pip && touch $@ && exit 0; \
		fi; \
	done; \
	echo "civicnode needs Python 3.11 or newer with its venv module: install it (Debian, Ubuntu: apt install" \
		"python3 python3-venv; macOS: brew install python) or name one: make PYTHON=/path/to/python3" >&2; \
	exit 1

$(VENV)/base.stamp: pyproject.toml $(VENV)/python.stamp
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/demo.stamp: pyproject.toml $(VENV)/python.stamp
	@$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $(VENV)/base.stamp $@

# Apart from the rest, because it takes older releases of libraries that the node uses.
$(VENV)/fuzzer.stamp: $(VENV)/python.stamp
	@$(BIN)/python -m venv --without-pip $(VENV)/fuzzer
	@$(BIN)/python -m pip --python $(VENV)/fuzzer/bin/python install --quiet 'schemathesis>=4.32.5,<5'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml $(VENV)/python.stamp
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(VENV)/base.stamp $(VENV)/demo.stamp $@
