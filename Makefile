# `make demo` and `make test` set up everything that they need; `make` without a target lists the commands.
#
# An active environment (venv or conda, but not conda's base) is used as it is. Otherwise, or when PYTHON is given, .venv
# is made with PYTHON (default: python3, or another of Python 3.11 to 3.14 that is found).
# TORCH=cpu or TORCH=cuda chooses the build of torch. By default, a torch that is installed stays, and otherwise the
# machine decides: with an NVIDIA GPU or without.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test test-optional clean

PYTHON ?=
TORCH ?=
ifneq ($(CONDA_DEFAULT_ENV),base)
CONDA := $(CONDA_PREFIX)
endif
ACTIVE := $(filter-out $(CURDIR)/.venv,$(or $(VIRTUAL_ENV),$(CONDA)))
ENV := $(if $(PYTHON),.venv,$(or $(ACTIVE),.venv))
RUN := $(ENV)/bin/python

# Set before torch starts: idle threads that spin make all other processes many times slower.
export OMP_WAIT_POLICY ?= passive
export ENV PYTHON TORCH

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup:  ## make or update the environment (.venv, or the active one); PYTHON=python3.14 and TORCH=cuda choose
	@.ci/setup requirements.txt
	@$(RUN) -m utils.system.installation

setup-dev: setup
	@.ci/setup requirements-dev.txt

demo: setup  ## run the whole method on synthetic data; ends with a table and a picture
	$(RUN) demo.py

test: setup-dev  ## run ruff, mypy and pytest; with a GPU, also the tests that need one
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	OMP_NUM_THREADS=1 $(RUN) -m pytest
	@if $(RUN) -c 'import torch; raise SystemExit(not torch.cuda.is_available())'; then \
		$(RUN) -m pytest -m gpu --numprocesses=0; fi

test-optional: setup-dev  ## build requirements-optional.txt (some minutes) and run the tests that need it or a compiler
	$(RUN) -m pip install --quiet setuptools setuptools-scm wheel
	$(RUN) -m pip install --quiet --no-build-isolation -r requirements-optional.txt
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m optional

clean:  ## remove caches and .venv (data, weights and results stay)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
