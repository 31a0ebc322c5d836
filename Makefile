# Two commands do everything on a machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

# What runs apt-get as root: nothing, sudo or, elsewhere, `make browser AS_ROOT=doas`.
AS_ROOT ?= $(if $(filter 0,$(shell id -u)),,sudo --non-interactive)

.PHONY: demo test test-slow test-browser browser style clean

.venv/pip-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

demo: .venv/pip-demo  ## train on a synthetic street, evaluate on unseen towns, write out/demo
	$(BIN)/python examples/demo.py --output_dir out/demo

test: .venv/pip-dev  ## lint, then every test that is not slow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: .venv/pip-slow  ## the long tests
	$(BIN)/python -m pytest -m slow

test-browser: browser .venv/pip-dev  ## the tests of tests/browser, which `make test` skips without a browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/browser

browser: .venv/pip-browser  ## playwright, and Debian's chromium where there is no Chrome or Chromium
	chromium --version || chromium-browser --version || google-chrome --version || \
		{ $(AS_ROOT) apt-get update && $(AS_ROOT) apt-get install --yes chromium fonts-dejavu-core; }

style: .venv/pip-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf out
