"""Properties of :class:`hw.memory.load.LoadEngines`: the AXI4 manager that reads."""

from amaranth import *

from hw.isa import Opcode
from hw.memory.bursts import BurstSplitter
from hw.memory.load import LoadEngines
from hw.prove.bench import prove
from hw.prove.small import SMALL

WINDOW, OUTSTANDING = 4, 1


def engines(bench):
    """The load engines within their rules: instructions and requests hold until taken, and memory
    answers the bursts that it was asked for, RLAST with the last beat of each."""
    dut    = LoadEngines(config=SMALL, window=WINDOW, outstanding=OUTSTANDING)
    inside = bench.inner(dut)
    axi    = dut.axi
    for engine in dut.engines:
        bench.assume(bench.kept(engine.i.valid, engine.i.ready, engine.i.p))
        bench.assume(~engine.i.valid | (engine.i.p.sync.opcode == Opcode.LOAD))
    bench.assume(bench.kept(dut.requests.valid, dut.requests.ready, dut.requests.p))
    bench.assume(dut.abort | ~bench.before(dut.abort))
    owed = bench.register(4, "owed")            # bursts taken by memory, not yet answered
    bench.m.d.sync += owed.eq(owed + (axi.arvalid & axi.arready)
                              - (axi.rvalid & axi.rready & axi.rlast))
    bench.assume(~axi.rvalid | (owed != 0))
    return dut, inside, owed


@prove((LoadEngines.elaborate, "with m.If(axi.arready):", "with m.If(axi.arready | self.abort):"),
       slow=True)
def addresses_hold(bench):
    """AR, once valid, stays valid and the same until memory takes it, also under ``abort``."""
    dut, _, _ = engines(bench)
    axi = dut.axi
    bench.check(bench.kept(axi.arvalid, axi.arready, axi.arid, axi.araddr, axi.arlen, axi.arsize,
                           axi.arburst), "AR holds")
    bench.cover(axi.arvalid & bench.before(axi.arvalid & ~axi.arready & dut.abort))


@prove((LoadEngines.elaborate, "asks & has_room, 0)", "asks, 0)"), steps=12,
       slow=True)
def bursts_under_way_are_bounded(bench):
    """Of each client at most ``outstanding`` bursts are under way, their sum is what the queue of
    owners holds, and ``idle`` means that the port owes and is owed nothing."""
    dut, inside, owed = engines(bench)
    counts = [inside(f"under_way_{client}") for client in range(4)]
    whole  = bench.named(owed + dut.axi.arvalid, "whole")
    bench.check(Cat(count <= OUTSTANDING for count in counts).all(), "each")
    bench.check(sum(counts) == whole, "all of them")
    bench.check(~dut.idle | (whole == 0), "idle")
    bench.cover(whole == 4)


@prove((BurstSplitter.elaborate, "Mux(self.o.p.last, left, room)", "left"), steps=10, slow=True)
def bursts_stay_in_memory(bench):
    """No burst reaches beyond off-chip memory or crosses the window of its first beat; ARLEN is
    within the window, ARSIZE the width of the port."""
    dut, _, _ = engines(bench)
    axi   = dut.axi
    for engine in dut.engines:
        bench.assume(engine.i.p.load.beats < 8)
    first = axi.araddr >> 3
    end   = bench.named(first + axi.arlen, "last_beat")
    bench.assume(dut.requests.p < 1 << 14)
    bench.check(~axi.arvalid | (end < SMALL.offchip_words), "within memory")
    bench.check(~axi.arvalid | (end // WINDOW == first // WINDOW), "within the window")
    bench.check(axi.arsize == 3, "whole beats")
    bench.cover(axi.arvalid & (axi.arlen == 2) & (end == SMALL.offchip_words - 1))
