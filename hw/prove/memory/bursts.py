"""Properties of :class:`hw.memory.bursts.BurstSplitter`."""

from amaranth import *

from hw.memory.bursts import BurstSplitter
from hw.prove.bench import prove

ADDRESS, BEATS, WINDOW = 22, (1 << 20) - 1, 32      # as the load channels of `reference` have it


def splitter(bench):
    dut    = BurstSplitter(address_width=ADDRESS, beats=BEATS, window=WINDOW)
    inside = bench.inner(dut)
    bench.assume(~dut.i.valid | (dut.i.p.beats != 0))
    return dut, inside


@prove((BurstSplitter.elaborate, "Mux(self.o.p.last, left, room)", "left"))
def bursts_stay_in_their_window(bench):
    """No burst reaches beyond the aligned window of its first beat, so none crosses 4 KiB."""
    dut, _ = splitter(bench)
    last   = bench.named(dut.o.p.address + dut.o.p.length, "last_beat")
    bench.check(~dut.o.valid | (last // WINDOW == dut.o.p.address // WINDOW), "one window")
    bench.cover(dut.o.valid & (dut.o.p.length == WINDOW - 1))


@prove((BurstSplitter.elaborate, "left.eq(left - room - 1)", "left.eq(left - room)"),
       method="smt", depth=2)
def bursts_are_the_run(bench):
    """The bursts of a run follow each other without gap or overlap, from its address on, and add up
    to its beats when ``last`` is high, at the full widths of 22 and 20 bits."""
    dut, inside = splitter(bench)
    where  = bench.register(ADDRESS, "where")          # next beat that must be asked for
    left   = bench.register(range(BEATS + 1), "left")  # beats of the run not yet asked for
    beats  = dut.o.p.length + 1
    with bench.m.If(dut.i.valid & dut.i.ready):
        bench.m.d.sync += [where.eq(dut.i.p.address), left.eq(dut.i.p.beats)]
    with bench.m.If(dut.o.valid & dut.o.ready):
        bench.m.d.sync += [where.eq(where + beats), left.eq(left - beats)]
    bench.check(dut.o.valid == (left != 0), "on offer while beats are left")
    bench.check(~dut.o.valid | (dut.o.p.address == where), "from where the last one ended")
    bench.check(~dut.o.valid | (inside("left") + 1 == left), "the block counts the same")
    bench.check(~dut.o.valid | (beats <= left), "no beat beyond the run")
    bench.check(~dut.o.valid | (dut.o.p.last == (beats == left)), "last is the last")
    bench.check(dut.i.ready == ~dut.o.valid, "one run at a time")
    bench.cover(dut.o.valid & dut.o.p.last & bench.before(dut.o.valid & dut.o.ready))


@prove((BurstSplitter.elaborate, "self.o.valid & self.o.ready", "self.o.valid"), slow=True)
def offers_hold(bench):
    """A burst on offer stays on offer, unchanged, until it is taken."""
    dut, _ = splitter(bench)
    bench.check(bench.kept(dut.o.valid, dut.o.ready, dut.o.p), "o holds")
    bench.cover(dut.o.valid & ~dut.o.ready & bench.before(dut.o.valid & ~dut.o.ready))
