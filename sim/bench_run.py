"""Inside the simulator: one run of the machine, from a job file to a result file.

Python sleeps while the machine works. It wakes when the interrupt rises, when a frame comes, and
about once a second to tell how far it is. Everything large moves by backdoor: the off-chip memory
reads its image from a file and writes the masks to one.
"""

import json
import os
import time
from collections import deque
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer
from cocotb.utils import get_sim_time

from hw.control.regmap import Interrupt, Register, Status
from sim.axi_lite import AxiLiteManager
from sim.starting import starting

PERIOD_NS    = 10
WAKE_SECONDS = 1.0
GRACE        = 1_000_000        # cycles beyond its own limit that the machine may take to stop
NEVER        = 1 << 60
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
    live    = Live(host, job["arrivals"])
    stopped = await interrupt(dut, live, report, job["cycle_limit"] + GRACE)
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
        "arrivals": live.arrived,
        "read":     live.cycle,
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


async def interrupt(dut, live, report, limit):
    """Wait for the end of the run, and hand over frames until then; False if it does not come
    within ``limit`` cycles."""
    step, woken = 2000, time.monotonic()
    rising = RisingEdge(dut.irq)
    while live.cycle < limit:
        before = live.cycle
        timer  = Timer(max(1, min(step, live.next - before)) * PERIOD_NS, unit="ns")
        if not dut.irq.value and await First(rising, timer) is timer:
            await live.hand_over()
            seconds, woken = time.monotonic() - woken, time.monotonic()
            report(live.cycle)
            step = max(100, min(int((live.cycle - before) * WAKE_SECONDS / max(seconds, 1e-3)),
                                8 * step))
        elif await live.is_done():
            return True
    return False


class Live:
    """The host while the machine runs: frames come at ``due`` cycles, masks go.

    ``cycle`` counts from the write that started the run; ``arrived`` are the cycles in which the
    machine was told of a frame."""

    def __init__(self, host, due):
        self.arrived = []
        self._host, self._due = host, deque(due)
        self._began = get_sim_time("ns")
        self._live  = bool(due)

    @property
    def cycle(self):
        return int(get_sim_time("ns") - self._began) // PERIOD_NS

    @property
    def next(self):
        """When the next frame is due."""
        return self._due[0] if self._due else NEVER

    async def hand_over(self):
        """Tell the machine of the frames that are due."""
        while self.next <= self.cycle:
            self._due.popleft()
            await self._host.write(Register.FRAMES_READY, len(self.arrived) + 2)
            self.arrived.append(self.cycle)

    async def is_done(self):
        """Whether the interrupt is that of the end. Masks are taken note of."""
        if not self._live:
            return True
        events = Interrupt.from_bits(await self._host.read(Register.IRQ_STATUS))
        if events.mask:
            await self._host.write(Register.IRQ_STATUS, Interrupt.const({"mask": 1}).as_bits())
        return bool(events.done)


class Progress:
    """Tells the parent process how many cycles are done, one number per line."""

    def __init__(self, descriptor):
        self._descriptor = None if descriptor is None else int(descriptor)

    def __call__(self, cycles):
        if self._descriptor is not None:
            os.write(self._descriptor, f"{cycles}\n".encode())
