# A clean clone, Python 3.11 or newer with pip, and make: nothing else is needed.
#   make quickstart   pre-train a small teacher, store its distributions, train two students, compare them
#   make miniature    the paper's design space for two CPU cores: hours; started again, it goes on where it ended
#   make miniature-page   ... its results and findings into docs/
#   make check test   what .ci/run runs
#   make screenshot the picture in docs/report.md (Chromium)
#   make chaos        FAULTS=50 SEED=1: random faults to runs on a SLURM of this machine (root, Debian's packages)
# PIP_FLAGS goes to pip; without an NVIDIA GPU this saves gigabytes of download:
#   make quickstart PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_FLAGS ?=
FAULTS ?= 50
SEED ?= 1
ROOT ?= runs
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile $(PIP_FLAGS)

# Every process of a run imports torch: with bytecode on disk that takes a third of the time.
unexport PYTHONDONTWRITEBYTECODE

MINIATURE := losses alpha temperature truncation sampled online sizes star
ONE_EACH := --processes 1 --root $(ROOT)

.PHONY: quickstart miniature miniature-page test check screenshot bench chaos clean

quickstart: $(VENV)/.train
	$(BIN)/pdforge run recipes/quickstart.yaml

miniature: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pdforge run $(MINIATURE:%=mini/%) $(ONE_EACH) --at-once 2
	$(BIN)/pdforge report $(MINIATURE:%=mini/%) $(ONE_EACH) --out $(ROOT)/miniature

miniature-page:
	$(BIN)/python scripts/miniature.py $(ROOT)/miniature/report.json

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore tests/slurm --numprocesses auto --maxprocesses 8 --dist loadfile
	$(BIN)/python -m pytest tests/slurm --numprocesses 2 --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

screenshot: $(VENV)/.dev
	$(BIN)/python scripts/screenshot.py docs/report/quickstart.png docs/report/quickstart.json

bench: $(VENV)/.dev
	set -e; for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file; done

chaos: $(VENV)/.dev
	$(BIN)/python scripts/chaos.py --faults $(FAULTS) --seed $(SEED)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "pdforge needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml | $(BIN)/python
	@echo "Installing pdforge and what training needs into $(VENV) (a few minutes the first time) ..."
	@$(PIP) --editable '.[train]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing pdforge, what training needs and the developer's tools into $(VENV) ..."
	@$(PIP) --editable '.[train,dev]'
	@touch $@ $(VENV)/.train
