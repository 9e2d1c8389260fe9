"""Plays :mod:`tests.sim.axi_traffic` to one monitor, and writes what it said to a file."""

import json
import os
from pathlib import Path

import cocotb
from cocotb.triggers import Timer
from cocotb.types import LogicArray

from tests.sim.axi_traffic import LEGAL, X, mutants

TOP    = os.environ["COCOTB_TOPLEVEL"]
INPUTS = os.environ["INPUTS"].split()


async def cycle(dut, values):
    dut.clk.value = 0
    for name in INPUTS:
        value = values.get(name, 0)
        dut[name].value = LogicArray("X" * len(dut[name])) if value == X else value
    await Timer(5, unit="ns")
    dut.clk.value = 1
    await Timer(5, unit="ns")


async def broken(dut, trace):
    """The first rule that a trace breaks after a reset; empty if none."""
    await cycle(dut, {})
    await cycle(dut, {"rst": 1})
    for values in trace:
        await cycle(dut, values)
    return dut.rule.value.to_unsigned().to_bytes(24, "big").strip(b"\0").decode()


@cocotb.test()
async def play(dut):
    unknowns = os.environ["UNKNOWNS"] == "1"
    found    = [await broken(dut, LEGAL[TOP])]
    for _, trace in mutants(TOP, unknowns):
        found.append(await broken(dut, trace))
    Path(os.environ["FOUND"]).write_text(json.dumps(found))
