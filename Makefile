# `make` sets up .venv and runs what CI runs; `make bench` measures; `make wheel` builds.
PYTHON := .venv/bin/python

# each kind in a process that nothing else has used: GPU threads as coroutines on stacks of their
# own, which have crashed late in a long-lived process; real servers, whose timing others would upset
KERNELS := tests/inference/test_kernels.py tests/inference/test_kernels_plugin.py
RELAY := tests/live/test_relay.py tests/live/test_push.py tests/live/test_relay_inputs.py
LIVE := $(filter-out $(RELAY),$(wildcard tests/live/test_listen.py tests/live/test_relay*.py))
FIRST := tests/train tests/cli tests/files tests/media
SECOND := tests/inference tests/network tests/report tests/live $(wildcard tests/test_*.py)
ALONE := $(addprefix --ignore=,$(KERNELS) $(RELAY) $(LIVE))

.PHONY: all lint types test bench wheel clean
all: lint types test

.venv/ready: pyproject.toml
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --editable '.[dev]'
	touch $@

lint: .venv/ready
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	.venv/bin/lint-imports

types: .venv/ready
	$(PYTHON) -m mypy

test: .venv/ready # two halves side by side; then those that wait more than they compute
	$(PYTHON) -m pytest $(FIRST) & first=$$!; \
	$(PYTHON) -m pytest $(SECOND) $(ALONE); \
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
