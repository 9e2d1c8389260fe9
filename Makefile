# Attune: every command of the project. `make` alone lists them.
# Nothing needs preparing: the first command makes .venv, with the exact versions of constraints.txt.

MODEL  ?= elec4848
CONFIG ?= reference
SIM    ?= verilator
IMAGE  ?= phantom:7
FRAMES ?= 1
TAPS   ?= 0
SIZE   ?=
WIDTH  ?=
OUT    ?=
DRAM   ?=
TRUTH  ?=
PYTEST ?= -n auto

PYTHON  = .venv/bin/python
BASE   := $(shell command -v python3.11 || command -v python3)
READY   = .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup sim disasm synth test unit cosim stream lint check clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' Makefile

sim: $(READY) .venv/.tools  ## run the machine: MODEL CONFIG SIM=verilator|icarus IMAGE TRUTH FRAMES TAPS SIZE WIDTH DRAM OUT
	@$(PYTHON) -m sim.run --model '$(MODEL)' --config '$(CONFIG)' --sim '$(SIM)' \
	  --image '$(IMAGE)' --frames '$(FRAMES)' --taps '$(TAPS)' \
	  $(if $(SIZE),--size '$(SIZE)') $(if $(WIDTH),--width '$(WIDTH)') $(if $(OUT),--out '$(OUT)') \
	  $(if $(DRAM),--dram '$(DRAM)') $(if $(TRUTH),--truth '$(TRUTH)')

disasm: $(READY)  ## print a program as text: PROGRAM=reports/latest/program.bin [ENGINE=gate]
	@$(PYTHON) -m hw.disasm '$(or $(PROGRAM),reports/latest/program.bin)' \
	  $(if $(ENGINE),--engine '$(ENGINE)')

synth: $(READY)  ## map the chip to an ECP5 with Yosys, block by block: CONFIG=edge
	@$(PYTHON) -m hw.synth --config '$(if $(filter file,$(origin CONFIG)),edge,$(CONFIG))'

test: $(READY) .venv/.tools  ## every test but the slow one
	$(PYTHON) -m pytest -m "not slow" $(PYTEST)

unit: $(READY)  ## of them: what Amaranth's own simulator can check
	$(PYTHON) -m pytest -m "not cosim" $(PYTEST)

cosim: $(READY) .venv/.tools  ## of them: the generated Verilog under Icarus and Verilator
	$(PYTHON) -m pytest -m "cosim and not slow" $(PYTEST)

stream: $(READY) .venv/.tools  ## the slow one: three full frames, steady state, some minutes
	$(PYTHON) -m pytest -m slow

lint: $(READY)  ## ruff
	$(PYTHON) -m ruff check .

check: lint test  ## what CI runs: lint, test

setup: $(READY) .venv/.tools  ## the virtual environment and the system's tools; the others call it

clean:  ## forget builds and caches; reports and .venv stay
	rm -rf .build .pytest_cache .ruff_cache

$(READY): constraints.txt
	@test -n '$(BASE)' || { echo 'Python 3.11 is missing; install python3.11'; exit 2; }
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
