# Two commands do everything: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 1000
FIRST ?= 0
RUNS ?= 20
COUNT ?= 100000
WORKERS ?= 1

.PHONY: venv demo test check simulate mutants persist dispute partition crowd attacks honest soak exhaustive equality fuzz-programs golden bench bench-round bench-step bench-learning bench-digests bench-chain bench-store bench-sync bench-finality bench-proof bench-robustness bench-aggregate clean
.DELETE_ON_ERROR:

venv: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3,11) <= sys.version_info[:2] < (3,14) else "Milon needs Python 3.11 to 3.13; this is %d.%d. Try: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked packages into $(VENV) (once, 1 to 3 minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --prefer-binary -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: venv
	@$(BIN)/milon demo

# Three workers on two cores: two of them mostly wait, for networks (see tests/conftest.py).
test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3

check: venv
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/house

simulate: venv
	$(BIN)/python -m tests.simulation.campaign --seeds $(SEEDS) --first $(FIRST)

mutants: venv
	$(BIN)/python -m tests.simulation.mutants

attacks: venv
	$(BIN)/python -m tests.attacks.campaign

honest: venv
	$(BIN)/python -m bench.honest

persist: venv
	$(BIN)/python -m tests.system.persist

dispute: venv
	$(BIN)/python -m tests.system.dispute

partition: venv
	$(BIN)/python -m tests.system.partition

crowd: venv
	$(BIN)/python -m tests.system.crowd

soak: venv
	$(BIN)/python -m tests.system.soak --runs $(RUNS)

exhaustive: venv
	$(BIN)/python -m bench.exhaustive $(if $(FUNCTIONS),--functions $(FUNCTIONS))

equality: venv
	$(BIN)/python -m bench.equality

fuzz-programs: venv
	$(BIN)/python -m bench.fuzz_programs --count $(COUNT)

golden: venv
	$(BIN)/python -m bench.golden

bench: bench-round bench-step bench-learning bench-digests bench-chain bench-store bench-sync bench-finality bench-aggregate bench-proof

bench-round: venv
	$(BIN)/python -m bench.round

bench-step: venv
	$(BIN)/python -m bench.step

bench-learning: venv
	$(BIN)/python -m bench.learning

bench-digests: venv
	$(BIN)/python -m bench.digests

bench-chain: venv
	$(BIN)/python -m bench.chain

bench-store: venv
	$(BIN)/python -m bench.store

bench-sync: venv
	$(BIN)/python -m bench.sync

bench-finality: venv
	$(BIN)/python -m bench.finality

bench-aggregate: venv
	$(BIN)/python -m bench.aggregate

# Not part of `bench`: about 20 minutes of a core of its own; WORKERS=N shares them out.
bench-robustness: venv
	$(BIN)/python -m bench.robustness --workers $(WORKERS)

bench-proof: venv
	$(BIN)/python -m bench.proof

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
