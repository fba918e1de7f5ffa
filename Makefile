# The environment lives in .venv; the first target that needs it makes it, later ones find it.
#   make demo   set up, then run the main job on a simulated world and say where the report is
#   make test   set up, then run every test
#   make lint   style, types, and the generated documentation
#   make docs   write the generated documentation again

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint style types pages docs install install-dev clean

help:
	@sed -n 's/^#   //p' Makefile

.venv/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "polypref needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version); use: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/installed: .venv/created pyproject.toml constraints.txt
	@echo "installing into .venv (several minutes the first time)"
	$(PIP) --editable '.[offline,static]'
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[offline,static,dev]'
	@touch $@

install: .venv/installed
install-dev: .venv/installed-dev

demo: install
	$(BIN)/polypref demo

test: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

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

clean:
	rm -rf .venv polypref-demo polypref-report
