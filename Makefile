# Everything runs in $(VENV), which is made on first use and again when pyproject.toml or constraints.txt change.
# pip's own configuration decides where packages come from, and so which build of torch (CPU or CUDA) it is.

PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TIMED := autoscale live load serve profile_cpu profile_ends profile_gpu
# Tests that start no server and measure no time: on all cores. The others run one after another.
APART := $(addprefix tests/,$(addprefix rapp/,graph inference model profiles report training) \
	$(addprefix scaler/,capacity core forecast policies replay sources)) \
	$(wildcard tests/scaler/test_*.py) \
	$(filter-out $(addprefix %/test_,$(addsuffix .py,$(TIMED))),$(wildcard tests/rapp/cli/test_*.py)) \
	$(filter-out %/test_doctor.py %/test_doctor_gpu.py %/test_recommend.py,$(wildcard tests/rapp/test_*.py))
EXTRAS := cpu,train,plot,fast,forecast,ray,serve,kubernetes,dev

.PHONY: help test lint format demo native constraints clean
.DEFAULT_GOAL := help

help: ## Show these targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

test: lint ## Lint, type-check, and run the tests (RAPP_V100_DIR names the public V100 profiles).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile $(APART)
	$(BIN)/python -m pytest $(addprefix --ignore ,$(APART))

lint: $(STAMP) ## Style, format, types (strict) and import rules.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP) ## Rewrite the sources in the project's format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(STAMP) ## Run the demonstration.
	$(BIN)/python scripts/demo.py

native: ## Build the quota library for CUDA programs (needs a C compiler).
	$(MAKE) --no-print-directory -C native

constraints: $(STAMP) ## Pin what is installed now in constraints.txt.
	$(BIN)/python -m pip freeze --all --exclude-editable | sed -n \
		-e '/^pip==/d' -e 's/+[a-z0-9.]*$$//' -e '/==/p' > constraints.txt.part
	mv constraints.txt.part constraints.txt
	touch $(STAMP)

clean: ## Remove the environment and everything that can be made again.
	rm -rf $(VENV) build dist native/build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find rapp profiler scaler tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11 or later: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# setuptools comes first and pinned, so that building the package downloads nothing of its own.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--no-build-isolation -e '.[$(EXTRAS)]'
	touch $@
