# Everything a newcomer runs. Needs git, make and Python 3.11 or newer with venv; the rest is set up here, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
STAMP := $(VENV)/.stamp

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help up test test-fast check packages lock bench fuzz clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

up: $(STAMP)-hub $(STAMP)-project ## set up and watch this host with embedded defaults, in the foreground; Ctrl-C ends it
	@$(BIN)/vedette up

test: packages check ## set up and run everything: style, types, import contracts, all tests (Debian packages if root)
	$(BIN)/python -m pytest -n auto --ignore tests/scenarios
	$(BIN)/python -m pytest tests/scenarios

test-fast: $(STAMP)-dev $(STAMP)-project ## only the tests that need neither root nor corpus and are quick
	$(BIN)/python -m pytest -n auto -m "not root and not corpus and not slow"

check: $(STAMP)-dev $(STAMP)-project ## style, types and import contracts, without tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

packages: ## the Debian packages that tests use: only those missing, as root, services not started
	@packaging/install-packages.sh packaging/debian-packages.txt

bench: $(STAMP)-dev $(STAMP)-project ## run the benchmarks in bench/ (minutes; the peers measured beside us if root)
	@packaging/install-packages.sh packaging/debian-packages.txt packaging/debian-bench.txt
	@$(BIN)/python -m compileall -q src
	$(BIN)/python -m bench

FUZZ_TARGETS := syslog json audit access multiline addresses sigma policy attacks config \
    frames relp http bodies otlp message orders enrolment
SECONDS ?= 20
fuzz: $(STAMP)-fuzz $(STAMP)-project ## hostile bytes against every reader, SECONDS=20 each; what is found lands in fuzz/found
	@failed=; for target in $(FUZZ_TARGETS); do $(BIN)/python -m fuzz $$target $(SECONDS) || failed="$$failed $$target"; done; \
	    if [ -n "$$failed" ]; then echo "found something:$$failed (see fuzz/found)" >&2; exit 1; fi

clean: ## remove what the targets above made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .fuzz
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------------------------ set-up
$(STAMP)-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is older than Python 3.11; name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "set-up: virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

$(STAMP)-build: requirements/build.txt | $(STAMP)-venv
	@$(PIP) install --require-hashes -r requirements/build.txt
	@touch $@

$(STAMP)-hub: requirements/hub.txt | $(STAMP)-venv
	@echo "set-up: locked libraries (requirements/hub.txt)"
	@$(PIP) install --require-hashes -r requirements/hub.txt
	@touch $@

$(STAMP)-dev: requirements/dev.txt | $(STAMP)-venv
	@echo "set-up: locked libraries and tools (requirements/dev.txt)"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(STAMP)-fuzz: requirements/fuzz.txt | $(STAMP)-dev
	@echo "set-up: the fuzzer (requirements/fuzz.txt)"
	@$(PIP) install --require-hashes -r requirements/fuzz.txt
	@touch $@

# Editable, so that a change in src/ needs no second run; only new metadata does.
$(STAMP)-project: pyproject.toml src/vedette/__init__.py $(STAMP)-build
	@echo "set-up: the project itself"
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@$(BIN)/python -m compileall -q src
	@touch $@

# ------------------------------------------------------------------------------------------------ for maintainers
# The locks hold for CPython 3.11 and newer. dev.txt holds everything; the others are cut from it, so that versions agree.
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal --python-version 3.11 \
    --fork-strategy fewest --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate
lock: ## renew requirements/*.txt from pyproject.toml (maintainers; needs uv; UPGRADE=1 takes newest versions)
	$(COMPILE) $(if $(UPGRADE),--upgrade) --extra hub --extra dev pyproject.toml requirements/build.in -o requirements/dev.txt
	$(COMPILE) -c requirements/dev.txt --extra hub pyproject.toml -o requirements/hub.txt
	$(COMPILE) -c requirements/dev.txt pyproject.toml -o requirements/base.txt
	$(COMPILE) -c requirements/dev.txt requirements/build.in -o requirements/build.txt
	$(COMPILE) -c requirements/dev.txt requirements/fuzz.in -o requirements/fuzz.txt
