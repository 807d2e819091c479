# Everything a newcomer types. `make demo` and `make test` install what they need by name and say so.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
BASE_PYTHON ?= python3

.PHONY: help demo demo-canary demo-down test test-fast verify generate lock bench bench-rollout bench-router fuzz

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(STAMP) ## a cluster, real Triton workers, the router, real answers; leaves it running
	@$(PYTHON) -m tidegate_e2e.demo up

demo-canary: $(STAMP) ## new versions under live requests: one is promoted, three roll back by themselves
	@$(PYTHON) -m tidegate_e2e.demo_canary

demo-down: $(STAMP) ## end everything that `make demo` started
	@$(PYTHON) -m tidegate_e2e.demo down

test: verify ## everything: checks, fast tests, and e2e on a real cluster
	@$(PYTHON) -m tidegate_e2e.testrun

test-fast: verify ## checks and the tests that need no cluster
	@$(PYTHON) -m pytest tests

verify: $(STAMP) ## format, lint, types, layers, generated files, chart
	@echo "verify: ruff format" && $(VENV)/bin/ruff format --check -q .
	@echo "verify: ruff check" && $(VENV)/bin/ruff check -q .
	@echo "verify: mypy --strict" && $(VENV)/bin/mypy --no-error-summary
	@echo "verify: import-linter" && $(VENV)/bin/lint-imports --no-logo
	@echo "verify: generated files" && $(PYTHON) -m tidegate_api.schemagen --check

generate: $(STAMP) ## rewrite every generated file
	@$(PYTHON) -m tidegate_api.schemagen
	@$(PYTHON) -m tidegate_operator.statepicture docs/rollouts.md
	@$(PYTHON) -m tidegate_router.apidocument > docs/reference/openapi.json
	@$(VENV)/bin/typer tidegate_cli.app utils docs --name tidegate --output docs/reference/cli.md

lock: $(STAMP) ## resolve the dependencies anew into requirements.lock
	@$(VENV)/bin/uv pip compile --system-certs -q pyproject.toml --all-extras --group dev --no-header -o requirements.lock

bench: demo ## measure on the demo's cluster; writes .bench/NAME.json
	@for bench in pool decide heads; do echo "bench: $$bench"; $(PYTHON) tests/bench/bench_$$bench.py; done

bench-rollout: $(STAMP) ## measure rollouts on processes and in simulation: no cluster needed
	@$(PYTHON) tests/bench/bench_rollout.py
	@$(PYTHON) tests/bench/bench_rollout_analysis.py
	@$(PYTHON) tests/bench/bench_rollout_scale.py

bench-router: $(STAMP) ## every router side by side on this machine; writes .bench/router.json and docs/benchmarks.md
	@$(PYTHON) tests/bench/bench_router.py $(ARGS)
	@$(PYTHON) tests/bench/bench_router.py --docs

FUZZ_RUNS ?= 1000000
FUZZ_TARGETS ?=
fuzz: $(STAMP) ## a million inputs for each reader of strangers' bytes; writes .bench/fuzz.json
	@$(PYTHON) tests/fuzz/run.py --runs $(FUZZ_RUNS) $(FUZZ_TARGETS)

$(STAMP): pyproject.toml requirements.lock
	@echo "python: installing the locked dependencies into $(VENV) (a minute on a new machine)"
	@$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "python: $(BASE_PYTHON) is missing or older than 3.11; install Python 3.11+ or pass BASE_PYTHON=..."; exit 1; }
	@$(BASE_PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "python: apt-get install python3-venv"; apt-get update -qq; apt-get install -y -qq python3-venv >/dev/null; }
	@[ -x $(PYTHON) ] || $(BASE_PYTHON) -m venv $(VENV)
	@$(PYTHON) -m pip install -q --disable-pip-version-check "$$(grep -o '^uv==.*' requirements.lock || echo uv)"
	@$(VENV)/bin/uv pip install --system-certs -q --python $(PYTHON) -r requirements.lock
	@$(VENV)/bin/uv pip install --system-certs -q --python $(PYTHON) --no-deps -e .
	@touch $@
