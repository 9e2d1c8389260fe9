"""Properties of :class:`hw.memory.stores.StoreEngines`: two store channels on one write port."""

from contextlib import contextmanager

from amaranth import *
from amaranth.utils import exact_log2

from hw.isa import STORES
from hw.memory import stores
from hw.memory.store import StoreEngine
from hw.memory.stores import GRANTS, StoreEngines
from hw.prove.bench import prove
from hw.prove.small import SMALL


class AnyChannel(StoreEngine):
    """A channel with the ports of a store engine and nothing inside: the bench plays it."""

    def elaborate(self, platform):
        m = Module()
        m.submodules += [self.lengths, self.words]      # unconnected: else they are unused
        return m


@contextmanager
def played():
    """Within it, :class:`StoreEngines` is made of channels that the bench plays."""
    made = []

    def make(**kwargs):
        made.append(AnyChannel(**kwargs))
        return made[-1]
    real, stores.StoreEngine = stores.StoreEngine, make
    try:
        yield made
    finally:
        stores.StoreEngine = real


def port(bench, *, bursts=4):
    """The interconnect, between two channels that obey AXI4's rules, with at most ``bursts`` under
    way, and any memory.

    Returns it, and the channels.
    """
    with played() as channels:
        dut = StoreEngines(SMALL)
        bench.inner(dut)
    for number, channel in enumerate(channels):
        axi = channel.axi
        for name in ("awvalid", "awaddr", "awlen", "wvalid", "wdata", "wstrb", "wlast"):
            signal = getattr(axi, name)
            bench.inputs[f"channel_{number}.{name}"] = Value.cast(signal)
            bench.shown[f"channel_{number}.{name}"]  = signal
        bench.assume(bench.kept(axi.awvalid, axi.awready, axi.awaddr, axi.awlen))
        bench.assume(bench.kept(axi.wvalid, axi.wready, axi.wdata, axi.wstrb, axi.wlast))
        owed = bench.register(4, f"owed_{number}")      # bursts announced, data not complete
        news = axi.awvalid & ~bench.before(axi.awvalid & ~axi.awready)
        ends = axi.wvalid & axi.wready & axi.wlast
        bench.m.d.sync += owed.eq(owed + news - ends)
        bench.assume(~news | (owed < bursts))
        bench.assume(~axi.wvalid | (owed != 0))
    return dut, channels


@prove((StoreEngines.elaborate, "holds.eq(axi.awvalid & ~axi.awready)", "holds.eq(0)"), slow=True)
def addresses_hold(bench):
    """AW of the shared port holds until taken, whatever the other channel does meanwhile."""
    dut, _ = port(bench)
    axi = dut.axi
    bench.check(bench.kept(axi.awvalid, axi.awready, axi.awid, axi.awaddr, axi.awlen), "AW holds")
    bench.cover(axi.awvalid & (axi.awid == 1) & bench.before(axi.awvalid & ~axi.awready))


@prove((StoreEngines.elaborate, "order.r_en.eq(axi.wvalid & axi.wready & axi.wlast)",
        "order.r_en.eq(axi.wvalid & axi.wlast)"), steps=16, slow=True)
def data_hold(bench):
    """W of the shared port holds until taken."""
    dut, _ = port(bench)
    axi = dut.axi
    bench.check(bench.kept(axi.wvalid, axi.wready, axi.wdata, axi.wstrb, axi.wlast), "W holds")
    bench.cover(axi.wvalid & bench.before(axi.wvalid & ~axi.wready))


@prove((StoreEngines.elaborate, "order.w_en.eq(axi.awvalid & ~holds)",
        "order.w_en.eq(axi.awvalid & axi.awready)"))
def data_never_wait_for_awready(bench):
    """A channel whose burst is the only one on the port gets its data offered at once, although
    memory has not taken the address: AXI4 forbids to wait, as memory may wait for the data. The
    mutant is the deadlock that was found in review."""
    dut, channels = port(bench)
    axi    = dut.axi
    first  = channels[0].axi
    bench.assume(~channels[1].axi.awvalid & ~axi.awready)
    waited = bench.register(3, "waited")
    bench.m.d.sync += waited.eq(Mux(first.wvalid & axi.awvalid & ~axi.wvalid, waited + 1, 0))
    bench.check(waited <= 1, "WVALID follows within a cycle")
    bench.cover(axi.wvalid & axi.awvalid)


@prove((StoreEngines.elaborate, "Mux(holds | ~order.w_rdy, 0,", "Mux(holds, 0,"), slow=True)
def no_grant_is_lost(bench):
    """The queue of grants never overflows: every address that is offered has its place in it, even
    with channels that announce more than a store engine does."""
    dut, _ = port(bench, bursts=6)
    axi   = dut.axi
    level = bench.register(5, "level")
    news  = axi.awvalid & ~bench.before(axi.awvalid & ~axi.awready)
    bench.m.d.sync += level.eq(level + news - (axi.wvalid & axi.wready & axi.wlast))
    bench.check(level <= GRANTS, "a place for each")
    bench.check(~axi.wvalid | (level != 0), "no data without an address")
    bench.cover(level == GRANTS)


@prove((StoreEngines.elaborate, "axi.awid.eq(number)", "axi.awid.eq(0)"), slow=True)
def everything_finds_its_channel(bench):
    """An address goes out under its channel's number, a beat is what one channel offers, and an
    acknowledgement goes to the channel whose number it bears, and to no other."""
    dut, channels = port(bench)
    axi = dut.axi
    for number, channel in enumerate(channels):
        own = channel.axi
        bench.check(~(own.awvalid & own.awready)
                    | ((axi.awid == number) & (axi.awaddr == own.awaddr)
                       & (axi.awlen == own.awlen) & axi.awvalid & axi.awready), "address")
        bench.check(~(own.wvalid & own.wready)
                    | (axi.wvalid & axi.wready & (axi.wdata == own.wdata)
                       & (axi.wstrb == own.wstrb) & (axi.wlast == own.wlast)), "beat")
        bench.check(own.bvalid == (axi.bvalid & (axi.bid == number)), "acknowledgement")
    bench.check(~(channels[0].axi.wready & channels[1].axi.wready), "one channel sends")
    bench.cover(axi.awvalid & (axi.awid == 1) & axi.awready & channels[0].axi.awvalid)


@prove((StoreEngine.elaborate, "below.eq(store.offchip < self.writable.base)", "below.eq(0)"),
       method="induction", depth=3, slow=True)
def nothing_is_written_outside_the_window(bench):
    """No beat is announced outside WRITE_BASE to WRITE_LIMIT, or outside off-chip memory, whatever
    the instructions of both channels are, for any window that holds while the machine runs, with
    runs and addresses at their full widths. That no beat comes without its address is shown
    elsewhere."""
    dut    = StoreEngines(SMALL)
    inside = bench.inner(dut)
    axi, window, beat = dut.axi, dut.writable, exact_log2(SMALL.vector)
    bench.assume(~bench.started | (window.as_value() == bench.before(window.as_value())))
    end = bench.named(Mux(window.limit == 0, SMALL.offchip_words, window.limit >> beat), "end")

    def lies_inside(first, beats):
        return (((first << beat) >= window.base) & (first + beats <= end)
                & (first + beats <= SMALL.offchip_words))

    for engine, port, channel in zip(STORES, dut.engines, dut.channels):
        own      = channel.axi
        splitter = f"{engine.name.lower()}.splitter"
        bench.assume(bench.kept(port.i.valid, port.i.ready, port.i.p))
        bench.check(~inside(f"{splitter}.o__valid") | lies_inside(
            inside(f"{splitter}.address"), inside(f"{splitter}.left") + 1), "to announce")
        bench.check(~own.awvalid | lies_inside(own.awaddr >> beat, own.awlen + 1), "of a channel")
    bench.check(~axi.awvalid | lies_inside(axi.awaddr >> beat, axi.awlen + 1), "on the bus")
    bench.cover(axi.awvalid & (axi.awlen == 3) & ((axi.awaddr >> beat) + 4 == end)
                & (window.base == axi.awaddr) & (axi.awid == 1))
