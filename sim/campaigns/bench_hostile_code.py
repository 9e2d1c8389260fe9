"""Inside the simulator: one machine, thousands of spoiled programs, each followed by a good one.

Prepared by :mod:`sim.campaigns.hostile_code`, which reads one line of JSON per case as it is done.
"""

import json
import os
import pickle
import random
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer
from cocotb.utils import get_sim_time

from hw.control.regmap import EVERY_INTERRUPT, Control, Interrupt, Register, Status
from hw.isa import Engine, Error
from sim.axi_lite import AxiLiteManager
from sim.campaigns.mutations import mutate

PERIOD_NS = 10
STALL     = 2000        # cycles without progress that stop a run
GRACE     = 200         # cycles beyond all limits until the interrupt


@cocotb.test()
async def spoiled_programs_and_good_ones(dut):
    job   = json.loads(Path(os.environ["ATTUNE_JOB"]).read_text())
    bases = pickle.loads(Path(job["bases"]).read_bytes())
    if job["clock"]:
        Clock(dut.clk, PERIOD_NS, unit="ns").start()
    machine = Machine(dut, job)
    await machine.prepare()
    for base in bases:
        await machine.good(base)
    tell({"ready": machine.faults})
    if machine.faults:
        return
    for case in range(job["seed"], job["seed"] + job["n"]):
        rng    = random.Random(case)
        mutant = mutate(rng.choice(bases), rng)
        status, cycles, kept = await machine.run(mutant.base, mutant.image, mutant.program_base)
        await machine.good(rng.choice(bases))
        tell({"case": case, "kind": mutant.kind, "what": f"{mutant.base.name}: {mutant.what}",
              "error": status.error.name, "engine": Engine(status.engine).name, "cycles": cycles,
              "kept": kept, "faults": machine.faults})
        if machine.hangs:
            return
        machine.faults = []


def tell(line):
    os.write(int(os.environ["ATTUNE_PROGRESS"]), json.dumps(line).encode() + b"\n")


class Machine:
    """Runs programs, and collects in ``faults`` what must never happen, in words."""

    def __init__(self, dut, job):
        self.dut, self.host = dut, AxiLiteManager(dut, "control")
        self.image, self.dump = Path(job["image"]), Path(job["dump"])
        self.vector = job["vector"]
        self.protected = job["protected"]
        self.faults = []
        self.hangs  = False
        self.broken = 0         # bus rules broken so far
        self.known  = {}        # register -> value

    async def prepare(self):
        dut = self.dut
        for port in (dut.load, dut.dump, dut.dump_first, dut.dump_count, dut.inject_error,
                     dut.check, dut.first, dut.count):
            port.value = 0
        dut.monitor__tready.value = 1
        await ClockCycles(dut.clk, 4)
        await self.host.write(Register.IRQ_ENABLE, Interrupt.const({"done": 1}).as_bits())
        await self.host.write(Register.STALL_LIMIT, STALL)
        for register, value in ((Register.MONITOR_WIDTH, 0x7FF), (Register.MONITOR_HEIGHT, 0xFFF),
                                (Register.MONITOR_ENABLE, 1)):
            await self.host.write(register, value)

    async def good(self, base):
        """An unspoiled run, in which every byte must be right."""
        status, _, kept = await self.run(base, base.image, base.program_base)
        if status.error is not Error.NONE or not kept:
            wrong = base.wrong(self.dump.read_bytes())
            self.faults.append(f"the good run of {base.name} after it " + (
                f"left {len(wrong)} wrong bytes, the first at {wrong[0]:#x}"
                if status.error is Error.NONE else f"ended with {status.error.name}"))

    async def run(self, base, image, program_base):
        """Status and cycles of a run, and whether the window then holds what a good run leaves."""
        dut, host = self.dut, self.host
        limit = 4 * base.cycles + 4000
        writable = base.writable if self.protected else (0, 0)
        self.image.write_bytes(image)
        await self._pulse(dut.load)
        for register, value in ((Register.PROGRAM_BASE, program_base),
                                (Register.WRITE_BASE, writable[0]),
                                (Register.WRITE_LIMIT, writable[1]),
                                (Register.CYCLE_LIMIT_LO, limit)):
            if self.known.get(register) != value:
                await host.write(register, value)
                self.known[register] = value
        rising = RisingEdge(dut.irq)
        await host.write(Register.CONTROL, Control.const({"start": 1}).as_bits())
        begun = get_sim_time("ns")
        if not dut.irq.value:
            timer = Timer((limit + 2 * STALL + GRACE) * PERIOD_NS, unit="ns")
            if await First(rising, timer) is timer:
                self.hangs = True
                self.faults.append("no interrupt within its limits")
        cycles = int((get_sim_time("ns") - begun) // PERIOD_NS)
        status = Status.from_bits(await host.read(Register.STATUS))
        if (status.busy, status.done, status.stopped, status.unanswered) != (0, 1, 0, 0):
            self.faults.append(f"status {status} after the end")
        await host.write(Register.IRQ_STATUS, EVERY_INTERRUPT)

        first, count = base.writable[0] // self.vector, len(base.expected) // self.vector
        dut.first.value, dut.count.value = first, count
        dut.dump_first.value, dut.dump_count.value = first, count
        await self._pulse(dut.dump, dut.check)
        if dut.strays.value:
            self.faults.append(f"{int(dut.strays.value)} words outside its window were written, "
                               f"the first at {int(dut.stray.value) * self.vector:#x}")
        broken = dut.violations.value.to_unsigned()
        if broken != self.broken:
            self.faults.append(f"a rule of a bus was broken {broken - self.broken} times")
            self.broken = broken
        return status, cycles, base.agrees(self.dump.read_bytes())

    async def _pulse(self, *ports):
        for port in ports:
            port.value = 1
        await ClockCycles(self.dut.clk, 2)
        for port in ports:
            port.value = 0
        await ClockCycles(self.dut.clk, 2)
