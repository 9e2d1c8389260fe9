# Attune: every command of the project. `make` alone lists them; sim/commands.py has what they take.
# Nothing needs preparing: the first command makes .venv, with the exact versions of constraints.txt.

PYTEST ?= -n auto

PYTHON  = .venv/bin/python
BASE   := $(shell command -v python3.11 || command -v python3)
READY   = .venv/.ready
ASK     = $(or $(wildcard $(PYTHON)),'$(BASE)') -m sim.commands

# Threads of PyTorch wait asleep: awake, they starve themselves wherever something else runs.
export OMP_WAIT_POLICY ?= passive

# Values go from MAKEFLAGS to the programs as they were typed: neither make nor a shell reads them.
export GOALS := $(MAKECMDGOALS)
unexport $(filter-out OMP_%,$(foreach word,$(MAKEOVERRIDES),$(firstword $(subst =, ,$(word)))))

SIMULATE = sim wave fuzz hostile hostile-code hostile-bus faults mutants bench explore
PROGRAMS = $(SIMULATE) check-model quantise zoo node-tests notebooks models compare page disasm \
           machine synth cost gates verilog bitstream program prove onnx train folds export evaluate \
           quantise-report explain

.DEFAULT_GOAL := help
.PHONY: $(PROGRAMS) guard help setup test unit cosim stream pins lint check clean

help: | guard
	@$(ASK) help

# What sim/commands.py knows of every target: its program, its variables, and what may be in them.
guard:
	@test -n '$(BASE)' || { echo 'error: Python 3.11 is missing; install python3.11'; exit 2; }
	@$(ASK) guard

$(PROGRAMS): $(READY)
	@$(PYTHON) -m sim.commands run $@

$(SIMULATE): .venv/.tools
wave: .venv/.waves
zoo:  .venv/.zoo

test: $(READY) .venv/.tools .venv/.waves .venv/.browser
	$(PYTHON) -m pytest -m "not slow" --durations=20 $(PYTEST)

unit: $(READY)
	$(PYTHON) -m pytest -m "not cosim" $(PYTEST)

cosim: $(READY) .venv/.tools .venv/.waves
	$(PYTHON) -m pytest -m "cosim and not slow" $(PYTEST)

stream: $(READY) .venv/.tools
	$(PYTHON) -m pytest -m slow

pins: $(READY) .venv/.tools
	$(PYTHON) -m pytest tests/sim/test_machine.py -m "not slow" --pins $(PYTEST)

lint: $(READY)
	$(PYTHON) -m ruff check .

check: lint test

setup: $(READY) .venv/.tools .venv/.waves

clean: | guard
	rm -rf .build .pytest_cache .ruff_cache

$(READY): constraints.txt | guard
	@'$(BASE)' -m venv .venv || { echo 'Python has no venv; install python3-venv'; exit 2; }
	@echo 'Installing the versions of constraints.txt into .venv'
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps -r constraints.txt
	@touch $@

.venv/.tools: $(READY)
	@for tool in iverilog g++; do command -v $$tool > /dev/null || missing="$$missing $$tool"; done; \
	if [ -z "$$missing" ]; then touch $@; exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "Installing$$missing with apt-get"; \
	  apt-get update -qq && apt-get install -y -qq iverilog g++ > /dev/null && touch $@; \
	else \
	  echo "Missing$$missing; install Icarus Verilog and a C++ compiler (iverilog, g++)"; exit 2; \
	fi

# The extra `zoo` of pyproject.toml, apart from the rest: its torchvision does not fit every build of
# PyTorch. Optional: without it `make zoo` leaves its networks out.
.venv/.zoo: pyproject.toml $(READY)
	@echo 'Installing the extra zoo of pyproject.toml into .venv'
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target .venv/zoo $$($(PYTHON) -c \
	  'import tomllib; print(*tomllib.load(open("$<", "rb"))["project"]["optional-dependencies"]["zoo"])') \
	  && touch $@ || echo 'It cannot be had here; networks of these libraries will be left out'

# Optional likewise: without these, waveforms come from Icarus only.
.venv/.waves: $(READY)
	@if ! printf '\043include <lz4.h>\n\043include <zlib.h>\n' | g++ -E -x c++ - > /dev/null 2>&1 \
	    && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo 'Installing liblz4-dev zlib1g-dev with apt-get'; \
	  apt-get update -qq; apt-get install -y -qq liblz4-dev zlib1g-dev > /dev/null; \
	fi; \
	touch $@

# Optional: where it cannot be had, tests that look at pages are skipped and say so.
.venv/.browser: $(READY)
	@if ! command -v chromium > /dev/null && [ "$$(id -u)" = 0 ] \
	    && command -v apt-get > /dev/null; then \
	  echo 'Installing chromium with apt-get'; \
	  apt-get update -qq; apt-get install -y -qq --no-install-recommends chromium > /dev/null; \
	fi; \
	command -v chromium > /dev/null \
	  || echo 'chromium cannot be had here; tests of pages in a browser will be skipped'; \
	touch $@
