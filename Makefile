# make setup, then make demo or make test. Needs Debian's python3 (3.11 or newer), python3-venv and make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
BENCH_STAMP := .venv-bench/.installed
MCT_STAMP := .venv-mct/.installed
NC_STAMP := .venv-nc/.installed
PYTEST := $(BIN)/pytest -n 2 --dist loadgroup -q
PIP_QUIET := -qq --disable-pip-version-check

export TF_CPP_MIN_LOG_LEVEL := 2

.PHONY: setup dot demo test test-all golden lint types bench mutants architectures clean

setup: dot $(STAMP)

# Graphviz's program: `pip install graphviz` brings only the Python side of it.
dot:
	@command -v dot >/dev/null && exit 0; \
	if [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
		echo 'setup: installing graphviz (for dot) with apt-get'; \
		apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends graphviz >/dev/null; \
	else \
		echo "setup: Graphviz's dot is missing; run: sudo apt-get install graphviz" >&2; exit 1; \
	fi

# $(call make-venv,FOLDER): a virtual environment, or a line that says what is missing.
define make-venv
@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'setup: Python 3.11 or newer is needed; name one with make PYTHON=...' >&2; exit 1; }
@[ -x $(1)/bin/pip ] || { echo 'setup: making $(1)'; "$(PYTHON)" -m venv $(1) || { echo 'setup: no venv module; run: sudo apt-get install python3-venv' >&2; exit 1; }; }
endef

$(STAMP): pyproject.toml constraints.txt
	$(call make-venv,.venv)
	@echo 'setup: installing tfpasses and its tools into .venv (TensorFlow is large: some minutes)'
	@$(BIN)/pip install $(PIP_QUIET) -e '.[test,dev,demo]' -c constraints.txt
	@touch $@
	@echo 'setup: done'

$(BENCH_STAMP): pyproject.toml constraints.txt constraints-bench.txt
	$(call make-venv,.venv-bench)
	@echo 'bench: installing tfpasses and the tools it is compared with into .venv-bench (torch is large: some minutes)'
	@.venv-bench/bin/pip install $(PIP_QUIET) -e '.[bench]' -c constraints.txt -c constraints-bench.txt
	@touch $@

# Sony's toolkit wants Keras 2, so it lives apart. Where it does not install, its part of the benchmark is skipped.
$(MCT_STAMP): constraints-mct.txt
	$(call make-venv,.venv-mct)
	@echo 'bench: installing model-compression-toolkit into .venv-mct (an older TensorFlow comes with it: some minutes)'
	@if .venv-mct/bin/pip install -q $(PIP_QUIET) model-compression-toolkit tensorflow -c constraints-mct.txt; then touch $@; else \
		rm -rf .venv-mct; echo 'bench: model-compression-toolkit does not install here (it needs Python 3.11, for TensorFlow 2.15); going on without'; fi

# Intel's toolkit is large and reads GraphDefs only, so it lives apart too. Where it does not install, its part is skipped.
$(NC_STAMP): constraints.txt constraints-nc.txt
	$(call make-venv,.venv-nc)
	@echo 'bench: installing neural-compressor-tf into .venv-nc (TensorFlow comes with it: some minutes)'
	@if .venv-nc/bin/pip install $(PIP_QUIET) neural-compressor-tf -c constraints.txt -c constraints-nc.txt; then touch $@; else \
		rm -rf .venv-nc; echo 'bench: neural-compressor-tf does not install here; going on without'; fi

demo: setup
	@$(BIN)/python demo/digits.py

test: setup
	@$(PYTEST)

test-all: setup
	@$(PYTEST) -m 'slow or not slow'

# pytest-regressions fails each test whose file it has just rewritten (status 1), so the second run gives the verdict.
golden: setup
	@echo 'golden: writing the expected files anew (the failures of this run are the rewritten files)'
	@$(BIN)/pytest tests/golden -q -m 'slow or not slow' --force-regen --tb=no || [ $$? -eq 1 ]
	@echo 'golden: checking against them'
	@$(BIN)/pytest tests/golden -q -m 'slow or not slow'

lint: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports

types: $(STAMP)
	@$(BIN)/mypy

# Each script of benchmarks/ in turn (names that start with _ are helpers); all run, any failure counts.
bench: $(BENCH_STAMP) $(MCT_STAMP) $(NC_STAMP)
	@failed=''; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	for script in benchmarks/[!_]*.py; do \
		echo "=== $$script ==="; \
		.venv-bench/bin/python "$$script" 2>&1 | tee "$$log" || { failed="$$failed $$script"; continue; }; \
		if grep -qw FAIL "$$log"; then failed="$$failed $$script"; fi; \
	done; \
	[ -z "$$failed" ] || { echo "bench: failed:$$failed" >&2; exit 1; }

mutants: $(STAMP)
	@$(BIN)/python tests/mutants/run.py

# docs/architectures.md: each of keras.applications folded and measured; half an hour and more.
architectures: $(STAMP)
	@$(BIN)/python docs/make_architectures.py

clean:
	rm -rf .venv .venv-bench .venv-mct .venv-nc build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
