"""Properties of :class:`hw.compute.drain.Drain`."""

from amaranth import *

from hw.compute.drain import Drain
from hw.config import UnitConfig
from hw.prove.bench import prove

DELAY = 2


def drain(bench):
    """The drain of a unit of 2 x 2 with 4 lanes and vectors of 8, whose array reserves only where
    there is room and is done ``delay`` cycles later; the layer holds."""
    unit   = UnitConfig(pixels=2, outputs=2, drain=4, row_words=64, weight_words=64, params=8)
    dut    = Drain(unit=unit, vector=8, delay=DELAY)
    inside = bench.inner(dut)
    bench.driven(dut.done)
    done = dut.reserve
    for _ in range(DELAY):
        done = bench.before(done)
    bench.m.d.comb += dut.done.eq(done)
    bench.assume(~dut.reserve | dut.room)
    bench.assume(~bench.started | (dut.layer.as_value() == bench.before(dut.layer.as_value())))
    return dut, inside


@prove((Drain.elaborate, "(free >= pieces) & (taken == 0)", "taken == 0"), steps=44, slow=True)
def queue_never_overflows(bench):
    """A piece that leaves the lanes always finds a place in the queue, for any consumer."""
    dut, inside = drain(bench)
    bench.check(~inside("inside")[-1] | inside("queue.w_rdy"), "a place for each piece")
    bench.cover(inside("queue.level") == dut.queue_depth)


@prove((Drain.elaborate, "self.room.eq(", "self.room.eq(1 | "))
def no_held_piece_is_overwritten(bench):
    """New sums are captured only when the set before has been handed on to its last piece."""
    dut, inside = drain(bench)
    last = inside("piece") == Mux(dut.layer.depthwise, dut.pieces - 1, 1)
    bench.check(~dut.done | ~inside("full") | last, "the last piece leaves with the capture")
    bench.cover(dut.done & inside("full"))


@prove((Drain.elaborate, "inside.eq(Cat(full, inside))",
        "inside.eq(Cat(full & ~self.done, inside))"), steps=14, slow=True)
def every_sum_becomes_its_pieces(bench):
    """Pieces on offer, in the queue and on the way are those of the sums captured: none is lost or
    made up. One sum is 2 pieces, or depthwise 4."""
    dut, inside = drain(bench)
    owed  = bench.register(8, "owed")
    bench.m.d.sync += owed.eq(owed + Mux(dut.done, Mux(dut.layer.depthwise, 4, 2), 0)
                              - (dut.o.valid & dut.o.ready))
    held  = Mux(inside("full"), Mux(dut.layer.depthwise, 4, 2) - inside("piece"), 0)
    moves = sum(bit for bit in inside("inside"))
    bench.check(owed == (held + moves + inside("queue.level"))[:8], "as many as owed")
    bench.check(~dut.o.valid | (owed != 0), "none made up")
    bench.cover(owed == 7)
