# `make help` lists what there is. Everything runs in the environment .venv, which is made where it is missing.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test environment export clean-notebooks in-sync test-notebooks test-python lint readme docs measures hooks oldest release

PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do if $$p -c '' 2>/dev/null; then echo $$p; break; fi; done)
VENV ?= .venv
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
WORKERS ?= 2
export PATH := $(abspath $(VENV))/bin:$(PATH)
export MPLBACKEND ?= agg

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || sed -n 's/^\([a-z-]*\):.*## /  make \1:  /p' Makefile

demo: $(STAMP) ## install, integrate the embedded demo (simulated cells), and say where the report lies
	@cvqvae integrate

test: $(DEV) ## everything that has to hold: in sync, notebooks, pytest with coverage, ruff
	@$(MAKE) --no-print-directory in-sync lint test-notebooks test-python

environment: $(DEV) ## the environment for development

$(STAMP): settings.ini setup.py constraints.txt .ci/environment
	@.ci/environment $(VENV) $(PYTHON) ""
	@touch $@

$(DEV): settings.ini setup.py constraints.txt .ci/environment
	@.ci/environment $(VENV) $(PYTHON) dev
	@touch $(STAMP) $@

export: $(DEV) ## write the package, and its type stubs, from the notebooks
	@nbdev_export
	@python .ci/stubs.py

clean-notebooks: $(DEV) ## strip what does not belong into git from the notebooks
	@nbdev_clean

in-sync: $(DEV) ## fail where notebooks, package, stubs and README disagree
	@.ci/in-sync

test-notebooks: $(DEV) ## run every numbered notebook and every tutorial
	@OMP_NUM_THREADS=1 nbdev_test --n_workers $(WORKERS) --timing

test-python: $(DEV) ## pytest, with the coverage of the package
	@OMP_NUM_THREADS=1 pytest --numprocesses $(WORKERS) --dist loadfile --cov=cvqvae --cov-report=term

lint: $(DEV) ## ruff on the package, its tests and the scripts; in the notebooks, names that are unused or unknown
	@ruff check cvqvae tests setup.py .ci nbs/benchmarks/*.py
	@ruff check --isolated --select F401,F821,F841 --per-file-ignores 'nbs/00_datasets.ipynb:F401' nbs

measures: $(DEV) ## cell and function lengths, prose to code, what has no example, sizes of outputs
	@python .ci/measures.py

readme: $(DEV) ## README.md from nbs/index.ipynb
	@python .ci/readme.py

docs: $(DEV) ## the documentation as a website in _docs; fails on a broken link
	@.ci/docs

oldest: $(DEV) ## pytest with the oldest versions that settings.ini allows
	@.ci/oldest

release: $(DEV) ## wheel, source archive and list of materials in dist/, tried in an environment of their own, and an audit
	@.ci/release

hooks: $(DEV) ## git merges notebooks cell by cell, and trusts them
	@nbdev_install_hooks
