# Two commands do everything on a machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

# What runs apt-get: nobody, sudo or, elsewhere, a `make browser AS_ROOT=doas`.
AS_ROOT ?= $(if $(filter 0,$(shell id -u)),,sudo --non-interactive)

.PHONY: demo test test-slow browser style clean

.venv/pip-demo .venv/pip-dev .venv/pip-browser: .venv/pip-%: pyproject.toml constraints.txt
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

test-slow: .venv/pip-dev  ## the long tests
	$(BIN)/python -m pytest -m slow

browser: .venv/pip-browser  ## what tests/browser needs: Debian's chromium, and playwright to drive it
	chromium --version || chromium-browser --version || google-chrome --version || \
		{ $(AS_ROOT) apt-get update && $(AS_ROOT) apt-get install --yes chromium fonts-dejavu-core; }

style: .venv/pip-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf out
