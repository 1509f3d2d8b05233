# Each target does all of its own set-up. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: run test lint unit test-boot test-lowest manual bench fuzz lock audit clean

# Build a small live image, its netboot tree, verify it and boot it once.
run: setup
	$(BIN)/python -m tests.tools.demo

# Everything: lint, types, unit, golden, integration, robustness, and boots. What measures time or
# boots a client has the machine to itself.
test: setup lint
	$(PYTEST) -n auto --dist worksteal tests/unit tests/golden
	$(PYTEST) tests/integration tests/robustness tests/boot

# The whole table of boot paths, with real servers on a network of its own; needs root. Then
# each path's negative case, which must fail with a message that helps; then the boots that
# `make test` leaves out.
test-boot: setup
	$(BIN)/python -m tests.boot.table --logs .cache/boot-logs --junit .cache/boot-table.xml
	$(BIN)/python -m tests.boot.table --broken --timeout 150 --junit .cache/boot-broken.xml
	$(BIN)/python -m tests.boot.table --user-network
	$(PYTEST) -m more

# What needs neither time nor QEMU.
unit: setup
	$(PYTEST) -n auto --dist worksteal tests/unit tests/golden

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The manual pages, the completions and the README's table of keys.
manual: setup
	$(BIN)/python -m tests.tools.manual

bench: setup
	$(BIN)/python -m tests.tools.bench.real
	$(BIN)/python -m tests.tools.bench.bench
	$(BIN)/python -m tests.tools.bench.menu
	$(BIN)/python -m tests.tools.bench.memory

# 100,000 inputs to each parser, the whole fault-injection suite, and the attacks by kind.
fuzz: setup
	$(BIN)/python -m tests.robustness.fuzz --runs 100000
	$(BIN)/python -m tests.robustness.faults
	$(BIN)/python -m tests.robustness.attacks

.PHONY: setup
setup: $(VENV)/.complete
	@sh tests/tools/system-packages.sh

# The versions of the lock file, each checked by its hash; nothing else is installed.
$(VENV)/.complete: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Write requirements.lock again, with the newest versions that pyproject.toml allows.
lock: setup
	$(BIN)/python -m tests.tools.dependencies lock

# Ask whether a locked version has a known vulnerability; without a network it says so and passes.
audit: setup
	$(BIN)/python -m tests.tools.dependencies audit

# Unit and golden tests with the oldest versions that pyproject.toml allows.
test-lowest: setup
	$(BIN)/python -m tests.tools.dependencies lowest

clean:
	rm -rf $(VENV) .cache dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
