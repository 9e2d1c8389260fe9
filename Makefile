# Attune: every command of the project. `make` alone lists them.
# Nothing needs preparing: the first command makes .venv, with the exact versions of constraints.txt.

MODEL  ?= elec4848
CONFIG ?= reference
SIM    ?= verilator
IMAGE  ?= phantom:7
FRAMES ?= 1
TAPS   ?= 0
TRACE  ?= 0
SIZE   ?=
WIDTH  ?=
OUT    ?=
DRAM   ?=
TRUTH  ?=
PYTEST ?= -n auto

PYTHON  = .venv/bin/python
BASE   := $(shell command -v python3.11 || command -v python3)
READY   = .venv/.ready

# Threads of PyTorch wait asleep: awake, they starve themselves wherever something else runs.
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: explain onnx check-model fuzz help setup sim page wave disasm models train export evaluate synth test unit cosim stream lint check clean bench compare

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' Makefile

sim: $(READY) .venv/.tools  ## run the machine: MODEL CONFIG SIM=verilator|icarus IMAGE TRUTH FRAMES TAPS TRACE SIZE WIDTH DRAM OUT
	@$(PYTHON) -m sim.run --model '$(MODEL)' --config '$(CONFIG)' --sim '$(SIM)' \
	  --image '$(IMAGE)' --frames '$(FRAMES)' --taps '$(TAPS)' --trace '$(TRACE)' \
	  $(if $(SIZE),--size '$(SIZE)') $(if $(WIDTH),--width '$(WIDTH)') $(if $(OUT),--out '$(OUT)') \
	  $(if $(DRAM),--dram '$(DRAM)') $(if $(TRUTH),--truth '$(TRUTH)')

check-model: $(READY)  ## whether a network runs, where, and at what cost: MODEL=file.onnx|name CONFIG SIZE WIDTH IMAGE REFEREE=0
	@$(PYTHON) -m hw.check --model '$(MODEL)' --config '$(CONFIG)' --image '$(IMAGE)' \
	  $(if $(SIZE),--size '$(SIZE)') $(if $(WIDTH),--width '$(WIDTH)') \
	  $(if $(REFEREE),--referee '$(REFEREE)')

fuzz: $(READY) .venv/.tools  ## random networks, every tensor compared: N SEED CONFIG=tiny,edge ENGINE=rtl|interpreter REFEREE=1
	@$(PYTHON) -m sim.fuzz $(if $(N),--n '$(N)') $(if $(SEED),--seed '$(SEED)') \
	  $(if $(filter file,$(origin CONFIG)),,--config '$(CONFIG)') \
	  $(if $(ENGINE),--engine '$(ENGINE)') $(if $(REFEREE),--referee '$(REFEREE)') \
	  $(if $(DEPTH),--depth '$(DEPTH)') $(if $(WIDEST),--widest '$(WIDEST)') \
	  $(if $(SIDE),--side '$(SIDE)') $(if $(CUT),--cut '$(CUT)')

page: $(READY)  ## make report.html of a run again: RUN=reports/latest
	@$(PYTHON) -m sim.page '$(or $(RUN),reports/latest)'

onnx: $(READY)  ## write a network as ONNX QDQ, checked by ONNX Runtime: MODEL WIDTH SIZE IMAGE OUT
	@$(PYTHON) -m golden.referee --model '$(MODEL)' --image '$(IMAGE)' \
	  $(if $(SIZE),--size '$(SIZE)') $(if $(WIDTH),--width '$(WIDTH)') $(if $(OUT),--out '$(OUT)')

# `make train EPOCHS=3` becomes --epochs 3; what is not given keeps its default.
option = $(if $(2),--$(1) '$(2)')
flag   = $(if $(filter 1,$(2)),--$(1))

train: $(READY)  ## train a network: MODEL DATA=folder|table.csv|phantom:N OUT EPOCHS LOSS RATE BATCH SCHEDULE WIDTH SIZE CROP SEED START RESUME=1 SKIP=1 CLAHE=1 ARGS
	@$(PYTHON) -m golden.train --model '$(MODEL)' $(call option,data,$(DATA)) \
	  $(call option,out,$(OUT)) $(call option,width,$(WIDTH)) $(call option,size,$(SIZE)) \
	  $(call option,crop,$(CROP)) $(call option,epochs,$(EPOCHS)) $(call option,loss,$(LOSS)) \
	  $(call option,rate,$(RATE)) $(call option,batch,$(BATCH)) $(call option,seed,$(SEED)) \
	  $(call option,schedule,$(SCHEDULE)) $(call option,start,$(START)) \
	  $(call option,split,$(SPLIT)) $(call option,device,$(DEVICE)) $(call flag,resume,$(RESUME)) \
	  $(call flag,skip,$(SKIP)) $(call flag,clahe,$(CLAHE)) $(ARGS)

export: $(READY)  ## quantise a checkpoint into golden/weights or OUT: CHECKPOINT DATA SPLIT OUT SKIP=1 CLAHE=1 ARGS
	@$(PYTHON) -m golden.export --checkpoint '$(or $(CHECKPOINT),runs/train/best.pt)' \
	  $(if $(filter file,$(origin MODEL)),,--model '$(MODEL)') $(call option,data,$(DATA)) \
	  $(call option,width,$(WIDTH)) $(call option,size,$(SIZE)) $(call option,out,$(OUT)) \
	  $(call option,split,$(SPLIT)) $(call flag,skip,$(SKIP)) $(call flag,clahe,$(CLAHE)) $(ARGS)

evaluate: $(READY)  ## measure masks, float beside INT8: MODEL DATA OUT PART=all|train|validation|test CHECKPOINT WIDTH SIZE SKIP=1 CLAHE=1
	@$(PYTHON) -m golden.evaluate --model '$(MODEL)' $(call option,data,$(DATA)) \
	  $(call option,out,$(OUT)) $(call option,part,$(PART)) $(call option,width,$(WIDTH)) \
	  $(call option,size,$(SIZE)) $(call option,checkpoint,$(CHECKPOINT)) \
	  $(call option,split,$(SPLIT)) $(call flag,skip,$(SKIP)) $(call flag,clahe,$(CLAHE)) $(ARGS)

explain: $(READY)  ## why the network decided so, on one sheet: IMAGE MODEL WIDTH SIZE TRUTH CHECKPOINT OUT WINDOW STRIDE
	@$(PYTHON) -m golden.explain --model '$(MODEL)' --image '$(IMAGE)' \
	  $(if $(SIZE),--size '$(SIZE)') $(if $(WIDTH),--width '$(WIDTH)') $(if $(OUT),--out '$(OUT)') \
	  $(if $(TRUTH),--truth '$(TRUTH)') $(if $(WINDOW),--window '$(WINDOW)') \
	  $(if $(STRIDE),--stride '$(STRIDE)') $(if $(CHECKPOINT),--checkpoint '$(CHECKPOINT)')

bench: $(READY) .venv/.tools  ## table of models x presets x off-chip timings: MODELS CONFIGS DRAMS FRAMES IMAGE SIZE FULL=1 OUT REUSE=0
	@$(PYTHON) -m sim.benchmark --image '$(IMAGE)' --frames '$(FRAMES)' \
	  $(if $(MODELS),--models '$(MODELS)') $(if $(CONFIGS),--configs '$(CONFIGS)') \
	  $(if $(DRAMS),--drams '$(DRAMS)') $(if $(SIZE),--size '$(SIZE)') \
	  $(if $(WIDTH),--width '$(WIDTH)') $(if $(OUT),--out '$(OUT)') $(if $(REUSE),--reuse '$(REUSE)') \
	  $(if $(FULL),--full '$(FULL)')

compare: $(READY)  ## two runs side by side, what got better and worse: A=reports/x B=reports/y [OUT FORCE]
	@$(PYTHON) -m sim.compare_runs $(if $(A),--a '$(A)') $(if $(B),--b '$(B)') \
	  $(if $(OUT),--out '$(OUT)') $(if $(FORCE),--force '$(FORCE)')

wave: $(READY) .venv/.tools .venv/.waves  ## waveforms of one event of a run: AT=mismatch|error|layer:NAME|CYCLE [RUN=reports/latest] [WINDOW=2000]
	@$(PYTHON) -m sim.wave --run '$(or $(RUN),reports/latest)' --at '$(AT)' --window '$(or $(WINDOW),2000)'

disasm: $(READY)  ## print a program as text: PROGRAM=reports/latest/program.bin [ENGINE=gate]
	@$(PYTHON) -m hw.disasm '$(or $(PROGRAM),reports/latest/program.bin)' \
	  $(if $(ENGINE),--engine '$(ENGINE)')

models: $(READY)  ## the five networks in figures, beside the published ones: MARKDOWN=1
	@$(PYTHON) -m golden.table $(if $(MARKDOWN),--markdown)

synth: $(READY)  ## map the chip to an ECP5 with Yosys, block by block: CONFIG=edge
	@$(PYTHON) -m hw.synth --config '$(if $(filter file,$(origin CONFIG)),edge,$(CONFIG))'

test: $(READY) .venv/.tools .venv/.waves .venv/.browser  ## every test but the slow one
	$(PYTHON) -m pytest -m "not slow" $(PYTEST)

unit: $(READY)  ## of them: what Amaranth's own simulator can check
	$(PYTHON) -m pytest -m "not cosim" $(PYTEST)

cosim: $(READY) .venv/.tools .venv/.waves  ## of them: the generated Verilog under Icarus and Verilator
	$(PYTHON) -m pytest -m "cosim and not slow" $(PYTEST)

stream: $(READY) .venv/.tools  ## the slow one: three full frames, steady state, some minutes
	$(PYTHON) -m pytest -m slow

lint: $(READY)  ## ruff
	$(PYTHON) -m ruff check .

check: lint test  ## what CI runs: lint, test

setup: $(READY) .venv/.tools .venv/.waves  ## the virtual environment and the system's tools; the others call it

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
