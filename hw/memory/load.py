"""The load side of the memory system: three units and the program share one AXI read port."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2, exact_log2

from hw.interfaces import EngineSignature, MemoryWrite, load_layout
from hw.isa import INSTRUCTION_BITS, INSTRUCTION_BYTES, Traffic
from hw.memory.arbiter import RoundRobin
from hw.memory.axi import PAGE_BYTES, AxiRead, Response
from hw.memory.channel import LoadChannel
from hw.memory.protected import queue
from hw.memory.skid import SkidBuffer, StreamRegister
from hw.memory.traffic import COUNTER_BITS, TrafficCounter

FETCH_LAYOUT = data.StructLayout({"data": INSTRUCTION_BITS, "error": 1})
"""An instruction word from off-chip memory; ``data`` means nothing with ``error``."""


class LoadEngines(wiring.Component):
    """LOAD engines of the encoder, attention and decoder units, and the program's way in.

    Each :class:`hw.memory.channel.LoadChannel` runs its own instructions, one at a time. Bursts of
    the three, and fetches, take turns on the AXI port, ``outstanding`` of each client under way at
    most; AXI's order (one id) says whose the next beat is. A beat goes through one register, then
    to on-chip memory, to its unit, or to the fetcher. A full-rate consumer gets one beat per
    cycle; a consumer that refuses its beat holds up those behind it.

    A fetch gets its ``INSTRUCTION_BYTES`` bytes as one answer, in order. One off the alignment or
    beyond the memory is answered with ``error`` and no access. The fetcher must take its answers in
    any case, or no load goes on.

    In a pipelined machine words for on-chip memory go through a register, and a refused one is kept
    while the next comes; a LOAD retires when its last word has landed.

    ``abort`` (hold it until reset) stops new bursts and drops everything that still arrives; with
    ``idle`` the AXI port owes and is owed nothing, and the block may be reset.

    Parameters
    ----------
    config : hw.config.Config
    window : int
        Most beats in a burst, a power of two; bursts never cross its multiples.
    outstanding : int
        Bursts under way per client.
    id_width : int

    Members
    -------
    engines : Array of Out(EngineSignature())
        In the order of ``hw.isa.LOADS``, which is that of ``Config.units``.
    units : Array of Out(stream.Signature(load_layout(...)))
    w : Out(MemoryWrite(...))
        On-chip memory.
    requests : In(stream.Signature(32))
        Byte addresses of instruction words to fetch.
    answers : Out(stream.Signature(FETCH_LAYOUT))
    axi : Out(AxiRead(...))
    abort : In(1)
    idle : Out(1)
    frame_started : Out(1)
        Pulse: the first data of a LOAD with ``frame_start`` was delivered.
    bytes : Array of Out(40), indexed by Traffic
    bursts : Out(40)
    """

    def __init__(self, *, config, window=32, outstanding=2, id_width=1):
        if window < 2 or window & (window - 1):
            raise ValueError(f"Window must be a power of two of at least 2, not {window!r}")
        if window > 256 or window * config.vector > PAGE_BYTES:
            raise ValueError(f"Window of {window} beats of {config.vector} bytes must not exceed "
                             f"256 beats or {PAGE_BYTES} bytes")
        if outstanding < 1:
            raise ValueError(f"Outstanding bursts must be positive, not {outstanding!r}")
        self.config      = config
        self.window      = window
        self.outstanding = outstanding
        clients          = len(config.units) + 1
        self.order       = queue(config.protects("queues"), width=ceil_log2(clients),
                                 depth=clients * outstanding)
        self.protected   = [("queues", self.order)]

        super().__init__({
            "engines": Out(EngineSignature()).array(len(config.units)),
            "units":   Out(stream.Signature(load_layout(vector=config.vector)))
                       .array(len(config.units)),
            "w":        Out(MemoryWrite(depth=config.onchip_words, vector=config.vector,
                                        lanes=config.onchip_lanes)),
            "requests": In(stream.Signature(32)),
            "answers":  Out(stream.Signature(FETCH_LAYOUT)),
            "axi":      Out(AxiRead(data_width=config.vector * 8, id_width=id_width,
                                    address_width=config.offchip_address_width)),
            "abort":         In(1),
            "idle":          Out(1),
            "frame_started": Out(1),
            "bytes":         Out(COUNTER_BITS).array(len(Traffic)),
            "bursts":        Out(COUNTER_BITS),
        })

    def elaborate(self, platform):
        m = Module()

        axi       = self.axi
        config    = self.config
        byte_bits = exact_log2(config.vector)
        channels  = []
        for unit, engine in zip(config.units, self.engines):
            channel = LoadChannel(config=config, unit=unit, window=self.window)
            m.submodules[unit] = channel
            connect(m, flipped(engine), channel.engine)
            channels.append(channel)
        clients = len(channels) + 1
        fetcher = clients - 1

        # Who asks.
        m.submodules.arbiter = arbiter = RoundRobin(width=clients)
        m.submodules.order   = order   = self.order
        under_way = [Signal(range(self.outstanding + 1), name=f"under_way_{k}")
                     for k in range(clients)]
        has_room  = Signal(clients)
        asks      = Signal(clients)
        grant     = Signal(clients)
        arrives   = Signal()      # a beat enters the beat register
        ends      = Signal(clients)
        m.d.comb += [
            has_room.eq(Cat(count != self.outstanding for count in under_way)),
            arbiter.requests.eq(Mux(~self.abort & (~axi.arvalid | axi.arready),
                                    asks & has_room, 0)),
            arbiter.taken.eq(1),
            grant.eq(arbiter.grant),
            order.w_en.eq(grant.any()),
        ]
        for number, count in enumerate(under_way):
            with m.If(grant[number]):
                m.d.comb += order.w_data.eq(number)
            m.d.sync += count.eq(count + grant[number] - ends[number])
            m.d.comb += ends[number].eq(arrives & axi.rlast & (order.r_data == number))

        m.d.comb += axi.arsize.eq(byte_bits)
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        for number, channel in enumerate(channels):
            m.d.comb += asks[number].eq(channel.bursts.valid)
            m.d.comb += channel.bursts.ready.eq(grant[number])
            with m.If(grant[number]):
                m.d.sync += [
                    axi.arvalid.eq(1),
                    axi.araddr.eq(Cat(C(0, byte_bits), channel.bursts.p.address)),
                    axi.arlen.eq(channel.bursts.p.length),
                ]

        fetch       = self.requests
        fetch_legal = Signal()
        fetch_fails = Signal()      # answered without an access, after those under way
        m.d.comb += [
            fetch_legal.eq((fetch.p[:exact_log2(INSTRUCTION_BYTES)] == 0)
                           & (fetch.p < config.offchip_bytes)),
            asks[fetcher].eq(fetch.valid & fetch_legal),
            fetch.ready.eq(grant[fetcher] | fetch_fails),
        ]
        with m.If(grant[fetcher]):
            m.d.sync += [
                axi.arvalid.eq(1),
                axi.araddr.eq(fetch.p),
                axi.arlen.eq(INSTRUCTION_BYTES // config.vector - 1),
            ]
        with m.If(grant.any()):
            m.d.sync += self.bursts.eq(self.bursts + 1)

        # The beat register.
        full   = Signal()
        client = Signal(range(clients))
        beat   = Signal(config.vector * 8)
        error  = Signal()
        last   = Signal()
        taken  = Signal()
        m.d.comb += [
            axi.rready.eq(~full | taken),
            arrives.eq(axi.rvalid & axi.rready),
            order.r_en.eq(arrives & axi.rlast),
        ]
        with m.If(taken):
            m.d.sync += full.eq(0)
        with m.If(arrives):
            m.d.sync += [
                full.eq(1),
                client.eq(order.r_data),
                beat.eq(axi.rdata),
                error.eq(axi.rresp != Response.OKAY),
                last.eq(axi.rlast),
            ]
        m.d.comb += self.idle.eq(~order.r_rdy & ~full)

        # Where the beat goes: its channel says. Only one channel has it, so its word is the write.
        part    = Signal(range(config.vector // 4))
        wide    = Signal()
        address = Signal(range(config.onchip_words))
        write   = self.w.w
        landed  = C(1)
        if config.pipelined:
            m.submodules.skid = skid = SkidBuffer(write.p.shape())
            m.submodules.asked = asked = StreamRegister(write.p.shape())
            connect(m, skid.o, asked.i)
            connect(m, asked.o, flipped(write))
            write, landed = skid.i, ~(skid.full | asked.o.valid)
        m.d.comb += self.frame_started.eq(Cat(ch.frame_started for ch in channels).any())
        for number, (channel, o) in enumerate(zip(channels, self.units)):
            connect(m, channel.o, flipped(o))
            mine = Signal(name=f"mine_{number}")
            m.d.comb += [
                mine.eq(full & (client == number) & ~self.abort),
                channel.arrived.eq(mine),
                channel.arrived_error.eq(error),
                channel.data.eq(beat),
                channel.word.ready.eq(write.ready),
                channel.landed.eq(landed),
            ]
            with m.If(mine):
                m.d.comb += [
                    taken.eq(channel.taken),
                    part.eq(channel.part),
                    wide.eq(~channel.expand),
                    write.valid.eq(channel.word.valid),
                    address.eq(channel.word.p),
                ]
        m.d.comb += write.p.eq(Cat(address, Mux(wide, beat, beat.word_select(part, 32)),
                                   Const(-1, config.onchip_lanes)))

        # Fetched words are put together from their beats.
        answer    = self.answers
        word      = Signal(INSTRUCTION_BITS)
        collected = Signal()      # an error among the earlier beats of the word
        free      = Signal()
        mine      = Signal(name="mine_fetcher")
        m.d.comb += [
            mine.eq(full & (client == fetcher) & ~self.abort),
            free.eq(~answer.valid | answer.ready),
            answer.p.data.eq(word),
            fetch_fails.eq(fetch.valid & ~fetch_legal & (under_way[fetcher] == 0) & ~mine & free
                           & ~self.abort),
        ]
        with m.If(answer.ready):
            m.d.sync += answer.valid.eq(0)
        with m.If(mine):
            m.d.comb += taken.eq(free)
            with m.If(free):
                m.d.sync += [
                    word.eq(Cat(word, beat)[config.vector * 8:]),
                    collected.eq(~last & (collected | error)),
                    answer.p.error.eq(collected | error),
                    answer.valid.eq(last),
                ]
        with m.Elif(fetch_fails):
            m.d.sync += answer.p.error.eq(1)
            m.d.sync += answer.valid.eq(1)
        with m.If(self.abort):
            m.d.comb += taken.eq(1)

        # Traffic.
        m.submodules.traffic = traffic = TrafficCounter(vector=config.vector)
        m.d.comb += traffic.beat.eq(arrives)
        m.d.comb += traffic.traffic.eq(Traffic.PROGRAM)
        for number, channel in enumerate(channels):
            with m.If(order.r_data == number):
                m.d.comb += traffic.traffic.eq(channel.traffic)
        for o, count in zip(self.bytes, traffic.bytes):
            m.d.comb += o.eq(count)

        return m
