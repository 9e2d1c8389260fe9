"""Properties of the registers of :mod:`hw.memory.skid`."""

from amaranth import *

from hw.memory.skid import SkidBuffer, StreamRegister
from hw.prove.bench import prove

WIDTH = 4


@prove((SkidBuffer.elaborate, "Mux(self.full, kept, self.i.p)", "self.i.p"))
def words_come_out_in_order(bench):
    """The word at a symbolic place of what goes in comes out at that place, with its bits; between
    the two ends there is one word at most, and none waits where none is kept."""
    dut      = bench.block(SkidBuffer(WIDTH))
    place    = bench.constant(3, "place")
    given    = bench.register(3, "given")
    taken    = bench.register(3, "taken")
    expected = bench.register(WIDTH, "expected")
    bench.assume(bench.kept(dut.i.valid, dut.i.ready, dut.i.p))
    goes_in, comes_out = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
    bench.m.d.sync += [given.eq(given + goes_in), taken.eq(taken + comes_out)]
    with bench.m.If(goes_in & (given == place)):
        bench.m.d.sync += expected.eq(dut.i.p)
    kept = (given - taken)[:3]
    want = Mux(kept == 0, dut.i.p, expected)
    bench.check(kept == dut.full, "one word at most, and full says so")
    bench.check(dut.o.valid == (dut.full | dut.i.valid), "nothing is delayed")
    bench.check(~(comes_out & (taken == place)) | (dut.o.p == want), "in order, with its bits")
    bench.check(bench.kept(dut.o.valid, dut.o.ready, dut.o.p), "an offer holds")
    bench.cover(dut.full & (taken == place) & comes_out & (expected == 9) & (place == 2))


@prove((StreamRegister.elaborate, "~self.o.valid | self.o.ready", "C(1)"))
def a_register_loses_nothing(bench):
    """What goes in comes out, in order and with its bits: a word is on offer exactly while one more
    went in than came out, and it is the last one that went in."""
    dut  = bench.block(StreamRegister(WIDTH))
    last = bench.register(WIDTH, "last")
    kept = bench.register(2, "kept")
    goes_in, comes_out = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
    bench.m.d.sync += kept.eq(kept + goes_in - comes_out)
    with bench.m.If(goes_in):
        bench.m.d.sync += last.eq(dut.i.p)
    bench.check(dut.o.valid == kept, "one word")
    bench.check(~dut.o.valid | (dut.o.p == last), "the last one")
    bench.check(bench.kept(dut.o.valid, dut.o.ready, dut.o.p), "an offer holds")
    bench.cover(comes_out & goes_in & (last == 9))
