from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.verilog import export


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
