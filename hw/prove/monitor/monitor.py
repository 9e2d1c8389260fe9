"""Properties of :class:`hw.monitor.monitor.AttentionMonitor`: the AXI4-Stream of bytes."""

from amaranth import *

from hw.monitor.monitor import AttentionMonitor
from hw.prove.bench import prove
from hw.prove.small import SMALL


def monitor(bench):
    """The monitor, on-chip memory that answers at some time (``clear`` forgets what was asked), and
    any settings, rows and sink at any time."""
    dut  = bench.block(AttentionMonitor(SMALL))
    owed = bench.register(1, "owed")
    bench.m.d.sync += owed.eq(~dut.clear & ((owed & ~dut.read.data_valid)
                                            | (dut.read.address.valid & dut.read.address.ready)))
    bench.assume(~dut.read.data_valid | owed)
    return dut


@prove((AttentionMonitor.elaborate, "with m.If(send):", "with m.If(send | self.clear):"),
       steps=24, slow=True)
def bytes_hold(bench):
    """TVALID, once high, stays, with TDATA, TLAST and TUSER, until TREADY: also when a run begins
    (``clear``), which once reset the monitor in mid-row."""
    dut = monitor(bench)
    bench.check(bench.kept(dut.o.tvalid, dut.o.tready, dut.o.tdata, dut.o.tlast, dut.o.tuser),
                "the byte holds")
    bench.cover(dut.o.tvalid & bench.before(dut.o.tvalid & ~dut.o.tready & dut.clear))


@prove((AttentionMonitor.elaborate, "with m.If(self.o.tlast):",
        "with m.If(self.o.tlast | (after == 3)):"))
def rows_end_with_tlast(bench):
    """Between two bytes of different rows there is a TLAST: no row is glued to the next, also over
    ``clear``; within a row TUSER is the same."""
    dut    = monitor(bench)
    middle = bench.register(1, "middle")        # a byte was sent, and its row goes on
    user   = bench.register(20, "user")
    with bench.m.If(dut.o.tvalid & dut.o.tready):
        bench.m.d.sync += [middle.eq(~dut.o.tlast), user.eq(dut.o.tuser.as_value())]
    bench.check(~(middle & dut.o.tvalid) | (dut.o.tuser.as_value() == user), "one row at a time")
    bench.cover(middle & dut.o.tvalid & dut.o.tlast)


@prove((AttentionMonitor.elaborate, "(after ^ row.x) >> exact_log2(vector) != 0",
        "(after ^ row.x) >> exact_log2(vector) == 1"), slow=True, steps=24)
def bytes_are_of_the_right_word(bench):
    """Each byte comes from the word of its pixel: the word that was read last is ``base`` plus the
    pixel's number over the vector, for any region and decimation."""
    dut    = AttentionMonitor(SMALL)
    inside = bench.inner(dut)
    row    = inside("row")
    asked  = bench.register(20, "asked")
    with bench.m.If(dut.read.address.valid & dut.read.address.ready):
        bench.m.d.sync += asked.eq(dut.read.address.p - row[20:40])
    bench.assume(~dut.clear)
    x = row[40:51]
    bench.check(~dut.o.tvalid | (asked[:6] == (x >> 3)[:6]), "the pixel's word")
    bench.cover(dut.o.tvalid & (x == 17))
