"""Bench of the counter in ``test_simulators.py``: clocks, edges and timers."""

import os

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer

PERIOD_NS = 10


@cocotb.test()
async def counts_every_edge(dut):
    if os.environ["OWN_CLOCK"] == "1":
        Clock(dut.clk, PERIOD_NS, unit="ns").start()
    dut.enable.value = 0
    await RisingEdge(dut.clk)
    dut.enable.value = 1
    for expected in range(20):
        await RisingEdge(dut.clk)
        assert dut.count.value.to_unsigned() == expected, "not the value from before the edge"
    await Timer(1000 * PERIOD_NS + 2, unit="ns")       # between two edges
    assert dut.count.value.to_unsigned() == 1020
    await RisingEdge(dut.high)
    assert dut.count.value.to_unsigned() == 1 << 12


@cocotb.test()
async def fails_on_request(dut):
    assert os.environ.get("FAIL") != "1", "as requested"
