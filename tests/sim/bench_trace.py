"""Bench of the recorder in ``test_trace.py``: lets it play."""

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles


@cocotb.test()
async def play(dut):
    dut.enable.value = 0
    Clock(dut.clk, 10, unit="ns").start()
    await ClockCycles(dut.clk, 3)
    dut.enable.value = 1
    await ClockCycles(dut.clk, 60)
