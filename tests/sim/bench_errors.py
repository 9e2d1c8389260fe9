"""One machine, many broken programs: each must stop it with the right code, and the next good one
must run as if nothing had been. Runs inside the simulator; tests/sim/test_errors.py prepares it."""

import json
import os
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer

from hw.control.regmap import EVERY_INTERRUPT, Control, Interrupt, Register, Status
from hw.isa import Engine, Error
from sim.axi_lite import AxiLiteManager

PERIOD_NS = 10


@cocotb.test()
async def broken_programs_and_then_a_good_one(dut):
    jobs = json.loads(Path(os.environ["ATTUNE_JOBS"]).read_text())
    if jobs["clock"]:
        Clock(dut.clk, PERIOD_NS, unit="ns").start()
    host = AxiLiteManager(dut, "control")
    for port in (dut.load, dut.dump, dut.dump_first, dut.dump_count, dut.inject_error):
        port.value = 0
    dut.monitor__tready.value = 1
    await ClockCycles(dut.clk, 4)
    await host.write(Register.IRQ_ENABLE, Interrupt.const({"done": 1}).as_bits())
    await host.write(Register.STALL_LIMIT, 20_000)

    for job in jobs["runs"]:
        Path(jobs["image"]).write_bytes(Path(job["image"]).read_bytes())
        dut.load.value = 1
        await ClockCycles(dut.clk, 2)
        dut.load.value = 0
        await host.write(Register.PROGRAM_BASE, job["program_base"])
        await host.write(Register.CYCLE_LIMIT_LO, job["cycle_limit"])
        await host.write(Register.CYCLE_LIMIT_HI, 0)
        await host.write(Register.CONTROL, Control.const({"start": 1}).as_bits())
        if job["inject_error"]:
            await ClockCycles(dut.clk, 3000)
            dut.inject_error.value = job["inject_error"]
        rising  = RisingEdge(dut.irq)
        timeout = Timer(400_000 * PERIOD_NS, unit="ns")
        assert await First(rising, timeout) is not timeout, f"{job['name']}: no interrupt"
        dut.inject_error.value = 0
        status = Status.from_bits(await host.read(Register.STATUS))
        assert not status.busy and status.done, job["name"]
        assert (status.error, Engine(status.engine).name if status.error.value else None) == (
            Error[job["error"]], job["engine"]), f"{job['name']}: {status}"
        await host.write(Register.IRQ_STATUS, EVERY_INTERRUPT)
        assert not dut.irq.value, job["name"]
        if status.error is Error.NONE:
            dut.dump_first.value = job["dump_first"]
            dut.dump_count.value = job["dump_count"]
            dut.dump.value = 1
            await ClockCycles(dut.clk, 4)
            dut.dump.value = 0
            dump = Path(jobs["dump"]).read_bytes()
            assert dump == Path(job["mask"]).read_bytes(), f"{job['name']}: wrong mask"
