# On a machine with Python 3.11+ and make, `make demo` and `make test` do everything, installation included.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

# The prefix that gives apt-get root rights. Elsewhere than under sudo: `make browser AS_ROOT=doas`.
AS_ROOT ?= $(if $(filter 0,$(shell id -u)),,sudo --non-interactive)

.PHONY: demo test lint style docs coverage test-slow test-browser browser clean

# Installs the package with an extra; the file is the mark that it was done. torch comes first, because a CPU build that
# is installed already then stays.
.venv/pip-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

demo: .venv/pip-demo  ## train on a synthetic street, evaluate on unseen towns, write out/demo
	$(BIN)/python examples/demo.py --output_dir out/demo

# Two test processes share two cores, so each has one OpenMP thread.
test: lint  ## lint and types, then every test that is not slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

lint: .venv/pip-dev  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: .venv/pip-dev  ## format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/pip-docs  ## the site, in site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

coverage: .venv/pip-dev  ## lines and branches that the tests run; an error below the floor in pyproject.toml
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow" --cov=uov_hf --cov=uov_hf_cli --cov-branch \
		--cov-report=term-missing:skip-covered

test-slow: .venv/pip-slow  ## the slow tests
	$(BIN)/python -m pytest -m slow

test-browser: browser .venv/pip-dev  ## the tests of tests/browser, which `make test` skips without a browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/browser

browser: .venv/pip-browser  ## playwright, and Debian's chromium if there is neither Chrome nor Chromium
	chromium --version || chromium-browser --version || google-chrome --version || \
		{ $(AS_ROOT) apt-get update && $(AS_ROOT) apt-get install --yes chromium fonts-dejavu-core; }

clean:  ## delete what the targets above write, except .venv
	rm -rf out site build dist
