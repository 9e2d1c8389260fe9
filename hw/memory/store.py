"""The store side of the memory system: on-chip memory to AXI write bursts."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.interfaces import EngineSignature, MemoryRead, window_layout
from hw.isa import Cause, Error, Traffic
from hw.memory.axi import PAGE_BYTES, AxiWrite, Response
from hw.memory.bursts import BurstSplitter
from hw.memory.channel import BEATS_BITS, MAX_BEATS
from hw.memory.protected import queue
from hw.memory.traffic import COUNTER_BITS, TrafficCounter


class StoreEngine(wiring.Component):
    """Runs STORE instructions, one at a time, up to one beat per cycle.

    An instruction takes two cycles to be checked; then on-chip reads and write bursts run side by
    side, decoupled by a buffer of ``buffer`` vectors. It retires once the last burst is
    acknowledged. Causes: ``ISSUE`` for a beat that AXI took; ``BACKPRESSURE`` while AXI refuses
    data or an address, or owes the last acknowledgements; ``CONFLICT`` while it would take data
    but the on-chip read is refused; else ``FILL_DRAIN``.

    ``BAD_ADDRESS`` without any access: no beats; an off-chip address off the beat; a run beyond
    either memory. ``WRITE_PROTECTED``, likewise: a run that is not wholly inside ``writable`` when
    it is checked. ``AXI_WRITE``: a burst was acknowledged with an error. After any nothing
    retires, and ``error`` holds until reset.

    ``abort`` (hold it until reset) stops reads and new bursts; those announced are completed
    with all strobes low. With ``idle`` neither port owes or is owed anything.

    Parameters
    ----------
    config : hw.config.Config
    window : int
        Most beats in a burst, a power of two; bursts never cross its multiples.
    outstanding : int
        Bursts announced and not yet acknowledged.
    buffer : int
        Vectors, 4 at least; 8 suffice for full rate.
    id_width : int

    Members
    -------
    engine : Out(EngineSignature())
    r : Out(MemoryRead(...))
        On-chip memory.
    axi : Out(AxiWrite(...))
    writable : In(window_layout())
    abort : In(1)
    idle : Out(1)
    frame_ended : Out(1)
        Pulse: a STORE with ``frame_end`` retires.
    bytes : Array of Out(40), indexed by Traffic
    bursts : Out(40)
    """

    def __init__(self, *, config, window=64, outstanding=4, buffer=16, id_width=1):
        if window < 2 or window & (window - 1):
            raise ValueError(f"Window must be a power of two of at least 2, not {window!r}")
        if window > 256 or window * config.vector > PAGE_BYTES:
            raise ValueError(f"Window of {window} beats of {config.vector} bytes must not exceed "
                             f"256 beats or {PAGE_BYTES} bytes")
        if outstanding < 1:
            raise ValueError(f"Outstanding bursts must be positive, not {outstanding!r}")
        if buffer < 4:
            raise ValueError(f"Buffer must hold at least 4 vectors, not {buffer!r}")
        self.config      = config
        self.window      = window
        self.outstanding = outstanding
        self.buffer      = buffer
        kind             = config.protects("queues")
        self.lengths     = queue(kind, width=exact_log2(window), depth=outstanding)
        self.words       = queue(kind, width=config.vector * 8, depth=buffer, buffered=True)
        self.protected   = [("queues", self.lengths), ("queues", self.words)]

        super().__init__({
            "engine": Out(EngineSignature()),
            "r":      Out(MemoryRead(depth=config.onchip_words, vector=config.vector)),
            "axi":    Out(AxiWrite(data_width=config.vector * 8, id_width=id_width,
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

        axi       = self.axi
        config    = self.config
        store     = self.engine.i.p.store
        byte_bits = exact_log2(config.vector)

        m.submodules.splitter = splitter = BurstSplitter(
            address_width=config.offchip_address_width - byte_bits, beats=MAX_BEATS,
            window=self.window)
        m.submodules.lengths = lengths = self.lengths
        m.submodules.words   = words   = self.words

        # Check, in two steps: the ends of both runs, then the limits.
        offchip_end = Signal(33 - byte_bits)
        onchip_end  = Signal(BEATS_BITS + 1)
        legal       = Signal()
        below       = Signal()       # begins before the window
        beyond      = Signal()       # ends behind it
        limit       = Signal.like(offchip_end)
        m.d.sync += [
            offchip_end.eq(store.offchip[byte_bits:] + store.beats),
            onchip_end.eq(store.base + store.beats),
            below.eq(store.offchip < self.writable.base),
        ]
        m.d.comb += limit.eq(self.writable.limit[byte_bits:])
        m.d.comb += beyond.eq((self.writable.limit != 0) & (offchip_end > limit))
        m.d.comb += legal.eq((store.beats != 0)
                             & (store.offchip[:byte_bits] == 0)
                             & (offchip_end <= config.offchip_words)
                             & (onchip_end <= config.onchip_words))

        # Addresses of bursts.
        unacknowledged = Signal(range(self.outstanding + 1))
        announces      = Signal()
        acknowledged   = Signal()
        m.d.comb += [
            splitter.i.p.address.eq(store.offchip[byte_bits:]),
            splitter.i.p.beats.eq(store.beats),
            announces.eq(splitter.o.valid & (~axi.awvalid | axi.awready) & ~self.abort
                         & (unacknowledged != self.outstanding)),
            splitter.o.ready.eq(announces),
            lengths.w_en.eq(announces),
            lengths.w_data.eq(splitter.o.p.length),
            axi.awsize.eq(byte_bits),
            axi.bready.eq(1),
            acknowledged.eq(axi.bvalid),
        ]
        m.d.sync += unacknowledged.eq(unacknowledged + announces - acknowledged)
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        with m.If(announces):
            m.d.sync += [
                axi.awvalid.eq(1),
                axi.awaddr.eq(Cat(C(0, byte_bits), splitter.o.p.address)),
                axi.awlen.eq(splitter.o.p.length),
                self.bursts.eq(self.bursts + 1),
            ]

        # Data: as many reads as the buffer has room for.
        address  = Signal(range(config.onchip_words))
        left     = Signal(BEATS_BITS)
        promised = Signal(range(self.buffer + 1))      # in the buffer, or on the way to it
        on_way   = Signal.like(promised)               # of these, not in the buffer
        requests = Signal()
        sends    = Signal()
        m.d.comb += [
            self.r.address.valid.eq((left != 0) & (promised != self.buffer) & ~self.abort),
            self.r.address.p.eq(address),
            requests.eq(self.r.address.valid & self.r.address.ready),
            words.w_data.eq(self.r.data),
            words.w_en.eq(self.r.data_valid),
            words.r_en.eq(sends),
        ]
        m.d.sync += on_way.eq(on_way + requests - self.r.data_valid)
        m.d.sync += promised.eq(promised + requests - words.r_en)
        with m.If(requests):
            m.d.sync += address.eq(address + 1)
            m.d.sync += left.eq(left - 1)

        active  = Signal()      # a burst owes `owed + 1` beats
        owed    = Signal(range(self.window))
        blank   = Signal()      # aborted: bursts go on without data
        refused = Signal()
        m.d.comb += [
            axi.wvalid.eq(active & (words.r_rdy | blank)),
            axi.wdata.eq(Mux(blank, 0, words.r_data)),     # reads may still be on their way
            axi.wstrb.eq(Mux(blank, 0, ~0)),
            axi.wlast.eq(owed == 0),
            refused.eq(axi.wvalid & ~axi.wready),
            sends.eq(axi.wvalid & axi.wready & ~blank),
        ]
        with m.If(self.abort & ~refused):
            m.d.sync += blank.eq(1)
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += owed.eq(owed - 1)
        with m.If(~active | (axi.wvalid & axi.wready & axi.wlast)):
            m.d.comb += lengths.r_en.eq(1)
            m.d.sync += active.eq(lengths.r_rdy)
            m.d.sync += owed.eq(lengths.r_data)

        m.d.comb += self.idle.eq((unacknowledged == 0) & (on_way == 0))

        m.d.comb += self.engine.cause.eq(Cause.FILL_DRAIN)
        with m.FSM():
            with m.State("Idle"):
                with m.If(self.engine.i.valid):
                    m.next = "Check"
            with m.State("Check"):
                m.d.sync += address.eq(store.base)
                with m.If(legal & ~below & ~beyond):
                    m.d.comb += splitter.i.valid.eq(1)
                    m.d.sync += left.eq(store.beats)
                    m.next = "Move"
                with m.Else():
                    m.d.sync += self.engine.error.eq(Mux(legal, Error.WRITE_PROTECTED,
                                                         Error.BAD_ADDRESS))
                    m.next = "Failed"
            with m.State("Move"):
                with m.If(sends):
                    m.d.comb += self.engine.cause.eq(Cause.ISSUE)
                with m.Elif(refused | (axi.awvalid & ~axi.awready)):
                    m.d.comb += self.engine.cause.eq(Cause.BACKPRESSURE)
                with m.Elif(self.r.address.valid & ~self.r.address.ready):
                    m.d.comb += self.engine.cause.eq(Cause.CONFLICT)
                with m.Elif((left == 0) & (promised == 0)):
                    m.d.comb += self.engine.cause.eq(Cause.BACKPRESSURE)
                with m.If(splitter.i.ready & (unacknowledged == 0)):
                    m.next = "Retire"
                with m.If(acknowledged & (axi.bresp != Response.OKAY)):
                    m.d.sync += self.engine.error.eq(Error.AXI_WRITE)
                    m.next = "Failed"
            with m.State("Retire"):
                m.d.comb += self.engine.i.ready.eq(1)
                m.d.comb += self.frame_ended.eq(store.frame_end)
                m.next = "Idle"
            with m.State("Failed"):
                m.d.comb += self.engine.cause.eq(Cause.NO_WORK)

        m.submodules.traffic = traffic = TrafficCounter(vector=config.vector)
        m.d.comb += traffic.beat.eq(sends)
        m.d.comb += traffic.traffic.eq(store.traffic)
        for o, count in zip(self.bytes, traffic.bytes):
            m.d.comb += o.eq(count)

        return m
