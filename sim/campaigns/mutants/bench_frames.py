"""Inside the simulator: every mutant of a job runs small frames until one of them shows it.

A line of the results file for each mutant, as soon as it is known: its number, the frame that
showed it (None: none did), and how. Mutant 0 is the machine as it is, and comes first: how a run
ends, with which error of which engine, and what it counts must be as there. A run that ends well
must leave the right bytes. Each mutant has a fork of the simulator, so nothing is left of another.
"""

import json
import os
from pathlib import Path

import cocotb
from cocotb.triggers import ClockCycles, First, RisingEdge, SimTimeoutError, Timer, with_timeout

from hw.control.counters import LEDGER_ENGINES, Counter, LayerField, counter_index
from hw.control.regmap import EVERY_INTERRUPT, Control, Interrupt, Register, Status
from hw.isa import Cause, Engine, Traffic
from sim.axi_lite import AxiLiteError, AxiLiteManager

PERIOD_NS   = 10
PATIENCE    = 2000      # cycles that a register access may take
STALL_LIMIT = 10_000
MEDDLE      = 3000      # cycles from the start of a run
WHOLE_MAP   = {"MONITOR_LAYER": 0, "MONITOR_X0": 0, "MONITOR_Y0": 0, "MONITOR_WIDTH": 0x7FF,
               "MONITOR_HEIGHT": 0xFFF, "MONITOR_DECIMATE": 0, "MONITOR_ENABLE": 1}
COUNTERS  = {
    "cycles": [counter_index(Counter.CYCLES)],
    "bytes":  [counter_index(kind, traffic) for kind in (Counter.READ_BYTES, Counter.WRITTEN_BYTES)
               for traffic in Traffic],
}
LEDGER    = [*(counter_index(Counter.RETIRED, engine) for engine in Engine),
             *(counter_index(Counter.LAYER, engine, layer, field) for engine in LEDGER_ENGINES
               for layer in range(16) for field in LayerField),
             *(counter_index(kind, 0) for kind in (Counter.FRAME_STARTED, Counter.FRAME_ENDED)),
             *(counter_index(kind, number) for number in range(2)
               for kind in (Counter.FRAMES, Counter.BURSTS)),
             *(counter_index(kind, port) for port in range(8)
               for kind in (Counter.ONCHIP_READS, Counter.ONCHIP_WRITES))]
CAUSES    = {engine: [counter_index(Counter.CAUSE, engine, cause) for cause in Cause]
             for engine in Engine}


class Shown(Exception):
    """A frame shows the mutant; the argument says how."""


@cocotb.test()
async def mutants(dut):
    job = json.loads(Path(os.environ["ATTUNE_JOB"]).read_text())
    for port in (dut.load, dut.dump, dut.dump_first, dut.dump_count, dut.inject_error):
        port.value = 0
    dut.monitor__tready.value = 1
    await ClockCycles(dut.clk, 4)
    for number in job["mutants"]:
        here, there = os.pipe()
        child = os.fork()
        if not child:
            try:
                tell(job, await ask(dut, job, number))
                os.write(there, json.dumps([frame["pins"] for frame in job["frames"]]).encode())
            finally:
                os._exit(0)             # also if the bench fails: then it has told nothing
        os.close(there)
        with os.fdopen(here, "rb") as pipe:
            pins = pipe.read()
        os.waitpid(child, 0)
        if not pins:
            tell(job, {"mutant": number, "frame": "all", "how": "simulator or bench ended"})
        elif number == 0:               # the others are held against it
            for frame, known in zip(job["frames"], json.loads(pins), strict=True):
                frame["pins"] = known


def tell(job, found):
    with Path(job["results"]).open("a") as results:
        results.write(json.dumps(found) + "\n")


async def ask(dut, job, number):
    """Which frame shows a mutant, and how."""
    dut.mutant.value = number
    host = AxiLiteManager(dut, "control")
    await ClockCycles(dut.clk, 4)
    for frame in job["frames"]:
        try:
            await run(dut, host, job, frame)
        except Shown as shown:
            return {"mutant": number, "frame": frame["name"], "how": str(shown)}
    return {"mutant": number, "frame": None, "how": None}


async def run(dut, host, job, frame):
    async def patiently(access):
        try:
            return await with_timeout(access, PATIENCE * PERIOD_NS, "ns")
        except SimTimeoutError:
            raise Shown("a register does not answer") from None
        except AxiLiteError as error:
            raise Shown(str(error)) from None

    async def counter(select):
        await patiently(host.write(Register.COUNTER_SELECT, select))
        low = await patiently(host.read(Register.COUNTER_LO))
        return low | await patiently(host.read(Register.COUNTER_HI)) << 32

    monitor = {**WHOLE_MAP, **frame.get("monitor", {})}
    broken  = int(dut.violations.value)
    image   = Path(job["image"])
    image.unlink(missing_ok=True)
    image.symlink_to(frame["image"])
    dut.load.value = 1
    await ClockCycles(dut.clk, 2)
    dut.load.value = 0
    for register, value in ((Register.IRQ_ENABLE, Interrupt.const({"done": 1}).as_bits()),
                            (Register.STALL_LIMIT, STALL_LIMIT),
                            (Register.CYCLE_LIMIT_LO, frame.get("cycle_limit", 0)),
                            (Register.PROGRAM_BASE, frame["program_base"]),
                            *((Register[name], value) for name, value in monitor.items()),
                            (Register.CONTROL, Control.const({"start": 1}).as_bits())):
        await patiently(host.write(register, value))
    # Whoever takes longer than the machine without a mutant is seen, so there is no need to wait.
    limit   = min(frame["limit"], frame["pins"].get("cycles", frame["limit"]) + PATIENCE)
    timeout = Timer(limit * PERIOD_NS, unit="ns")
    rising  = RisingEdge(dut.irq)
    if "meddle" in frame:
        first = await First(rising, Timer(MEDDLE * PERIOD_NS, unit="ns"))
        if first is rising:
            raise Shown("an interrupt before its time")
        if frame["meddle"] == "stop":
            await patiently(host.write(Register.CONTROL, Control.const({"stop": 1}).as_bits()))
        else:
            dut.inject_error.value = {"read": 0b01, "write": 0b10}[frame["meddle"]]
    if not dut.irq.value and await First(rising, timeout) is timeout:
        raise Shown("no interrupt")
    dut.inject_error.value = 0
    word   = await patiently(host.read(Register.STATUS))
    try:
        status = Status.from_bits(word)
        error, engine = status.error.name, int(status.engine)
    except ValueError:
        raise Shown(f"status {word:#x}, which means nothing") from None
    if error != frame["pins"]["error"]:
        raise Shown(f"error {error}")
    if status.busy or not status.done:
        raise Shown("busy, or not done, after the interrupt")
    how = [engine if error != "NONE" else None, status.stopped, status.unanswered,
           await patiently(host.read(Register.IRQ_STATUS))]
    if how != frame["pins"].setdefault("how", how):
        raise Shown(f"engine, stopped, unanswered, interrupts: {how}")
    if int(dut.violations.value) != broken:
        raise Shown("a rule of a bus is broken")
    if error != "NONE" or status.stopped:
        await patiently(host.write(Register.IRQ_STATUS, EVERY_INTERRUPT))
        return
    dut.dump_first.value, dut.dump_count.value = frame["dump_first"], frame["dump_count"]
    dut.dump.value = 1
    await ClockCycles(dut.clk, 4)
    dut.dump.value = 0
    if Path(job["dump"]).read_bytes() != Path(frame["outputs"]).read_bytes():
        raise Shown("wrong bytes")
    now = {name: sum([await counter(select) for select in selects])
           for name, selects in COUNTERS.items()}
    for engine, selects in CAUSES.items():
        if sum([await counter(select) for select in selects]) != now["cycles"]:
            raise Shown(f"causes of {engine.name} do not sum to the cycles")
    now["rows"]    = await patiently(host.read(Register.MONITOR_SENT))
    now["dropped"] = await patiently(host.read(Register.MONITOR_DROPPED))
    now["taps and monitor"] = int(dut.heard.value)
    if frame.get("ledger"):
        for select in LEDGER:
            now[f"counter {select:#x}"] = await counter(select)
    await patiently(host.write(Register.IRQ_STATUS, EVERY_INTERRUPT))
    for name, value in now.items():
        pinned = frame["pins"].setdefault(name, value)      # by mutant 0, which comes first
        if value > pinned or (value != pinned and name != "cycles"):
            raise Shown(f"{name}: {value} instead of {pinned}")
