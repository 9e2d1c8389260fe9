"""The attention unit's own copy of the attention maps, between its convolutions and the gate."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.interfaces import MemoryWrite
from hw.memory.protected import memory


class AlphaRead(wiring.Signature):
    """Read port, seen from the reader: ``data`` follows ``address`` by one cycle, always."""

    def __init__(self, *, depth, vector):
        super().__init__({"address": Out(range(depth)), "data": In(vector * 8)})


class AlphaStore(wiring.Component):
    """``config.alpha_words`` vectors of alpha bytes, one byte per pixel of an attention map.

    Takes one vector per cycle and never waits; a read sees every write of an earlier cycle.
    Addresses are not checked: the convolution and gate engines do that.

    Members
    -------
    write : In(MemoryWrite(depth=config.alpha_words, vector=config.vector, lanes=1))
    read : In(AlphaRead(depth=config.alpha_words, vector=config.vector))

    Attributes
    ----------
    data : MemoryData
        Simulations of this component alone reach its rows through it. A plain memory only.
    """

    def __init__(self, config):
        depth, vector = config.alpha_words, config.vector
        self.words = memory(config.protects("alpha"), shape=vector * 8, depth=depth)
        self.data  = getattr(self.words, "data", None)
        self.protected = [("alpha", self.words)]
        super().__init__({
            "write": In(MemoryWrite(depth=depth, vector=vector, lanes=1)),
            "read":  In(AlphaRead(depth=depth, vector=vector)),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.words = words = self.words
        write = words.write_port()
        read  = words.read_port()
        m.d.comb += [
            self.write.w.ready.eq(1),
            write.en.eq(self.write.w.valid & self.write.w.p.mask),
            write.addr.eq(self.write.w.p.address),
            write.data.eq(self.write.w.p.data),
            read.addr.eq(self.read.address),
            self.read.data.eq(read.data),
        ]

        return m
