"""A reset in the middle of a run, at several moments, and a good run after each. Runs inside the
simulator; tests/sim/test_reset.py prepares it."""

import os
import pickle
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer

from hw.control.regmap import EVERY_INTERRUPT, Control, Interrupt, Register, Status
from hw.isa import Error
from sim.axi_lite import AxiLiteManager

PERIOD_NS = 10


@cocotb.test()
async def reset_and_run(dut):
    base = pickle.loads(Path(os.environ["BASE"]).read_bytes())
    Clock(dut.clk, PERIOD_NS, unit="ns").start()
    for port in (dut.load, dut.dump, dut.dump_first, dut.dump_count, dut.inject_error):
        port.value = 0
    dut.monitor__tready.value = 1
    host = AxiLiteManager(dut, "control")
    await reset(dut, 3)
    for when in (2, 40, base.cycles // 3, base.cycles // 2):
        await start(dut, host, base)
        await ClockCycles(dut.clk, when)
        assert Status.from_bits(await host.read(Register.STATUS)).busy, when
        await reset(dut, 1)
        assert not dut.irq.value
        assert not dut.monitor__tvalid.value
        assert await host.read(Register.STATUS) == 0
        assert await host.read(Register.PROGRAM_BASE) == 0

        await start(dut, host, base)
        rising, timer = RisingEdge(dut.irq), Timer(4 * base.cycles * PERIOD_NS, unit="ns")
        assert await First(rising, timer) is not timer, f"no interrupt after a reset at {when}"
        status = Status.from_bits(await host.read(Register.STATUS))
        assert (status.done, status.busy, status.error) == (1, 0, Error.NONE), when
        dut.dump_first.value = base.writable[0] // 8
        dut.dump_count.value = len(base.expected) // 8
        dut.dump.value = 1
        await ClockCycles(dut.clk, 3)
        dut.dump.value = 0
        left = Path(os.environ["DUMP"]).read_bytes()
        assert base.agrees(left), f"wrong bytes after a reset at {when}"
        await host.write(Register.IRQ_STATUS, EVERY_INTERRUPT)


async def reset(dut, cycles):
    dut.rst.value = 1
    await ClockCycles(dut.clk, cycles)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 1)


async def start(dut, host, base):
    dut.load.value = 1
    await ClockCycles(dut.clk, 2)
    dut.load.value = 0
    await host.write(Register.IRQ_ENABLE, Interrupt.const({"done": 1}).as_bits())
    await host.write(Register.PROGRAM_BASE, base.program_base)
    await host.write(Register.WRITE_BASE, base.writable[0])
    await host.write(Register.WRITE_LIMIT, base.writable[1])
    await host.write(Register.MONITOR_WIDTH, 0x7FF)
    await host.write(Register.MONITOR_HEIGHT, 0xFFF)
    await host.write(Register.MONITOR_ENABLE, 1)
    await host.write(Register.CONTROL, Control.const({"start": 1}).as_bits())
