"""Bench of the recorder in ``test_taps.py``: shows its records, with gaps between them."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge

from tests.sim.test_taps import HEADER_BYTES, VECTOR, records, tap_layout


@cocotb.test()
async def show_records(dut):
    Clock(dut.clk, 10, unit="ns").start()
    dut.valid.value = 0
    await ClockCycles(dut.clk, 2)
    head = tap_layout(vector=VECTOR).size - 8 * VECTOR
    for record in records():
        while random.random() < 0.3:
            dut.valid.value = 0
            await RisingEdge(dut.clk)
        bits = int.from_bytes(record, "little")
        dut.payload.value = (bits & ((1 << head) - 1)) | bits >> 8 * HEADER_BYTES << head
        dut.valid.value = 1
        await RisingEdge(dut.clk)
    dut.valid.value = 0
    await ClockCycles(dut.clk, 2)
