# Permslip. Needs Python 3.11 or newer; everything else is installed into .venv the first time.
#
#   make demo [DATA=DIR] [REPORT=FILE] [KEEP=DIR]
#   make test [TESTS=tests/unit] [PYTEST_ARGS="-k revocation"]
#   make mutate [SUBJECTS=merkle]
#   make check | bench | protos | clean | help

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
# Stands for «installed as pyproject.toml and constraints.txt say»; older than either, it is made again.
STAMP := $(VENV)/.installed

NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11; do \
	"$$each" -c '$(NEW_ENOUGH)' 2>/dev/null && { echo "$$each"; break; }; done)

TESTS ?= tests
PYTEST_ARGS ?=
WORKERS ?= auto
SUBJECTS ?=
say = @printf '\n==> %s\n' "$(1)"

.PHONY: help demo test check bench protos mutate clean

help: ## Say what each target does
	@echo "Permslip: parent-signed, auditable access to learner records that stay at the school."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "The first target you run sets up $(VENV) by itself. Variables are described at the top of the Makefile."

$(STAMP): pyproject.toml constraints.txt
	$(call say,Setting up $(VENV) (once; again only when pyproject.toml or constraints.txt changes))
	@if ! [ -x $(BIN)/python ]; then \
		if [ -z "$(PYTHON)" ]; then \
			echo "Python 3.11 or newer with its venv module is needed, none was found on PATH." >&2; \
			echo "Install one (on Debian: python3 and python3-venv), or run: make PYTHON=/path/to/python3 ..." >&2; \
			exit 1; \
		fi; \
		echo "creating $(VENV) with $$("$(PYTHON)" --version)"; \
		"$(PYTHON)" -m venv $(VENV); \
	fi
	@echo "installing Permslip and its tools into $(VENV), versions as in constraints.txt; this takes a minute"
	@PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet \
		--editable '.[dev,broker,node,postgres]' --constraint constraints.txt
	@touch $@

demo: $(STAMP) ## A whole federation on this machine: link, grant, query, profile, revoke
	$(call say,Running the demo: permslip demo$(if $(DATA), --data $(DATA))$(if $(REPORT), --report $(REPORT))$(if $(KEEP), --keep $(KEEP)))
	@$(BIN)/permslip demo $(if $(DATA),--data "$(DATA)") $(if $(REPORT),--report "$(REPORT)") $(if $(KEEP),--keep "$(KEEP)")

test: $(STAMP) ## All tests, in parallel
	$(call say,Running the tests in $(TESTS) on $(WORKERS) workers)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope $(TESTS) $(PYTEST_ARGS)

check: $(STAMP) ## Lint, format, types, layers, wire contract, drift of generated code
	$(call say,ruff: lint)
	@$(BIN)/ruff check
	$(call say,ruff: format)
	@$(BIN)/ruff format --check
	$(call say,mypy: types (strict))
	@$(BIN)/mypy
	$(call say,pyright: types once more)
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
	$(call say,import-linter: who may import whom)
	@PYTHONPATH=client_sdk:broker:node $(BIN)/lint-imports
	$(call say,buf: the wire contract)
	@cd protos && ../$(BIN)/buf lint
	$(call say,generated code: has it drifted?)
	@$(BIN)/python protos/generate.py --check

bench: $(STAMP) ## Measure against a floor in the same run; figures to build/bench.json
	$(call say,Running the benchmarks; figures go to build/bench.json)
	@mkdir -p build
	@$(BIN)/python -m tests.bench --output build/bench.json

protos: $(STAMP) ## Generate the Python code of the wire contract
	$(call say,Generating client_sdk/permslip/_pb from protos/)
	@$(BIN)/python protos/generate.py

mutate: $(STAMP) ## Mutation tests of the trust core: would the tests notice a wrong line?
	$(call say,Mutating the trust core; survivors are listed at the end and in build/mutation.json)
	@$(BIN)/python -m tests.mutation $(SUBJECTS)

clean: ## Remove everything that can be made again
	$(call say,Removing $(VENV) and build and the tools' caches)
	@rm -rf $(VENV) build dist mutants .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find client_sdk broker node protos tests -type d -name __pycache__ -prune -exec rm -rf {} +
