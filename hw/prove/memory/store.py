"""Properties of :class:`hw.memory.store.StoreEngine`: the AXI4 manager that writes."""

from amaranth import *

from hw.isa import Opcode
from hw.memory.store import StoreEngine
from hw.prove.bench import prove
from hw.prove.small import SMALL

WINDOW, OUTSTANDING = 4, 2


def engine(bench, *, aborts=True):
    """A store engine within its rules: instructions hold until retired, on-chip memory answers two
    cycles after a request, off-chip memory acknowledges bursts whose data it has. ``abort`` holds.

    Returns the engine and, of its write port, ``announced`` and ``sent``: bursts whose address has
    been on offer, and whose last beat has been taken, less those acknowledged.
    """
    dut = bench.block(StoreEngine(config=SMALL, window=WINDOW, outstanding=OUTSTANDING, buffer=4))
    axi = dut.axi
    bench.driven(dut.r.data_valid)
    bench.m.d.comb += dut.r.data_valid.eq(
        bench.before(bench.before(dut.r.address.valid & dut.r.address.ready)))
    bench.assume(bench.kept(dut.engine.i.valid, dut.engine.i.ready, dut.engine.i.p))
    bench.assume(~dut.engine.i.valid | (dut.engine.i.p.sync.opcode == Opcode.STORE))
    if aborts:
        bench.assume(dut.abort | ~bench.before(dut.abort))
    else:
        bench.assume(~dut.abort)
    announced = bench.register(3, "announced")
    sent      = bench.register(3, "sent")
    ends      = axi.wvalid & axi.wready & axi.wlast
    bench.m.d.sync += [
        announced.eq(announced + (axi.awvalid & axi.awready) - axi.bvalid),
        sent.eq(sent + ends - axi.bvalid),
    ]
    bench.assume(~axi.bvalid | ((sent != 0) & (announced != 0)))
    return dut, announced, sent


@prove((StoreEngine.elaborate, "with m.If(axi.awready):", "with m.If(axi.awready | self.abort):"),
       slow=True)
def addresses_hold(bench):
    """AW, once valid, stays valid and the same until memory takes it, also under ``abort``."""
    dut, _, _ = engine(bench)
    axi = dut.axi
    bench.check(bench.kept(axi.awvalid, axi.awready, axi.awaddr, axi.awlen, axi.awsize, axi.awid,
                           axi.awburst), "AW holds")
    bench.cover(axi.awvalid & bench.before(axi.awvalid & ~axi.awready & dut.abort))


@prove((StoreEngine.elaborate, "Mux(blank, 0, words.r_data)", "words.r_data"), steps=20)
def data_hold(bench):
    """W, once valid, stays valid and the same, data included, until memory takes it, also if
    ``abort`` rises meanwhile. Without the Mux this is the fault that was found in review: reads on
    their way changed WDATA of an aborted burst."""
    dut, _, _ = engine(bench)
    axi = dut.axi
    bench.check(bench.kept(axi.wvalid, axi.wready, axi.wdata, axi.wstrb, axi.wlast), "W holds")
    bench.cover(axi.wvalid & bench.before(axi.wvalid & ~axi.wready & dut.abort))


@prove((StoreEngine.elaborate, "owed.eq(lengths.r_data)", "owed.eq(0)"), steps=16, slow=True)
def data_are_as_long_as_announced(bench):
    """A symbolic burst gets exactly the beats that its AWLEN announced, WLAST with the last one."""
    dut, _, _ = engine(bench)
    axi    = dut.axi
    which  = bench.constant(3, "which")                 # burst number, modulo 8
    number = bench.register(3, "addresses")
    bursts = bench.register(3, "bursts")
    beats  = bench.register(range(WINDOW + 1), "beats")
    length = bench.register(range(WINDOW), "length")
    fresh  = bench.register(1, "announced_which")
    offers = axi.awvalid & ~bench.before(axi.awvalid & ~axi.awready)
    with bench.m.If(offers):
        bench.m.d.sync += number.eq(number + 1)
        with bench.m.If(number == which):
            bench.m.d.sync += [length.eq(axi.awlen), fresh.eq(1)]
    with bench.m.If(axi.wvalid & axi.wready):
        bench.m.d.sync += beats.eq(beats + 1)
        with bench.m.If(axi.wlast):
            bench.m.d.sync += [beats.eq(0), bursts.eq(bursts + 1)]
            with bench.m.If(bursts == which):
                bench.m.d.sync += fresh.eq(0)
    bench.check(~axi.wvalid | ~fresh | (bursts != which) | (axi.wlast == (beats == length)),
                "WLAST with the last of AWLEN + 1 beats")
    bench.check(axi.awlen < WINDOW, "no longer than the window")
    bench.cover(axi.wvalid & fresh & (bursts == which) & axi.wlast & (beats == WINDOW - 1))


@prove((StoreEngine.elaborate, "axi.wvalid.eq(active & (words.r_rdy | blank))",
        "axi.wvalid.eq(words.r_rdy | blank)"), steps=16, slow=True)
def no_data_without_an_address(bench):
    """No beat is on offer but of a burst whose address has been on offer before."""
    dut, _, _ = engine(bench)
    axi  = dut.axi
    owed = bench.register(4, "owed")                    # bursts on offer, data not complete
    offers = axi.awvalid & ~bench.before(axi.awvalid & ~axi.awready)
    bench.m.d.sync += owed.eq(owed + offers - (axi.wvalid & axi.wready & axi.wlast))
    bench.check(~axi.wvalid | (owed != 0), "an address first")
    bench.check(owed <= OUTSTANDING, "no more than are allowed to be under way")
    bench.cover(axi.wvalid & (owed == OUTSTANDING))


@prove((StoreEngine.elaborate, "(unacknowledged != self.outstanding)", "C(1)"), slow=True)
def outstanding_bursts_are_bounded(bench):
    """Never more than ``outstanding`` bursts are announced and not acknowledged, and ``idle`` means
    none."""
    dut, announced, _ = engine(bench)
    under_way = bench.named(announced + dut.axi.awvalid, "under_way")
    bench.check(under_way <= OUTSTANDING, "bounded")
    bench.check(~dut.idle | (under_way == 0), "idle means nothing is owed")
    bench.check(dut.axi.bready, "acknowledgements are always taken")
    bench.cover(under_way == OUTSTANDING)


@prove((StoreEngine.elaborate, "(promised != self.buffer)", "C(1)"), slow=True)
def buffer_never_overflows(bench):
    """No vector arrives from on-chip memory without a place in the buffer."""
    dut    = StoreEngine(config=SMALL, window=WINDOW, outstanding=OUTSTANDING, buffer=4)
    inside = bench.inner(dut)
    bench.driven(dut.r.data_valid)
    bench.m.d.comb += dut.r.data_valid.eq(
        bench.before(bench.before(dut.r.address.valid & dut.r.address.ready)))
    bench.assume(bench.kept(dut.engine.i.valid, dut.engine.i.ready, dut.engine.i.p))
    bench.check(~dut.r.data_valid | inside("words.w_rdy"), "a place for each")
    bench.cover(~inside("words.w_rdy"))


@prove((StoreEngine.elaborate, "(offchip_end <= config.offchip_words)", "C(1)"),
       steps=12, slow=True)
def addresses_stay_in_the_run(bench):
    """Every beat that is announced lies in the run of the instruction on offer, and in off-chip
    memory; nothing is announced for an instruction that leaves either memory. Here: runs of up to 7
    beats, anywhere in twice the memory."""
    dut, _, _ = engine(bench)
    axi, store = dut.axi, dut.engine.i.p.store
    bench.assume((store.beats < 8) & (store.offchip < 1 << 14))
    first  = bench.named(axi.awaddr >> 3, "first")
    end    = bench.named(first + axi.awlen + 1, "end")
    offers = axi.awvalid & ~bench.before(axi.awvalid & ~axi.awready)
    bench.check(~offers | ((first >= store.offchip >> 3)
                           & (end <= (store.offchip >> 3) + store.beats)), "within the run")
    bench.check(~offers | (end <= SMALL.offchip_words), "within off-chip memory")
    bench.check(~offers | (first // WINDOW == (end - 1).as_unsigned() // WINDOW), "one window")
    bench.cover(offers & (store.beats == 7) & (end == (store.offchip >> 3) + 7))


@prove((StoreEngine.elaborate, "(onchip_end <= config.onchip_words)", "C(1)"),
       steps=12, slow=True)
def reads_stay_in_the_run(bench):
    """Every on-chip read lies in the run of the instruction on offer, and in on-chip memory."""
    dut, _, _ = engine(bench, aborts=False)
    store, read = dut.engine.i.p.store, dut.r.address
    bench.assume((store.beats < 8) & (store.offchip < 1 << 14))
    bench.check(~read.valid | ((read.p >= store.base) & (read.p < store.base + store.beats)), "run")
    bench.check(~read.valid | (store.base + store.beats <= SMALL.onchip_words), "memory")
    bench.cover(read.valid & (store.beats == 7) & (read.p == store.base + 6))


@prove((StoreEngine.elaborate, "splitter.i.ready & (unacknowledged == 0)", "splitter.i.ready"),
       slow=True)
def retires_only_when_acknowledged(bench):
    """An instruction retires only when every burst of it has been acknowledged."""
    dut, announced, _ = engine(bench)
    bench.check(~dut.engine.i.ready | ((announced == 0) & ~dut.axi.awvalid), "all acknowledged")
    bench.cover(dut.engine.i.ready & dut.engine.i.valid)


@prove((StoreEngine.elaborate, "self.engine.cause.eq(Cause.NO_WORK)",
        "[self.engine.cause.eq(Cause.NO_WORK), self.engine.i.ready.eq(1)]"), slow=True)
def errors_hold(bench):
    """An error stays until reset, and nothing retires after it."""
    dut, _, _ = engine(bench)
    error = dut.engine.error.as_value()
    past  = bench.before(error)
    bench.check((past == 0) | (error == past), "error holds")
    bench.check((error == 0) | ~dut.engine.i.ready, "nothing retires")
    bench.cover(past != 0)
