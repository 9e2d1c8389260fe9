"""State of a simulated machine: which registers and memories there are, and where they count."""

# amaranth: UnusedElaboratable=no
import re

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.verilog import export
from sim.campaigns.state import Target, block, find_targets, mark, read_table, write_table
from sim.errors import SimulationError


class Child(wiring.Component):
    """A register that is a port, one that is none, and a memory."""
    a:       In(4)
    port__x: Out(4)

    def elaborate(self, platform):
        m = Module()
        m.submodules.rows = rows = Memory(shape=12, depth=8, init=[])
        write, read = rows.write_port(), rows.read_port()
        within = Signal(3)
        m.d.sync += [self.port__x.eq(self.a), within.eq(within + self.a)]
        m.d.comb += [write.en.eq(1), write.addr.eq(self.a), write.data.eq(within),
                     read.addr.eq(within)]
        m.d.sync += self.port__x.eq(read.data)
        return m


class Parent(wiring.Component):
    a: In(4)
    o: Out(4)

    def elaborate(self, platform):
        m = Module()
        m.submodules.child = child = Child()
        m.d.comb += [child.a.eq(self.a), self.o.eq(child.port__x)]
        return m


def marked():
    return mark(export(Parent(), name="top", reset=False))


def test_every_register_and_memory_is_listed():
    _, found = marked()
    assert sorted(found) == [
        ("top.child", "ff$_0_", 12, 1, False), ("top.child", "ff$port__x", 4, 1, False),
        ("top.child", "ff$within", 3, 1, False), ("top.child", "rows", 12, 8, True)]


def test_a_register_that_is_a_port_is_one_of_its_own():
    """Verilator once kept the parent's signal, and a flip of the register undid itself."""
    text, _ = marked()
    assert len(re.findall("public_flat_rd", text)) == 4
    assert re.search(r"^  reg \[3:0\] \\ff\$port__x  /\*verilator public_flat_rd\*/ = 4'h0;\n"
                     r"  wire \[3:0\] port__x = \\ff\$port__x ;$", text, re.MULTILINE)
    assert re.search(r"^    \\ff\$port__x  <= ", text, re.MULTILINE)
    assert re.search(r"^    rows\[.*\] <= ", text, re.MULTILINE)


def test_members_have_verilators_names(tmp_path):
    found   = [("top.chip.load$5", "ff$port__x", 4, 1, False),
               ("top.chip.load$5.queue", "storage", 64, 8, True)]
    members = ["top__DOT__chip__DOT__load__0245__DOT__ff__024port___05Fx",
               "top__DOT__chip__DOT__load__0245__DOT__queue__DOT__storage"]
    header  = (f"        CData/*3:0*/ {members[0]};\n"
               f"        VlUnpacked<QData/*63:0*/, 8> {members[1]};\n")
    targets = find_targets(found, header)
    assert [member for _, member in targets] == members
    assert targets[1][0] == Target("top.chip.load$5.queue.storage", 64, 8, True, "other queues")

    write_table(tmp_path, tmp_path, targets, observers=["top.chip.load$5.port__x"])
    assert read_table(tmp_path) == [target for target, _ in targets]
    assert (tmp_path / "targets.inc").read_text().splitlines() == [
        f"REGISTER({members[0]})", f"MEMORY({members[1]})", f"OBSERVER({members[0]}, 0)"]


def test_a_register_that_verilator_dropped_is_named():
    with pytest.raises(SimulationError, match=r"^Verilator kept top\.chip\.x nowhere$"):
        find_targets([("top.chip", "ff$x", 1, 1, False)], "")


@pytest.mark.parametrize("path, memory, kind", [
    ("top.chip.controller.front_gate.state", False, "front ends"),
    ("top.chip.controller.still", False, "run control"),
    ("top.chip.encoder.compute.conv.drain.lane_1.y", False, "requantisation"),
    ("top.chip.encoder.compute.conv.drain.queue.level", False, "drains"),
    ("top.chip.decoder.compute.conv.weights.weights_3", True, "weights"),
    ("top.chip.stores.store.words.storage", True, "other queues"),
])
def test_classes(path, memory, kind):
    assert block(path, memory=memory) == kind


def test_a_block_without_a_class_is_named():
    with pytest.raises(SimulationError, match=r"^Nothing says to which class of state "
                                              r"top\.chip\.new\.x belongs$"):
        block("top.chip.new.x", memory=False)
