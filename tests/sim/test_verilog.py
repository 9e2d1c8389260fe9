import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sim.verilog import export


class Store(wiring.Component):
    """Two memories: one starts with zeros, one does not."""
    address: In(10)
    zeros:   Out(8)
    table:   Out(8)
    data:    In(8)
    write:   In(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.zeros = zeros = Memory(shape=8, depth=1024, init=[])
        m.submodules.table = table = Memory(shape=8, depth=4, init=[1, 2, 3, 4])
        for memory, out in ((zeros, self.zeros), (table, self.table)):
            read, write = memory.read_port(), memory.write_port()
            m.d.comb += [read.addr.eq(self.address), out.eq(read.data),
                         write.addr.eq(self.address), write.data.eq(self.data),
                         write.en.eq(self.write)]
        return m


def test_memory_of_zeros_is_a_loop():
    text = export(Store(), name="top")
    assert text.count("<= 1023;") == 1
    assert "= 8'h00;" not in text
    assert len(text) < 4000


def test_memory_with_content_keeps_it():
    text = export(Store(), name="top")
    assert [f"[{row}] = 8'h{row + 1:02x};" in text for row in range(4)] == [True] * 4


class Quiet(wiring.Component):
    """Outputs whose processes see no event at the start of a simulation."""
    choose: In(1)
    several: Out(1)
    single: Out(4)

    def elaborate(self, platform):
        m = Module()
        still = Signal(2, init=2)       # never changes
        with m.Switch(self.choose):
            with m.Case(1):
                m.d.comb += self.several.eq(1)
        with m.If(still[0]):
            m.d.comb += self.single[2:].eq(3)
        m.d.comb += self.single[:2].eq(still)
        m.d.sync += still.eq(still)
        return m


@pytest.mark.cosim
def test_every_process_runs_at_the_start(cosimulate):
    cosimulate(Quiet(), "tests.sim.bench_quiet")
