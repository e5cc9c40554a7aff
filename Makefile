# Commands for users, developers and continuous integration.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
OLDEST := .venv-oldest
OLDEST_AIRFLOW := $(shell sed -n 's/.*"apache-airflow>=\([0-9.]*\)".*/\1/p' pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-oldest-airflow lint dist bench bench-arrival bench-cost bench-database bench-index bench-pipeline bench-devices bench-faults bench-ocr bench-review bench-release bench-residuals score docs constraints clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

setup: $(VENV)/.installed ## create or update .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## de-identify real objects through Airflow; KEEP=1 keeps the user interface running
	$(BIN)/dicom-deid demo $(if $(KEEP),--keep)

test-fast: setup ## unit tests, under two minutes on two cores
	$(BIN)/pytest -n $(WORKERS) -m "not slow" tests/unit $(ARGS)

test: setup ## all tests, with real servers and Airflow
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-oldest-airflow: $(OLDEST)/.installed ## DAGs, hooks and operators with the oldest supported Airflow
	AIRFLOW_HOME=$(abspath $(OLDEST))/airflow PYTHONPATH=$(abspath plugins) $(OLDEST)/bin/python -m pytest \
		tests/airflow/test_dags.py tests/airflow/test_hooks.py tests/airflow/test_operators.py $(ARGS)

# constraints.txt pins what the newest Airflow needs; the oldest has other dependencies of its own, so only pins of ours count.
$(OLDEST)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(OLDEST)
	grep -iE '^(apache-airflow-providers-.*|ahocorasick_rs|alembic|boto.*|obstore|psycopg2-binary|pydicom|sqlalchemy)==' constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(OLDEST)/constraints.txt \
		apache-airflow==$(OLDEST_AIRFLOW) --editable '.[sandbox]' \
		apache-airflow-providers-openlineage hypothesis jsonschema pytest pytest-timeout pytest-xdist
	@touch $@

lint: setup ## ruff, mypy --strict on the package, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup-bench ## engine: time per object, beside peers
	$(BIN)/python -m bench.bench_engine $(ARGS)

bench-cost: setup ## cost as the work grows: rates, sizes, WAL, plans, a billion objects; ARGS="--sizes 10000"
	$(BIN)/python -m bench.bench_cost $(ARGS)

bench-database: setup ## database: set-based mapping and plan, beside row-at-a-time SQL
	$(BIN)/python -m bench.bench_database $(ARGS)

bench-index: setup ## index of a source: header scan, cohort lists, size
	$(BIN)/python -m bench.bench_index $(ARGS)

bench-arrival: setup ## arrivals: delay from stored to de-identified while the triggerer is killed
	$(BIN)/python -m bench.bench_arrival $(ARGS)

bench-pipeline: setup-bench ## pipeline: bucket to bucket, beside a plain copy and the script it replaces
	$(BIN)/python -m bench.bench_pipeline $(ARGS)

bench-devices: setup ## what the device catalogue covers and holds; ARGS="--headers FOLDER" for known decisions
	$(BIN)/python -m bench.bench_devices $(ARGS)

bench-faults: setup ## kills, faults, restarts, manipulations, hostile input: what is survived; ARGS="fuzz --inputs 1000000"
	$(BIN)/python -m bench.bench_faults $(ARGS)

bench-ocr: setup-bench ## text search in pixels: recall and time, beside peers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check azure-ai-formrecognizer pypng pytesseract
	# Without its dependencies: it asks for opencv-python 4, and rapidocr has installed opencv-python-headless 5.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps presidio-image-redactor
	$(BIN)/python -m bench.bench_ocr $(ARGS)

bench-review: setup ## review: clear 1,000 held objects of 20 devices in a browser
	DICOM_DEID_HELD_OBJECTS=1000 $(BIN)/pytest tests/browser/test_review.py -q --durations 3 -k "cleared or new_text" $(ARGS)

bench-release: setup ## corrections: 10,000 objects superseded under readers, kill -9 at every stage
	$(BIN)/python -m bench.bench_release $(ARGS)

bench-residuals: setup-bench ## residual search: recall, false alarms and time
	$(BIN)/python -m bench.bench_residuals $(ARGS)

score: setup-bench ## score recipes and peers on a corpus with planted identifiers
	$(BIN)/python -m bench.bench_score $(ARGS)

.PHONY: setup-bench
setup-bench: $(VENV)/.installed-bench

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	@touch $@

docs: setup ## build the documentation site into build/site; warnings are errors
	$(BIN)/mkdocs build --strict --quiet

dist: setup ## build the sdist and the wheel into dist and check their metadata
	rm -rf dist && $(BIN)/python -m build --outdir dist . && $(BIN)/twine check --strict dist/*

constraints: ## pin the versions that a fresh environment resolves to
	rm -rf .constraints && $(PYTHON) -m venv .constraints
	.constraints/bin/python -m pip install --quiet --disable-pip-version-check '.[dev,bench,fuzz]'
	.constraints/bin/python -m pip freeze --exclude airflow-provider-dicom-deid | grep -v ' @ ' > constraints.txt
	rm -rf .constraints

clean: ## remove the environments, caches and demo data
	rm -rf $(VENV) $(OLDEST) .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
