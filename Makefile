PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
export DO_NOT_TRACK := 1

.PHONY: help install demo test test-full lint clean

help:
	@echo "make demo       complete the example dataset (examples/scenes)"
	@echo "make test       the fast tests"
	@echo "make test-full  every test, the slow ones too"
	@echo "make lint       ruff and mypy"

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.8"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --compile-bytecode --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/rag4dmc run examples/scenes/dmc.yaml

# Each file by one process; tests of real processes and servers use ports and folders of their own.
PYTEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile

test: $(STAMP)
	$(PYTEST) -m "not slow"

test-full: $(STAMP)
	$(PYTEST) --durations 40 --durations-min 5

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs
