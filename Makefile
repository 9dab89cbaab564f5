# Needs Python >= 3.11 and make, nothing else. Another interpreter: make PYTHON=python3.12 test
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ROOMS  := $(addprefix odfa.,engine error feedback encode opu demodulate structured draws project features settings tasks session store train arms recipes scaling data lab compat flow fourier errors)
STAMP  := $(VENV)/.installed
# a process for each core, four at most, of one thread each: two threads a test would be twice as many as there are cores
TESTS  := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile

.PHONY: help demo test test-slow lint bench docs lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       digits, then a GPT on dialogues, by backprop and through simulated light, side by side (6 to 10 minutes)"
	@echo "make test       the tests (12 to 22 minutes)      make test-slow  the long ones too"
	@echo "make lint       style and types             make docs       pages in site/"
	@echo "make bench      step times of the engine, speed of light path and projections"

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(None if sys.version_info >= (3, 11) else \
	  f"expected Python 3.11 or later, got {v}; name another one: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -e .
	@touch $@

demo: $(STAMP)
	$(BIN)/odfa compare digits arms=bp,shallow,dfa,tdfa,odfa seeds=3
	$(BIN)/odfa compare dialogue_tiny arms=bp,shallow,dfa,odfa seeds=1 tries=1 --run-dir runs/demo-dialogue
	$(BIN)/odfa sample runs/demo-dialogue/bp-* runs/demo-dialogue/odfa-* runs/demo-dialogue/shallow-* count=2 \
	  prompt="Hi, how are you?"

test: $(STAMP)
	$(TESTS)

test-slow: $(STAMP)
	$(TESTS) -m "slow or not slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/light_path.py
	$(BIN)/odfa project bench

docs: $(STAMP)
	$(BIN)/python -m pdoc --docformat google --math -o site odfa $(ROOMS)

lock: $(STAMP)
	@head -2 requirements.lock > requirements.lock.new
	@$(BIN)/python -m pip freeze --exclude-editable | \
	  sed 's/+cpu//; s/^triton==.*/&; sys_platform == "linux"/' >> requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache
