"""Cause counters: what one engine spent its cycles on."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.isa import Cause


class CauseCounters(wiring.Component):
    """One counter per cause; the counter of ``cause`` grows in every cycle with ``enable``.

    Only one grows at a time, so they are the rows of a small memory instead of so many registers.
    They wrap. ``clear`` zeroes all at once.

    Parameters
    ----------
    bits : int
        Of each.

    Members
    -------
    clear : In(1)
    enable : In(1)
    cause : In(Cause)
    read_cause : In(3)
    value : Out(bits)
        Of ``read_cause``, in the same cycle.
    """

    def __init__(self, *, bits):
        self.bits = bits
        super().__init__({
            "clear":      In(1),
            "enable":     In(1),
            "cause":      In(Cause),
            "read_cause": In(3),
            "value":      Out(bits),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.memory = memory = Memory(shape=self.bits, depth=8, init=[])
        write, old, read = (memory.write_port(), memory.read_port(domain="comb"),
                            memory.read_port(domain="comb"))

        known = Signal(8)       # rows written since `clear`
        row   = self.cause.as_value()
        m.d.comb += [
            old.addr.eq(row),
            write.addr.eq(row),
            write.data.eq(Mux(known.bit_select(row, 1), old.data, 0) + 1),
            write.en.eq(self.enable),
            read.addr.eq(self.read_cause),
            self.value.eq(Mux(known.bit_select(self.read_cause, 1), read.data, 0)),
        ]
        with m.If(self.enable):
            m.d.sync += known.bit_select(row, 1).eq(1)
        with m.If(self.clear):
            m.d.sync += known.eq(0)

        return m
