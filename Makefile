# `make` sets up .venv and runs what CI runs; `make bench` measures; `make wheel` builds.
PYTHON := .venv/bin/python

# each kind in a process that nothing else has used: GPU threads as coroutines on stacks of their
# own, which have crashed late in a long-lived process; real servers, whose timing others would upset
FIRST := $(wildcard tests/test_[a-i]*.py)
KERNELS := tests/test_kernels.py tests/test_kernels_plugin.py
RELAY := tests/test_relay.py tests/test_push.py tests/test_relay_inputs.py
LIVE := $(filter-out $(RELAY),$(wildcard tests/test_listen.py tests/test_relay*.py))

.PHONY: all lint types test bench wheel clean
all: lint types test

.venv/ready: pyproject.toml
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --editable '.[dev]'
	touch $@

lint: .venv/ready
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check

types: .venv/ready
	$(PYTHON) -m mypy

test: .venv/ready # two halves side by side; then those that wait more than they compute
	$(PYTHON) -m pytest $(FIRST) & first=$$!; \
	$(PYTHON) -m pytest $(filter-out $(FIRST) $(KERNELS) $(RELAY) $(LIVE),$(wildcard tests/test_*.py)); \
	second=$$?; wait $$first && exit $$second
	$(PYTHON) -m pytest $(KERNELS) & kernels=$$!; $(PYTHON) -m pytest $(RELAY) & relay=$$!; \
	$(PYTHON) -m pytest $(LIVE); \
	live=$$?; wait $$kernels && wait $$relay && exit $$live

bench: .venv/ready
	$(PYTHON) bench/run.py

wheel: .venv/ready
	$(PYTHON) -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf .venv build dist *.egg-info
