"""Two store channels on one AXI write port."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.interfaces import EngineSignature, MemoryRead, window_layout
from hw.isa import STORES, Traffic
from hw.memory.arbiter import RoundRobin
from hw.memory.axi import AxiWrite
from hw.memory.protected import queue
from hw.memory.store import StoreEngine
from hw.memory.traffic import COUNTER_BITS

GRANTS = 8
"""Bursts whose data may be owed at once."""


class StoreEngines(wiring.Component):
    """The machine's store channels, so that masks never wait behind spilled maps.

    Bursts take turns on the address channel; their data follow in the order of their addresses, as
    AXI4 demands, and acknowledgements find their channel by id. Data of a burst waits until all
    data of the bursts before it have gone, but never for its address: memory may take either first.

    Parameters
    ----------
    config : hw.config.Config

    Members
    -------
    engines : Array of Out(EngineSignature())
        In the order of ``hw.isa.STORES``.
    reads : Array of Out(MemoryRead(...))
        On-chip memory, one port per channel.
    axi : Out(AxiWrite(...))
    writable, abort, idle, frame_ended, bytes, bursts
        As those of :class:`hw.memory.store.StoreEngine`, for both together.
    """

    def __init__(self, config):
        self.config    = config
        self.channels  = [StoreEngine(config=config) for _ in STORES]
        self.order     = queue(config.protects("queues"), width=len(STORES), depth=GRANTS)
        self.protected = [("queues", self.order),
                          *(pair for channel in self.channels for pair in channel.protected)]
        read = MemoryRead(depth=config.onchip_words, vector=config.vector)
        super().__init__({
            "engines":     Out(EngineSignature()).array(len(STORES)),
            "reads":       Out(read).array(len(STORES)),
            "axi":         Out(AxiWrite(data_width=config.vector * 8,
                                        address_width=config.offchip_address_width)),
            "writable":    In(window_layout()),
            "abort":       In(1),
            "idle":        Out(1),
            "frame_ended": Out(1),
            "bytes":       Out(COUNTER_BITS).array(len(Traffic)),
            "bursts":      Out(COUNTER_BITS),
        })

    def elaborate(self, platform):
        m = Module()

        axi      = self.axi
        channels = self.channels
        for engine, channel, port, read in zip(STORES, channels, self.engines, self.reads):
            m.submodules[engine.name.lower()] = channel
            connect(m, channel.engine, flipped(port))
            connect(m, channel.r, flipped(read))
            m.d.comb += [channel.abort.eq(self.abort), channel.writable.eq(self.writable)]

        # Addresses take turns; a grant holds until memory takes the address.
        m.submodules.arbiter = arbiter = RoundRobin(width=len(channels))
        m.submodules.order   = order   = self.order
        held, holds = Signal(len(channels)), Signal()
        grant = Signal(len(channels))
        m.d.comb += [
            arbiter.requests.eq(Mux(holds | ~order.w_rdy, 0,
                                    Cat(channel.axi.awvalid for channel in channels))),
            arbiter.taken.eq(1),
            grant.eq(Mux(holds, held, arbiter.grant)),
            axi.awvalid.eq(grant.any()),
            order.w_data.eq(grant),
            order.w_en.eq(axi.awvalid & ~holds),
        ]
        m.d.sync += [held.eq(grant), holds.eq(axi.awvalid & ~axi.awready)]
        for number, channel in enumerate(channels):
            m.d.comb += channel.axi.awready.eq(grant[number] & axi.awready)
            with m.If(grant[number]):
                m.d.comb += [
                    axi.awid.eq(number),
                    *(getattr(axi, name).eq(getattr(channel.axi, name))
                      for name in ("awaddr", "awlen", "awsize", "awburst")),
                ]

        # Data of the oldest granted burst.
        m.d.comb += order.r_en.eq(axi.wvalid & axi.wready & axi.wlast)
        for number, channel in enumerate(channels):
            with m.If(order.r_rdy & order.r_data[number]):
                m.d.comb += [
                    channel.axi.wready.eq(axi.wready),
                    *(getattr(axi, name).eq(getattr(channel.axi, name))
                      for name in ("wvalid", "wdata", "wstrb", "wlast")),
                ]

        # Acknowledgements; both channels always take theirs.
        m.d.comb += axi.bready.eq(1)
        for number, channel in enumerate(channels):
            m.d.comb += [
                channel.axi.bvalid.eq(axi.bvalid & (axi.bid == number)),
                channel.axi.bresp.eq(axi.bresp),
            ]

        m.d.comb += [
            self.idle.eq(Cat(channel.idle for channel in channels).all()),
            self.frame_ended.eq(Cat(channel.frame_ended for channel in channels).any()),
            self.bursts.eq(sum(channel.bursts for channel in channels)),
        ]
        for index, count in enumerate(self.bytes):
            m.d.comb += count.eq(sum(channel.bytes[index] for channel in channels))

        return m
