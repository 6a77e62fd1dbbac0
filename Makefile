# Needs Python 3.11 or newer and make; Node.js with npm for the front end's tests. The rest is installed here.
PYTHON ?= python3
ARGS ?=
# Test processes: enough to keep two cores busy, since many tests wait.
PROCESSES ?= 4
BIN := .venv/bin
PYTEST = $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal
READY := .venv/.ready
# The tests start hundreds of interpreters, each of which would compile every library anew without bytecode.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test newer unit coverage prove bench contract matrix check check-frontend format lock dist clean

## The main story over real HTTP; ARGS=--serve keeps it running for a browser.
demo: $(READY)
	$(BIN)/python -m tests.support.demo $(ARGS)

## Every test; ARGS are options for pytest.
test: $(READY)
	$(PYTEST) $(ARGS)

## Contract and faults on the reference host's second shape, that of newer hosts.
SUITES ?= tests/contract tests/faults
newer: $(READY)
	$(PYTEST) $(SUITES) --host-shape n $(ARGS)

## The tests that start no process. They hardly wait: two test processes keep two cores busy.
unit: PROCESSES := 2
unit: $(READY)
	$(PYTEST) tests/unit $(ARGS)

## How much of the package the unit tests reach. Python is half as slow again meanwhile.
coverage: $(READY)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 tests/unit $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

## The long versions of the fault tests.
prove: $(READY)
	PROVE=1 $(BIN)/python -m pytest -n 2 tests/faults $(ARGS)

## What it costs, against the straightforward way; ARGS="--json FILE", "--database sqlite".
bench: $(READY)
	$(BIN)/python -m tests.bench $(ARGS)

## The contract against any host: ARGS="--host-dir DIR --host-python PYTHON".
contract: $(READY)
	$(BIN)/python -m pytest tests/contract $(ARGS)

## The main story on every Python here and every set of requirements hosts have.
matrix: $(READY)
	$(BIN)/python -m tests.packaging.matrix

# Where there is no npm, only CI insists on it.
ifneq ($(shell command -v npm)$(CI),)
FRONTEND_CHECK := check-frontend
endif
NODE_MODULES := frontend-patch/node_modules/.package-lock.json

## Linter, formatter, type checker, order of the rooms, whether uv.lock fits pyproject.toml; and the front end's own.
check: $(READY) $(FRONTEND_CHECK)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy docs/examples/*/*.py
	$(BIN)/lint-imports
	$(BIN)/python -m uv lock --quiet --check

check-frontend: $(NODE_MODULES)
	npm --prefix frontend-patch run check

$(NODE_MODULES): frontend-patch/package-lock.json
	npm --prefix frontend-patch ci --silent
	@touch $@

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

## Write uv.lock after a change of pyproject.toml; ARGS=--upgrade takes the newest of everything.
lock: $(READY)
	$(BIN)/python -m uv lock $(ARGS)

dist: $(READY)
	rm -rf dist
	$(BIN)/python -m uv build --out-dir dist

clean:
	rm -rf .venv .cache .coverage* build dist frontend-patch/node_modules

# The .venv is made anew if it has no Python that starts.
$(READY): pyproject.toml uv.lock openwebui_billing_reconcile_autoload.pth
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv sync --quiet --frozen --python $(BIN)/python
	@touch $@
