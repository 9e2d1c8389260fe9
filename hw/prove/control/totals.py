"""Properties of :class:`hw.control.totals.Totals`."""

from amaranth import *

from hw.control.counters import TIME_BITS
from hw.control.totals import Totals
from hw.prove.bench import prove

SLOTS = 4


@prove((Totals.elaborate, "visited + LATENCY < steps", "visited < steps"), steps=18,
       slow=True)
def totals_are_counts(bench):
    """Of four counters, each of which may grow in every cycle, a reader is told what a counter of
    full width would have said in the cycle after it asked, if it asks in one cycle of eight at
    most: of so few slots, more would take a whole round."""
    dut   = bench.block(Totals(slots=SLOTS))
    which = bench.constant(range(SLOTS), "which")
    count = bench.register(TIME_BITS, "count")
    others = bench.free(dut.bits, "others")
    bench.driven(dut.narrow)
    bench.m.d.comb += dut.narrow.eq(Mux(dut.slot == which, count[:dut.bits], others))
    with bench.m.If(dut.clear):
        bench.m.d.sync += count.eq(0)
    with bench.m.Else():
        bench.m.d.sync += count.eq(count + bench.free(1, "grows"))
    since = bench.register(3, "since")
    bench.m.d.sync += since.eq(Mux(dut.read, 0, since + ~since.all()))
    bench.assume(~dut.read | since.all())
    mine  = bench.before(dut.read & (dut.read_slot == which) & ~dut.clear)
    held  = bench.before(mine & ~dut.clear)
    bench.check(~held | (dut.value == bench.before(count)), "the total")
    bench.cover(held & (dut.value == 5))
