"""Outputs of :class:`tests.sim.test_verilog.Quiet` are set before any input changes."""

import cocotb
from cocotb.triggers import Timer


@cocotb.test()
async def outputs_are_set(dut):
    await Timer(1, unit="ns")
    assert str(dut.single.value) == "0010"
