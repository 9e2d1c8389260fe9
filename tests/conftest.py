"""Fixtures for every test."""

import pytest

from sim.simulators import build, run
from sim.verilog import export


@pytest.fixture
def cosimulate(tmp_path):
    """Run a cocotb bench against the Verilog of a component; a failing bench fails the test.

    Icarus compiles in a blink; ``simulator="verilator"`` is for long runs, and for what only it
    does. A missing simulator is a failure, not a skip. Keywords in capitals reach the bench as
    environment variables; ``sources`` are Verilog files that the component instantiates, and
    ``plusargs`` what they read.
    """
    def start(component, bench, *, simulator="icarus", sources=(), plusargs=(), **env):
        built = build(simulator, export(component, name="dut"), top="dut", sources=sources)
        run(built, bench, folder=tmp_path, plusargs=plusargs, env=env)

    return start
