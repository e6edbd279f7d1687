# `make` sets up .venv and runs what CI runs; `make bench` measures; `make wheel` builds.
PYTHON := .venv/bin/python

# Tests start hundreds of processes; without .pyc files, each would compile every module.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: all lint types test bench wheel clean
all: .venv/ready
	$(MAKE) --jobs 2 lint types test

.venv/ready: pyproject.toml
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --no-compile --editable '.[dev]' # compiled where it is imported
	touch $@

lint: .venv/ready
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	.venv/bin/lint-imports

types: .venv/ready
	$(PYTHON) -m mypy

test: .venv/ready # plain `pytest` does the same in one process; live tests wait more than they compute
	$(PYTHON) -m pytest -n 4 --dist loadfile --no-loadscope-reorder

bench: .venv/ready
	$(PYTHON) bench/run.py

wheel: .venv/ready
	$(PYTHON) -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf .venv build dist *.egg-info
