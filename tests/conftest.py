"""Fixtures for every test, and what is said at the end."""

import json
from pathlib import Path

import pytest

from hw.verilog import export
from sim.simulators import build, run


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


PINS = Path(__file__).parent / "sim" / "pins.json"


def pytest_addoption(parser):
    parser.addoption("--pins", action="store_true",
                     help="write figures that became better into pins.json (make pins)")


def pytest_collection_modifyitems(items):
    """Whole frames come first: no worker is left alone with the longest test at the end."""
    items.sort(key=lambda item: item.path.name != "test_machine.py")


def pytest_terminal_summary(terminalreporter, config):
    """Figures that became better. They come from all workers, and only here is the file written."""
    if hasattr(config, "workerinput"):
        return
    better = {}
    for report in terminalreporter.getreports("passed"):
        for key, value in report.user_properties:
            if key == "pins":
                better |= value
    if not better:
        return
    pins = json.loads(PINS.read_text())
    terminalreporter.section("better than pinned")
    for name, now in better.items():
        terminalreporter.line(f"{name}: {now}, pinned {pins.get(name)}")
    if config.getoption("--pins"):
        PINS.write_text(json.dumps({**pins, **better}, indent=2) + "\n")
        terminalreporter.line(f"written to {PINS.relative_to(config.rootpath)}; commit it")
    else:
        terminalreporter.line("`make pins` writes them into the file")
