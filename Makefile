# One entrance for people and CI. `make` lists the targets.
.DEFAULT_GOAL := help

PYTHON ?= python3
# Passed to pip. For a CPU-only torch on Linux (the default one brings CUDA, several GB):
#   make quickstart PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
# Passed to pytest, e.g. make test PYTEST_ARGS="-m 'not learning and not extras' -x"
PYTEST_ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

# Spinning OpenMP threads on a shared machine slow torch by up to 100 times.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export RAY_USAGE_STATS_ENABLED ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))

.PHONY: help quickstart setup check test test-drills test-extras test-slurm lock clean

help: ## List the targets
	@echo "usage: make TARGET [PYTHON=python3.12] [PIP_ARGS=...] [PYTEST_ARGS=...]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: setup ## Set up, then walk the whole way: logs, simulator, agent, result
	@$(VENV)/bin/rl-rec quickstart

setup: $(READY) ## Create .venv with the locked versions (instant when it is current)

# The stamp makes a second call instant, and a changed lock or setup.cfg installs again.
$(READY): requirements.lock setup.cfg pyproject.toml
	@if ! $(PY) -c '$(SUPPORTED)' 2>/dev/null; then \
		$(PYTHON) -c '$(SUPPORTED)' 2>/dev/null || { \
			echo "error: Python 3.10, 3.11 or 3.12 is needed, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1);" \
				"name another one, e.g. make PYTHON=python3.12 ..." >&2; exit 2; }; \
		echo "creating $(VENV)"; $(PYTHON) -m venv --clear $(VENV); \
	fi
	@echo "installing the locked versions into $(VENV) (some minutes the first time)"
	@$(PY) -m pip install --quiet $(PIP_ARGS) -r requirements.lock
	@$(PY) -m pip install --quiet $(PIP_ARGS) --no-deps -e .
	@touch $@

check: setup ## Format check, lint and types
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy

test: export MPLBACKEND = Agg
test: check ## Check, then run the default tiers of tests
	@$(PY) -m pytest $(PYTEST_ARGS)

test-drills: setup ## The drills: what each fault of a cluster does to a run (25 minutes; one needs root, two moto)
	@$(PY) -m pytest tests/cluster/test_drills.py -m "drills or slow" $(PYTEST_ARGS)

test-slurm: export MPLBACKEND = Agg
test-slurm: setup ## Rendered jobs in a Slurm of two nodes on this machine (apt-get install slurmctld slurmd slurm-client munge)
	@$(PY) -m pytest tests/cluster/test_slurm.py -m slurm $(PYTEST_ARGS)

test-extras: export MPLBACKEND = Agg
test-extras: setup ## The optional tier: other libraries' agents on our environments, trackers, an S3 server
	@$(PY) -m pip install --quiet $(PIP_ARGS) --no-deps -r requirements-extras.lock
	@$(PY) -m pytest -m extras $(PYTEST_ARGS)

# torch's own metadata asks for the CUDA packages that it needs: pinning them here would force them on CPU-only builds.
UNPINNED := ^(nvidia-|cuda-|triton)
LOCK_NOTE := Exact versions for Python 3.10 to 3.12. Regenerate: make lock (newest: make lock LOCK_ARGS=--upgrade).
# Versions already in the output file are kept where setup.cfg still allows them.
define RESOLVE
	@grep -hv '^#' requirements.lock requirements-extras.lock > build/resolved.txt
	@build/lock/bin/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
		--output-file build/resolved.txt $(LOCK_ARGS) setup.cfg
endef

# An environment of its own, so that a lock that no longer installs can be repaired.
lock: ## Resolve setup.cfg into requirements.lock and requirements-extras.lock
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install --quiet $(PIP_ARGS) uv
	$(RESOLVE) --extra dev
	@{ echo "# Run time and development. $(LOCK_NOTE)"; grep -vE '$(UNPINNED)' build/resolved.txt; } > build/base.lock
	$(RESOLVE) --extra dev --extra agents --extra wandb --extra mlflow --extra moto
	@{ echo "# What the agents, wandb, mlflow and moto extras add to requirements.lock. $(LOCK_NOTE)"; \
		grep -vE '$(UNPINNED)' build/resolved.txt | grep -vxFf build/base.lock; } > build/extras.lock
	@mv build/base.lock requirements.lock
	@mv build/extras.lock requirements-extras.lock

clean: ## Remove .venv, build output and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
