# Everything a newcomer, a developer and the continuous integration call.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
OLDEST := .venv-oldest
OLDEST_AIRFLOW := $(shell sed -n 's/.*"apache-airflow>=\([0-9.]*\)".*/\1/p' pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-oldest-airflow lint bench bench-database bench-pipeline bench-ocr bench-residuals score docs constraints clean

help: ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

setup: $(VENV)/.installed ## make .venv, or do nothing where it is up to date

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## de-identify real objects through Airflow; KEEP=1 leaves the user interface running
	$(BIN)/dicom-deid demo $(if $(KEEP),--keep)

test: setup ## every test, with the real servers
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup $(ARGS)

test-oldest-airflow: $(OLDEST)/.installed ## DAGs, hooks and operators, with the oldest Airflow that is supported
	AIRFLOW_HOME=$(abspath $(OLDEST))/airflow PYTHONPATH=$(abspath plugins) $(OLDEST)/bin/python -m pytest \
		tests/airflow/test_dags.py tests/airflow/test_hooks.py tests/airflow/test_operators.py $(ARGS)

# The constraints are those of the newest Airflow: left out is what it asks of others than the oldest does.
$(OLDEST)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(OLDEST)
	grep -vE '^(apache-airflow|apache-airflow-core|apache-airflow-task-sdk|aiosqlite)==' constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(OLDEST)/constraints.txt \
		apache-airflow==$(OLDEST_AIRFLOW) --editable '.[sandbox]' \
		apache-airflow-providers-openlineage hypothesis jsonschema pytest pytest-timeout pytest-xdist
	@touch $@

lint: setup ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup-bench ## the engine beside its peers
	$(BIN)/python -m bench.bench_engine $(ARGS)

bench-database: setup ## the mapping and the plan beside the row-at-a-time way
	$(BIN)/python -m bench.bench_database $(ARGS)

bench-pipeline: setup-bench ## bucket to bucket beside a plain copy and the script it replaces
	$(BIN)/python -m bench.bench_pipeline $(ARGS)

bench-ocr: setup ## text found in pixels
	$(BIN)/python -m bench.bench_ocr $(ARGS)

bench-residuals: setup-bench ## what the residual sweep finds, and what it costs
	$(BIN)/python -m bench.bench_residuals $(ARGS)

score: setup-bench ## recipes and peers on a corpus with planted identifiers
	$(BIN)/python -m bench.bench_score $(ARGS)

.PHONY: setup-bench
setup-bench: $(VENV)/.installed-bench

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	@touch $@

constraints: ## pin what a fresh environment resolves to
	rm -rf .constraints && $(PYTHON) -m venv .constraints
	.constraints/bin/python -m pip install --quiet --disable-pip-version-check '.[dev,bench,fuzz]'
	.constraints/bin/python -m pip freeze --exclude airflow-provider-dicom-deid | grep -v ' @ ' > constraints.txt
	rm -rf .constraints

clean: ## remove the environment and what the demo keeps
	rm -rf $(VENV) $(OLDEST) .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
