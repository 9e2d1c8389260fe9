"""The ``cosimulate`` fixture, for benches that look at outputs before any input has moved."""

import re

import pytest

from sim.simulators import build, run
from sim.verilog import export

WAKE = re.compile(r"reg (\\\$auto\$verilog_backend\S+ ) = 0;")


def wake_at_time_zero(verilog):
    """Let every process run once at time zero, under Icarus 11 too.

    Yosys writes ``always @*`` and means to wake it by the initial value of an extra register.
    Icarus, reading SystemVerilog, sets that value before the process watches: outputs whose inputs
    stay still are X, and cocotbext-axi stops at an X in a handshake. ``always_comb`` is no way out:
    Icarus 11 ran in circles without advancing time in ``bench_dma``. A nonblocking initial
    value comes after every process has begun to watch.
    """
    return WAKE.sub(r"reg \1; initial \1 <= 0;", verilog.replace("always_comb", "always @*"))


@pytest.fixture
def cosimulate(tmp_path):
    """As the fixture of all tests, with :func:`wake_at_time_zero`."""
    def start(component, bench, *, simulator="icarus", sources=(), plusargs=(), **env):
        built = build(simulator, wake_at_time_zero(export(component, name="dut")), top="dut",
                      sources=sources)
        run(built, bench, folder=tmp_path, plusargs=plusargs, env=env)

    return start
