"""Inside the simulator: one run of the machine, from a job file to a result file.

Python sleeps while the machine works. It wakes when the interrupt rises, and about once a second to
tell how far it is. Everything large moves by backdoor: the off-chip memory reads its image from a
file and writes the masks to one.
"""

import json
import os
import time
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer

from hw.control.regmap import Register, Status
from sim.axi_lite import AxiLiteManager
from sim.starting import starting

PERIOD_NS    = 10
WAKE_SECONDS = 1.0
GRACE        = 1_000_000        # cycles beyond its own limit that the machine may take to stop
COUNTERS     = ("read_bytes", "written_bytes", "row_hits", "row_misses", "refresh_cycles",
                "busy_cycles")


@cocotb.test()
async def run_job(dut):
    job    = json.loads(Path(os.environ["ATTUNE_JOB"]).read_text())
    report = Progress(os.environ.get("ATTUNE_PROGRESS"))
    if job["clock"]:
        Clock(dut.clk, PERIOD_NS, unit="ns").start()
    host = AxiLiteManager(dut, "control")
    for port in ("load", "dump", "dump_first", "dump_count", "inject_error"):
        if hasattr(dut, port):
            dut[port].value = 0
    dut.monitor__tready.value = 1
    await ClockCycles(dut.clk, 4)
    dut.load.value = 1
    await ClockCycles(dut.clk, 4)
    while hasattr(dut, "ready") and not dut.ready.value:
        await ClockCycles(dut.clk, 100)

    start, start_cpu = time.monotonic(), time.process_time()
    for register, value in starting(job):
        await host.write(register, value)
    stopped = await interrupt(dut, report, job["cycle_limit"] + GRACE)
    wall    = time.monotonic() - start
    cpu     = time.process_time() - start_cpu

    status = Status.from_bits(await host.read(Register.STATUS))
    result = {
        "stopped":  stopped,
        "error":    status.error.value,
        "engine":   status.engine.value,
        "memory":   status.memory,
        "wall_s":   wall,
        "cpu_s":    cpu,
        "broken":   dut.violations.value.to_unsigned(),
        "counters": {},
        "offchip":  {name: dut[name].value.to_unsigned() for name in COUNTERS},
    }
    for select in job["counters"]:
        await host.write(Register.COUNTER_SELECT, select)
        low  = await host.read(Register.COUNTER_LO)
        high = await host.read(Register.COUNTER_HI)
        result["counters"][select] = high << 32 | low
    dut.dump_first.value = job["dump_first"]
    dut.dump_count.value = job["dump_count"]
    dut.dump.value = 1
    await ClockCycles(dut.clk, 4)
    Path(job["result"]).write_text(json.dumps(result))


async def interrupt(dut, report, limit):
    """Wait for the interrupt; False if it does not come within ``limit`` cycles."""
    cycles, step, woken = 0, 2000, time.monotonic()
    rising = RisingEdge(dut.irq)
    while cycles < limit:
        timer = Timer(step * PERIOD_NS, unit="ns")
        if await First(rising, timer) is not timer:
            return True
        cycles += step
        seconds, woken = time.monotonic() - woken, time.monotonic()
        report(cycles)
        step = max(100, min(int(step * WAKE_SECONDS / max(seconds, 1e-3)), 8 * step))
    return False


class Progress:
    """Tells the parent process how many cycles are done, one number per line."""

    def __init__(self, descriptor):
        self._descriptor = None if descriptor is None else int(descriptor)

    def __call__(self, cycles):
        if self._descriptor is not None:
            os.write(self._descriptor, f"{cycles}\n".encode())
