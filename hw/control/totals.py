"""Wide totals of many narrow counters."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.control.counters import TIME_BITS

LATENCY = 2         # cycles from a visit to its last, in which the total is written


class Totals(wiring.Component):
    """What counters of ``bits`` bits would say if they had ``TIME_BITS``.

    A walk through all of them, one in every cycle, adds what each has grown by to its total in a
    memory. Narrow counters wrap and are never reset: they are the lowest bits of their totals, so
    the difference says what was added, as long as it is below ``2 ** bits``. So there must be fewer
    cycles than that between two visits, which is why ``bits`` is one more than the number of a slot
    has: readers may take one cycle of three.

    After ``clear``, in which the narrow ones become 0, totals count as 0 until the walk has been to
    them and written what it found.

    A reader's visit goes ahead of the walk: the total of ``read_slot`` as of the next cycle is
    ``value`` in the cycle after that.

    Parameters
    ----------
    slots : int
        Counters, a power of two.

    Members
    -------
    clear : In(1)
    slot : Out(range(slots))
    narrow : In(bits)
        The narrow counter of ``slot``, in the same cycle.
    read : In(1)
    read_slot : In(range(slots))
    value : Out(40)
    """

    def __init__(self, *, slots):
        self.slots = slots
        self.bits  = exact_log2(slots) + 1
        super().__init__({
            "clear":     In(1),
            "slot":      Out(range(slots)),
            "narrow":    In(self.bits),
            "read":      In(1),
            "read_slot": In(range(slots)),
            "value":     Out(TIME_BITS),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.memory = memory = Memory(shape=TIME_BITS, depth=self.slots, init=[])
        read, write = memory.read_port(), memory.write_port()

        following = Signal(range(self.slots))       # of the walk
        steps     = Signal(range(self.slots + LATENCY + 1))     # of it since `clear`, at most
        visited   = Signal(range(self.slots))
        m.d.comb += [
            visited.eq(Mux(self.read, self.read_slot, following)),
            read.addr.eq(visited),
        ]
        with m.If(~self.read):
            m.d.sync += following.eq(following + 1)
            with m.If(steps != self.slots + LATENCY):
                m.d.sync += steps.eq(steps + 1)
        with m.If(self.clear):
            m.d.sync += [following.eq(0), steps.eq(0)]

        # Its total is there, then also its narrow counter.
        known  = Signal()
        slot   = Signal(range(self.slots))
        total  = Signal(TIME_BITS)
        total_known = Signal()
        narrow = Signal(self.bits)
        grown  = Signal(self.bits)
        m.d.sync += [
            self.slot.eq(visited), known.eq(visited + LATENCY < steps),
            slot.eq(self.slot), total.eq(read.data), total_known.eq(known),
            narrow.eq(self.narrow),
        ]
        m.d.comb += [
            grown.eq(narrow - total[:self.bits]),
            self.value.eq(Mux(total_known, total + grown, narrow)),
            write.en.eq(1),
            write.addr.eq(slot),
            write.data.eq(self.value),
        ]

        return m
