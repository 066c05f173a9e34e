# `make help` lists the targets. Every target sets up what it needs; a machine with Python 3.11, make and Java 17 is
# enough; the tests also want PostgreSQL's server, or root and apt-get to install it.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Two parts run at a time (tests/run.py). Each part with Spark has a session of its own, so there are few of them; the
# long ones come first. The kills need no session beside those that they kill, so they fill the end.
OWN_PROCESSES := tests/e2e/test_demo.py tests/e2e/test_kills.py
PARTS := "tests/ops -m spark" "tests/e2e $(OWN_PROCESSES:%=--ignore=%)" "tests/ops -m 'not spark'" \
	tests/e2e/test_demo.py "tests/engine tests/macros" tests/e2e/test_kills.py
export DBT_PROFILES_DIR := profiles

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# The stamp is newer than the lock only when everything in it is installed.
$(VENV)/installed: requirements.lock pyproject.toml packages/dbt_spark_sessions/pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not on PATH. Install Python 3.11, or name one: make PYTHON=python3.12 …" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e packages/dbt_spark_sessions
	@touch $@

# Spark's jars; the stamp is newer than their list only when all of them are there.
$(VENV)/jars/installed: profiles/jars.lock $(VENV)/installed
	$(BIN)/python -m python_ops.lake.jars
	@touch $@

# An archive of Spark's classes, with which each Spark starts quicker; what starts none does not wait for it.
$(VENV)/jars/classes.jsa: $(VENV)/jars/installed
	@echo "Making an archive of Spark's classes, once (about a minute)"
	@$(BIN)/python -m python_ops.lake.class_archive

# The packages of packages.yml. The stamp lies among them, so it goes when they go.
dbt_packages/installed: packages.yml package-lock.yml $(VENV)/installed
	$(BIN)/dbt --quiet --log-path target/deps deps
	@touch $@

.PHONY: installed
installed: $(VENV)/installed $(VENV)/jars/installed dbt_packages/installed

.PHONY: setup
setup: installed $(VENV)/jars/classes.jsa ## Make .venv, Spark's jars (both pinned, with hashes), dbt_packages, an archive of classes

.PHONY: logstore
logstore: installed ## Delta's log store for a home in a bucket, by javac, into .venv/jars
	$(BIN)/python infra/logstore/build.py

.PHONY: demo
demo: setup ## Run the job on the bundled batches: load, build, four late batches, build, publish, docs
	$(BIN)/lakeops demo

.PHONY: lint
lint: installed dbt-rules ## Style, types, the floors of python_ops, the rules of the dbt project
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/sqlfluff lint --disable-progress-bar dbt_project tests/contracts

.PHONY: dbt-rules
dbt-rules: installed
	$(BIN)/dbt --quiet --log-path target/lint parse --target-path target/lint
	COLUMNS=200 $(BIN)/dbt-bouncer run

.PHONY: servers
servers: ## PostgreSQL's binaries for the tests, by apt-get when root and absent
	@tests/install_servers.sh

.PHONY: golden
golden: installed ## Write the engine's SQL to tests/engine/golden; read its diff before you commit it
	PYTHONPATH=tests/macros $(BIN)/python tests/engine/golden.py

.PHONY: reference
reference: installed ## Write what docs/ takes from the code: pages of commands, settings, files; pictures of the engine's rows
	PYTHONPATH=tests/ops $(BIN)/python tests/ops/reference.py
	PYTHONPATH=tests/engine:tests/macros $(BIN)/python tests/engine/pictures.py

.PHONY: test-fast
test-fast: installed servers ## Tests that answer in a minute and a half: no Spark, few servers
	$(BIN)/python tests/run.py "tests/engine --ignore=tests/engine/test_scenarios.py" "tests/ops tests/e2e" \
		"tests/engine/test_scenarios.py tests/macros" -- -q -m "not spark and not slow and not campaign"

.PHONY: coverage
coverage: installed servers ## Lines of python_ops that the tests without Spark run; pages in target/coverage
	$(BIN)/pytest -q -m "not spark and not slow and not campaign" --cov --cov-report=term:skip-covered tests
	$(BIN)/coverage html --quiet

.PHONY: test
test: lint setup servers ## Everything that CI runs, in two processes at a time
	$(BIN)/python tests/run.py $(PARTS) -- -m "not campaign"

.PHONY: test-all
test-all: lint setup servers target/debezium/installed test-airflow ## Everything: many more histories, every kill, drill, Connect, Airflow (over an hour)
	$(BIN)/python tests/run.py $(PARTS) --

# Airflow pins what dbt pins otherwise, so it has an environment of its own.
target/airflow/installed: infra/airflow/requirements.lock
	$(PYTHON) -m venv target/airflow
	target/airflow/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# Debezium's embedded engine has 415 jars and a JVM of its own: no part of .venv.
target/debezium/installed: tests/debezium/requirements.lock
	$(PYTHON) -m venv target/debezium
	target/debezium/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

.PHONY: debezium
debezium: target/debezium/installed ## Debezium's own engine (200 MB), for tests/ops/test_debezium_recordings.py

.PHONY: test-airflow
test-airflow: setup target/airflow/installed ## The DAGs in real Airflow, on the bundled data
	AIRFLOW_HOME=$(CURDIR)/target/airflow-home AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__UNIT_TEST_MODE=False \
		target/airflow/bin/pytest -q -c infra/airflow/pytest.ini infra/airflow/tests

.PHONY: docs-site
docs-site: reference ## The pages of docs/ as a site, in target/site; a link to nothing fails
	$(BIN)/zensical build --clean --strict

.PHONY: emr-archive
emr-archive: installed ## What a job on EMR Serverless carries: target/emr/lakehouse.tar.gz (275 MB)
	$(BIN)/python infra/emr/archive.py target/emr/lakehouse.tar.gz

.PHONY: bench-cdc
bench-cdc: setup ## An incremental CDC model against a MERGE by hand, and dbt snapshot (about ten minutes)
	$(BIN)/python bench/cdc.py && $(BIN)/python bench/cdc_table.py

.PHONY: bench-cdc-large
bench-cdc-large: setup ## The same with 8 and 32 million rows, first load and full refresh (about twenty minutes)
	$(BIN)/python bench/cdc.py --large && $(BIN)/python bench/cdc_table.py

.PHONY: bench-maintenance
bench-maintenance: setup ## Micro-merges with and without maintenance (about ten minutes)
	$(BIN)/python bench/maintenance.py

.PHONY: bench-publish
bench-publish: setup servers ## Publishing a changed table against overwriting it directly (about three minutes)
	$(BIN)/python bench/publish.py

.PHONY: bench-ingest
bench-ingest: setup ## Ingestion against a plain append without checks (a few minutes)
	$(BIN)/python bench/ingest.py

.PHONY: bench-recovery
bench-recovery: installed ## Snapshots of an unchanged and a slightly changed lake beside full copies (a minute, no Spark)
	$(BIN)/python bench/recovery.py

.PHONY: lock
lock: ## Pin every dependency again, with hashes and no index addresses
	$(PYTHON) -m venv target/lock && target/lock/bin/pip install --quiet uv
	target/lock/bin/uv pip compile pyproject.toml --all-extras --group test --group docs --python-version 3.11 --generate-hashes \
		--no-strip-extras --no-header --no-annotate --upgrade --output-file requirements.lock
	target/lock/bin/uv pip compile infra/airflow/requirements.in --python-version 3.11 --generate-hashes --no-header \
		--no-annotate --upgrade --output-file infra/airflow/requirements.lock
	target/lock/bin/uv pip compile tests/debezium/requirements.in --python-version 3.11 --generate-hashes --no-header \
		--no-annotate --upgrade --output-file tests/debezium/requirements.lock

.PHONY: clean
clean: ## Remove what runs and builds left (.lake/, target/), not .venv
	rm -rf .lake target logs
