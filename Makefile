# The targets that people type; `make` alone lists them. Everything is installed into .venv, with the versions of
# constraints.txt, and again only when pyproject.toml or constraints.txt has changed.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
# More at a time than there are processors: many tests wait, for time to pass or for another process.
PYTEST := $(BIN)/pytest -n $(shell expr 3 \* $$(nproc) / 2) --dist worksteal
# How pytest ends where ARGS names nothing that is run.
NO_TESTS := 5

# The second one is what pip 25.3 and newer reads for the build backend.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# For the outcome of each part of a pipe.
SHELL := bash
.DELETE_ON_ERROR:
.PHONY: help demo serve test soak fuzz lint bench schema docs constraints clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' Makefile

demo: .venv/.installed-demo  ## run a federated training with real data on this machine; ARGS="--rounds 8" and so on
	@$(BIN)/folkmoot demo $(ARGS)

serve: .venv/.installed-demo  ## start a hub on this machine; ARGS="--port 9000" and so on
	@$(BIN)/folkmoot serve $(ARGS)

test: .venv/.installed-dev  ## run all tests, the server's on PostgreSQL too; ARGS="-k words" and so on
	@mkdir -p build; failed=; \
	for database in sqlite postgres; do \
	  echo "== on $$database"; \
	  FOLKMOOT_TEST_DATABASE=$$database $(PYTEST) $(ARGS) 2>&1 | tee build/tests-on-$$database.log; \
	  outcome=$${PIPESTATUS[0]}; \
	  [ $$outcome = 0 ] || [ $$outcome = $(NO_TESTS) ] || failed="$$failed $$database"; \
	done; \
	for database in $$failed; do echo "== failed on $$database"; grep -hE '^(FAILED|ERROR) ' build/tests-on-$$database.log; done; \
	for database in sqlite postgres; do echo "== on $$database"; tail -n 1 build/tests-on-$$database.log; done; \
	[ -z "$$failed" ]

soak: .venv/.installed-dev  ## run the tests that take long: what others try once, again and again; ARGS="-k words" and so on
	@$(PYTEST) -m soak $(ARGS)

fuzz: .venv/.installed-dev  ## spoil files for every reader of them, a minute each; ARGS="--seconds 600" and so on
	@$(BIN)/python tests/fuzz/run.py $(ARGS)

lint: .venv/.installed-dev  ## style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: .venv/.installed-dev build/bench/flower/installed build/bench/nvflare/installed  ## measure, briefly
	@set -e; for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python "$$benchmark" --quick $(ARGS); done

schema: .venv/.installed-dev  ## write docs/openapi.yaml and docs/api.md anew, after the API has changed
	@$(BIN)/python docs/reference.py

docs: .venv/.installed-dev  ## build the documentation into docs/_build/html
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# PYTHON should be the oldest one that people have: some packages refuse even Debian 12's 3.11.2. torch stays what it is,
# since a newer one may bring gigabytes that only a GPU needs; edit its line to move it.
constraints: .venv/.python  ## choose the newest versions that fit and write constraints.txt
	@rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	@torch=$$(grep '^torch==' constraints.txt) && unset PIP_CONSTRAINT PIP_BUILD_CONSTRAINT && \
	build/constraints/bin/pip install -q -e '.[dev,torch]' "$$torch" hatchling editables
	@{ echo "# Every version that the make targets install, for all extras; written by \`make constraints\` on $$($(PYTHON) -V)."; \
	build/constraints/bin/pip freeze --all --exclude-editable | sed 's/+.*//' | grep -vE '^(pip|nvidia-.*|cuda-.*|triton)==' \
	| LC_ALL=C sort -f; } > build/constraints.txt && mv build/constraints.txt constraints.txt

clean:  ## remove what the other targets made
	@rm -rf .venv build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.venv/.installed-%: .venv/.python pyproject.toml constraints.txt
	@echo "Installing what $(if $(filter demo,$*),the demo needs,tests and checks need) into .venv ..."
	@$(BIN)/pip install -q -e '.[$*]'
	@touch $@

# Who is compared with us has an environment of its own, since some of their versions contradict ours. What cannot be
# installed is no reason to stop: the benchmark's table says why.
build/bench/%/installed: benchmarks/contenders/%.txt | .venv/.python
	@echo "Installing what is measured beside Folkmoot into build/bench/$* ..."
	@mkdir -p build/bench && unset PIP_CONSTRAINT PIP_BUILD_CONSTRAINT && { $(PYTHON) -m venv --clear build/bench/$* && \
	build/bench/$*/bin/pip install -q --no-deps -r $< && touch $@; } >build/bench/$*.log 2>&1 || echo "That failed; see build/bench/$*.log"

# --clear: what a failed attempt left behind is not built upon.
.venv/.python:
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here: sudo apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Folkmoot needs Python 3.11 or newer and $(PYTHON) is older: sudo apt-get install python3.11-venv, then make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is not installed: sudo apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv
	@touch $@
