"""Counts the off-chip bytes of each class."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.isa import Traffic

COUNTER_BITS = 40


class TrafficCounter(wiring.Component):
    """Adds ``vector`` bytes to the counter of class ``traffic`` for every cycle with ``beat``.

    ``bytes[traffic]`` follows two cycles later; a number that names no class is not counted.

    Parameters
    ----------
    vector : int
        Bytes per beat, a power of two.

    Members
    -------
    beat    : In(1)
    traffic : In(Traffic)
    bytes   : Array of Out(40), indexed by Traffic
    """

    def __init__(self, *, vector):
        if vector < 1 or vector & (vector - 1):
            raise ValueError(f"Vector must be a power of two, not {vector!r}")
        self.vector = vector

        super().__init__({
            "beat":    In(1),
            "traffic": In(Traffic),
            "bytes":   Out(COUNTER_BITS).array(len(Traffic)),
        })

    def elaborate(self, platform):
        m = Module()

        shift   = exact_log2(self.vector)
        beat    = Signal()
        traffic = Signal(Traffic)
        m.d.sync += [beat.eq(self.beat), traffic.eq(self.traffic)]
        for kind in Traffic:
            beats = Signal(COUNTER_BITS - shift, name=f"beats_{kind.name.lower()}")
            with m.If(beat & (traffic == kind)):
                m.d.sync += beats.eq(beats + 1)
            m.d.comb += self.bytes[kind.value].eq(Cat(C(0, shift), beats))

        return m
