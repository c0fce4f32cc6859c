# make install | demo | demo-scene | page-picture | test | lint | clean
# PIP_FLAGS reaches pip, for example to choose the index of PyTorch's CPU or CUDA wheels.

SHELL     := /bin/bash
PYTHON    ?= python3
VENV      ?= .venv
PIP_FLAGS ?=
BIN       := $(VENV)/bin
STAMP     := $(VENV)/.wys-installed
WORKERS   ?= 2

.PHONY: install demo demo-scene page-picture test lint format clean
.DEFAULT_GOAL := install

install: $(STAMP)

# torch comes first and alone, so that nothing that depends on it can choose another build.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_FLAGS) -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/python examples/demo.py demo

demo-scene: install
	$(BIN)/python examples/demo_scene.py demo-scene

page-picture: install
	$(BIN)/python examples/page_screenshot.py docs/images/page.png

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src/wys

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One thread per worker: two processes that each use every core slow each other down.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

clean:
	rm -rf $(VENV) demo demo-scene build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
