"""A block that uses what an FPGA has, for tests of what a machine costs."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["Block"]


class Block(wiring.Component):
    """One 8x8 multiplier and one block RAM."""

    a:     In(8)
    b:     In(8)
    o:     Out(16)
    taken: Out(16)

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = Memory(shape=16, depth=1024, init=[])
        write, read = words.write_port(), words.read_port()
        m.d.sync += self.o.eq(self.a * self.b)
        m.d.comb += [write.en.eq(1), write.addr.eq(self.a), write.data.eq(self.o),
                     read.addr.eq(self.b), self.taken.eq(read.data)]
        return m
