# Everything a newcomer needs: `make run` starts a mesh, `make test` checks it. `make help` lists the rest.
# The environment is made on first use, and again when the lock changes. Only Python 3.11+ and make are needed.

VENV ?= .venv
ARGS ?=
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install $(shell test -t 2 || echo --quiet --quiet)

.PHONY: help run demo sim bench bench-door bench-engine bench-mesh gpu fuzz test browser lint docs lock clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

run: $(VENV)/runtime.stamp ## start a three-node mesh on this machine; Ctrl-C stops it
	@$(PY) -m node mesh --nodes 3 $(ARGS)

demo: $(VENV)/runtime.stamp ## kill nodes under running streams and compare every text
	@$(PY) -m node demo $(ARGS)

sim: $(VENV)/runtime.stamp ## run the simulator (ARGS="--help" lists what it can do)
	@$(PY) -m sim $(ARGS)

bench: $(VENV)/test.stamp ## measure start-up, first token and decoding beside named peers
	@$(PY) -m tests.bench $(ARGS)

bench-mesh: $(VENV)/test.stamp ## membership beside serf's, with real processes (root, serf, nftables; ARGS=--quick)
	@$(PY) -m tests.bench.mesh $(ARGS)

bench-door: $(VENV)/test.stamp ## a node as front door beside nginx, haproxy and routers (wrk, nginx; ARGS=--quick)
	@$(PY) -m tests.bench.door $(ARGS)

bench-engine: $(VENV)/test.stamp ## the engine beside llama.cpp and transformers on this processor (npm; ARGS=--quick)
	@$(PY) -m tests.bench.engine $(ARGS)

gpu: $(VENV)/test.stamp ## prove and measure the GPU path on this machine's GPU; ten minutes, writes reports/gpu.json
	@$(PY) -m tests.bench.gpu $(ARGS)

fuzz: $(VENV)/test.stamp ## a minute of hostile files and patterns, and a ledger of how each ended
	@$(PY) -m tests.fuzz $(ARGS)

test: $(VENV)/test.stamp browser ## run all tests (ARGS="-m 'not slow'" for the quick ones)
	@$(PY) -m pytest -q $(ARGS)

lint: $(VENV)/test.stamp ## check style and layers
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m pytest -q tests/tidy -m 'not slow'

docs: $(VENV)/test.stamp ## write the reference pages from the code
	@$(PY) -m node.cli.reference > docs/reference/settings.md.new
	@mv docs/reference/settings.md.new docs/reference/settings.md

clean: ## remove the environment and everything that was built
	@if [ -f $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV); fi
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find mesh kernels node sim tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/made.stamp:
	@[ -n "$(PYTHON)" ] || { echo "error: no Python 3.11 or newer was found" >&2; \
		echo "hint: install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 && $(PY) -m pip --version >/dev/null 2>&1 || { \
		echo "error: $(PYTHON) -m venv made no working environment (this Python lacks venv or ensurepip)" >&2; \
		echo "hint: on Debian or Ubuntu: apt install python3-venv; then run make again" >&2; \
		rm -rf $(VENV); exit 1; }
	@touch $@

$(VENV)/runtime.stamp: requirements/runtime.lock | $(VENV)/made.stamp
	@echo "installing what a node needs (torch is most of it; once, some minutes on a slow line)"
	@$(PIP) -r $<
	@touch $@

$(VENV)/test.stamp: requirements/test.lock requirements/runtime.lock | $(VENV)/made.stamp
	@echo "installing what a node and its tests need (torch is most of it; once, some minutes on a slow line)"
	@$(PIP) -r $<
	@touch $(VENV)/runtime.stamp $@

# The page test wants a Chromium. It is installed where that is possible without asking; else that test is skipped.
browser: | $(VENV)/made.stamp
	@requirements/browser.sh $(VENV)/browser.stamp

# Pins for Python 3.11 to 3.13, without hashes: torch exists as several builds of one version. What torch itself
# pins (its CUDA libraries, triton) is left to it, so that a build without CUDA pulls none.
lock: $(VENV)/made.stamp ## resolve the newest versions into requirements/*.lock
	@$(PIP) uv
	@requirements/lock.sh $(VENV)/bin/uv
