"""The protocol monitors: silent on legal traffic; each rule fires, by name, when it is broken."""

import json
import re
import threading

import pytest

from sim.errors import SimulationError
from sim.host import RtlEngine
from sim.simulators import PORT, build, run
from sim.top import MONITOR_SOURCE
from tests.sim.axi_traffic import MONITORS, READS, WRITES, mutants

VERILOG = MONITOR_SOURCE.read_text()


def module_text(monitor):
    return re.search(rf"^module {monitor}\b.*?^endmodule", VERILOG, re.MULTILINE | re.DOTALL)[0]


@pytest.mark.cosim
@pytest.mark.parametrize(("monitor", "simulator"), [
    *((monitor, "icarus") for monitor in MONITORS), ("axi4_monitor", "verilator")])
def test_each_rule_fires_when_broken(monitor, simulator, tmp_path):
    verilog = re.sub(r"parameter (READS|WRITES)( *)= 0",
                     lambda m: f"parameter {m[1]} = {dict(READS=READS, WRITES=WRITES)[m[1]]}",
                     VERILOG)
    unknowns = simulator == "icarus"      # Verilator has no X
    found    = tmp_path / "found.json"
    ports    = module_text(monitor).partition(");")[0]
    inputs   = [name for kind, name in PORT.findall(ports) if kind == "input"]
    run(build(simulator, verilog, top=monitor), "tests.sim.bench_axi_monitor", folder=tmp_path,
        env={"FOUND": found, "UNKNOWNS": int(unknowns),
             "INPUTS": " ".join(name for name in inputs if name != "clk")})
    legal, *broken = json.loads(found.read_text())
    assert legal == ""
    assert broken == [rule for rule, _ in mutants(monitor, unknowns)]


@pytest.mark.parametrize("monitor", MONITORS)
def test_every_rule_has_a_mutant(monitor):
    text   = module_text(monitor)
    where  = VERILOG if "`AXI_MONITOR_CHANNELS" in text else text
    names  = set(re.findall(r'AXI_MONITOR_CHANNEL\("([A-Z]+)", (?!t)', where)) or {"T"}
    rules  = {rule for rule in re.findall(r'"([A-Z][A-Z_]+)"', text) if rule not in names}
    rules |= {name + rule for name in names for rule in re.findall(r'{NAME, "(\w+)"}', VERILOG)}
    assert rules == {rule for rule, _ in mutants(monitor)}


def test_a_run_that_broke_a_rule_is_refused(tmp_path):
    class Ran(RtlEngine):
        def __init__(self):
            self._folder, self._selectors, self._failure = tmp_path, {}, None
            self._thread, self._counters = threading.Thread(), None

    (tmp_path / "result.json").write_text(json.dumps({"broken": 2, "counters": {}, "error": 0,
                                                      "engine": 0, "stopped": True}))
    (tmp_path / "simulator.log").write_text(
        "chatter\naxi_monitor: W_STABLE of the off-chip bus in cycle 7 (A3.2.1)\n"
        "axi_monitor: WLAST of the off-chip bus in cycle 9 (A3.2.2)\n")
    with pytest.raises(SimulationError) as refused:
        Ran().wait()
    assert str(refused.value) == ("A bus broke its protocol 2 times: W_STABLE of the off-chip bus "
                                  "in cycle 7 (A3.2.1)")
