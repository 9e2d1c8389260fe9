"""Places for one word on a stream, which cut the paths along it in one direction or the other."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class SkidBuffer(wiring.Component):
    """Passes words on in the cycle in which they come. One that is refused is kept here, and the
    next one waits for it: so ``i.ready`` is a register, and does not depend on ``o.ready``.

    Nothing is delayed, and one word a cycle goes through, as long as ``o`` is taken.

    Parameters
    ----------
    shape : ShapeLike

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    full : Out(1)
        A word is kept here.
    """

    def __init__(self, shape):
        self.shape = shape
        super().__init__({
            "i":    In(stream.Signature(shape)),
            "o":    Out(stream.Signature(shape)),
            "full": Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        kept = Signal(self.shape)
        m.d.comb += [
            self.i.ready.eq(~self.full),
            self.o.valid.eq(self.full | self.i.valid),
            self.o.p.eq(Mux(self.full, kept, self.i.p)),
        ]
        m.d.sync += self.full.eq(self.o.valid & ~self.o.ready)
        with m.If(~self.full):
            m.d.sync += kept.eq(self.i.p)

        return m


class StreamRegister(wiring.Component):
    """Passes words on a cycle later, from a register: ``o.valid`` and ``o.p`` do not depend on
    ``i``. Takes the next word in the cycle in which one leaves, so one a cycle goes through.

    Parameters
    ----------
    shape : ShapeLike

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    """

    def __init__(self, shape):
        super().__init__({
            "i": In(stream.Signature(shape)),
            "o": Out(stream.Signature(shape)),
        })

    def elaborate(self, platform):
        m = Module()

        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.p.eq(self.i.p)]

        return m
