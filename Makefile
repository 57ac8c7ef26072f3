# One command does one thing; each makes what it needs first.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BUDGET ?= smoke
# Processes that tests are spread over.
TESTERS ?= auto
BIN := .venv/bin
STAMP := .venv/.installed
INPUTS := pyproject.toml setup.py requirements.lock
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check

# One thread per process is fastest for networks of this size.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup reproduce test test-slow test-cluster lint format bench gpu gpu-wheels results records unpack-records clean

help:
	@echo "make reproduce     set up, rebuild a part of Table 1 of manchev2020 and print it (BUDGET=smoke|laptop|paper)"
	@echo "make test          set up, run the fast tests"
	@echo "make test-slow     run the slow tests"
	@echo "make test-cluster  jobs on a SLURM and a Ray that the tests start and stop (needs Debian's slurm-wlm and munge)"
	@echo "make lint          ruff and mypy"
	@echo "make format        let ruff format the code"
	@echo "make bench         time an iteration of each trainer: outputs/bench/iteration.json (PAGE=docs/performance.md)"
	@echo "make gpu           on a machine with a GPU: its tests and times in 8 minutes, what is missing at the next call;"
	@echo "                   outputs/bench/gpu.json, docs/performance.md (DEVICE=cpu: a rehearsal, FORCE=1: anew, PYTHON=)"
	@echo "make gpu-wheels    packages for such a machine without a registry: wheels/ (WHEELS=\"NAME ...\")"
	@echo "make results       make the tables and figures of docs/results anew from outputs/"
	@echo "make records       pack what they were made of into docs/results/runs.tar.xz; make unpack-records: into outputs/"
	@echo "make setup         only make .venv and install"
	@echo "make clean         remove .venv and caches; outputs/ stays"

# The stamp holds the folder it was made in: a moved or copied .venv is made anew.
setup:
	@if [ "$$(cat $(STAMP) 2>/dev/null)" != "$(CURDIR)" ]; then rm -f $(STAMP); fi
	@$(MAKE) -s $(STAMP)

$(STAMP): $(INPUTS)
	@if [ -z "$(PYTHON)" ]; then echo "setup: Python 3.11 or newer is needed; name it by PYTHON=/path/to/python" >&2; exit 2; fi
	@echo "setup: making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv
	@echo "setup: installing torch 2.13.0, the largest part (this may take minutes the first time)"
	@$(PIP) install torch==2.13.0
	@echo "setup: installing the other packages at the versions of requirements.lock"
	@$(PIP) install -r requirements.lock
	@$(PIP) install --no-build-isolation --no-deps -e .
	@echo "$(CURDIR)" > $@
	@echo "setup: done"

reproduce: setup
	@$(BIN)/tprnn reproduce manchev2020/table1 budget=$(BUDGET)
	@$(BIN)/tprnn report --paper manchev2020/table1

test: setup
	@$(BIN)/python -m pytest -n $(TESTERS)

test-slow: setup
	@$(BIN)/python -m pytest -n $(TESTERS) -m slow

# Installs Ray into .venv, but no services of the whole machine: SLURM and munge are named where they are missing.
test-cluster: setup
	@missing=$$(for p in munged slurmctld slurmd sbatch; do PATH="$$PATH:/usr/sbin" command -v $$p >/dev/null || printf ' %s' $$p; done); \
	if [ -n "$$missing" ]; then \
		echo "test-cluster: no$$missing on this machine; as root: apt-get install --no-install-recommends slurm-wlm munge" >&2; exit 2; fi
	@$(BIN)/python -c 'import ray, aiohttp' 2>/dev/null || \
		{ echo "test-cluster: installing ray (about 300 MB)"; $(PIP) install --no-build-isolation -e '.[ray]'; }
	@$(BIN)/python -m pytest -m cluster

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	@$(BIN)/python -m tprnn.bench $(if $(PAGE),--into $(PAGE))

# Not after setup: it takes the PyTorch that is there, and no package registry.
DEVICE ?= cuda
GPU_PAGE ?= $(if $(filter cuda%,$(DEVICE)),docs/performance.md)
gpu:
	@python3 tprnn/bench/gpu_start.py --device $(DEVICE) $(if $(filter file,$(origin PYTHON)),,--python $(PYTHON)) \
		$(if $(GPU_PAGE),--into $(GPU_PAGE)) $(if $(JSON),--out $(JSON)) $(if $(PARTS),--parts $(PARTS)) $(if $(FORCE),--force)

gpu-wheels:
	@$(PYTHON) tprnn/bench/gpu_start.py --fetch $(WHEELS)

results: setup
	@for page in docs/results/*.md; do $(BIN)/tprnn report --into $$page || exit; done

# What tables and figures are made of: configs, results and metrics of finished runs, no weights. The same runs give the same bytes.
OUTPUTS ?= outputs
RECORDS ?= docs/results/runs.tar.xz
TAR := tar --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rw,go=r --mtime=@0
records:
	@cd $(OUTPUTS) && find runs -name result.json -exec grep -lE '"status": "(solved|not_solved|diverged)"' {} + | \
		while read -r result; do run=$${result%/*}; \
		for file in config.yaml result.json earlier.jsonl metrics.jsonl; do \
			if [ -f "$$run/$$file" ]; then printf '%s\0' "$$run/$$file"; fi; done; done > .records
	@$(TAR) -C $(OUTPUTS) --null -T $(OUTPUTS)/.records --use-compress-program='xz -9e' -cf $(RECORDS); rm -f $(OUTPUTS)/.records

unpack-records:
	@mkdir -p $(OUTPUTS)
	@tar -C $(OUTPUTS) --skip-old-files -xJf $(RECORDS)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build *.egg-info
