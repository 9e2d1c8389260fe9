"""Program fetcher: reads the stream headers, then keeps every front end supplied."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.control.buffer import ENGINE_BITS, ENGINES, InstructionBuffer, round_robin
from hw.isa import (
    INSTRUCTION,
    INSTRUCTION_BITS,
    INSTRUCTION_BYTES,
    PROGRAM_MAGIC,
    Engine,
    Error,
    StreamHeader,
)
from hw.memory.protected import memory, queue

ALIGNED = ceil_log2(INSTRUCTION_BYTES)      # low address bits that must be zero


class _Rest(data.Struct):
    """What is still to be requested of a stream."""
    address: 32
    count:   18


def fetch_answer_layout():
    """One instruction from off-chip memory; ``error`` if a beat of it came with an error."""
    return data.StructLayout({"data": INSTRUCTION_BITS, "error": 1})


class ProgramFetcher(wiring.Component):
    """Fetches the streams of all engines, fairly, ahead of their use.

    After ``start`` it reads one :class:`hw.isa.StreamHeader` per engine from ``base`` on, and when
    all of them are good, requests instructions round-robin for every engine with room in the
    :class:`InstructionBuffer`, up to one per cycle.

    Addresses are bytes. ``base`` and the streams must be aligned to an instruction, so that no
    request crosses a 4 KiB border, and lie in off-chip memory.

    Errors stop it until reset: ``BAD_PROGRAM`` for a header with another magic word or engine, or
    for a stream (or the headers themselves: engine 0) that is misaligned or leaves the memory;
    ``AXI_READ`` when an answer has ``error``.

    Parameters
    ----------
    offchip_bytes : int
        Size of off-chip memory.
    depth : int
        Instructions buffered per engine, a power of two.
    outstanding : int
        Most requests under way.
    protects : callable
        The protection of ``instructions``, ``streams`` and ``queues``, as that of ``Config``.

    Members
    -------
    start : In(1)
        Pulse, once after reset.
    base : In(32)
        Address of the first header; read at ``start``.
    request : Out(stream.Signature(32))
        Byte address of one instruction.
    answer : In(stream.Signature(fetch_answer_layout()))
        In the order of the requests; always taken at once.
    o : Out(stream.Signature(INSTRUCTION)).array(len(Engine))
        In engine order.
    exhausted : Out(len(Engine))
        All headers are good, and every instruction of the stream was taken from ``o``.
    error : Out(Error)
    error_engine : Out(Engine)
        Whose header or instruction it was.
    """

    def __init__(self, *, offchip_bytes, depth=4, outstanding=8, protects=lambda memory: "none"):
        least = ENGINES * INSTRUCTION_BYTES
        if not least <= offchip_bytes <= 1 << 32:
            raise ValueError(f"Off-chip bytes must be between {least} and {1 << 32}, "
                             f"not {offchip_bytes!r}")
        if outstanding < 1:
            raise ValueError(f"Outstanding requests must be positive, not {outstanding!r}")
        self.offchip_bytes = offchip_bytes
        self.outstanding   = outstanding
        self._buffer       = InstructionBuffer(depth=depth, protection=protects("instructions"))
        self._askers       = queue(protects("queues"), width=ENGINE_BITS, depth=outstanding)
        self._streams      = memory(protects("streams"), shape=_Rest, depth=1 << ENGINE_BITS)
        self.protected     = [*self._buffer.protected, ("queues", self._askers),
                              ("streams", self._streams)]

        super().__init__({
            "start":        In(1),
            "base":         In(32),
            "request":      Out(stream.Signature(32)),
            "answer":       In(stream.Signature(fetch_answer_layout())),
            "o":            Out(stream.Signature(INSTRUCTION)).array(ENGINES),
            "exhausted":    Out(ENGINES),
            "error":        Out(Error),
            "error_engine": Out(Engine),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.buffer = buffer = self._buffer
        m.submodules.askers = askers = self._askers
        for e in range(ENGINES):
            wiring.connect(m, buffer.o[e], wiring.flipped(self.o[e]))

        # What is left of each stream
        m.submodules.streams = streams = self._streams
        update, rest = streams.write_port(), streams.read_port(domain="comb")
        more  = Signal(ENGINES)            # `count` is not 0
        wants = Signal(ENGINES)
        choice, last = round_robin(m, wants, name="request")
        m.d.comb += wants.eq(more & buffer.room)
        m.d.comb += rest.addr.eq(choice)

        # Requests
        can_ask, fetching = Signal(), Signal()
        m.d.comb += can_ask.eq((~self.request.valid | self.request.ready) & askers.w_rdy)
        with m.If(self.request.ready):
            m.d.sync += self.request.valid.eq(0)

        def ask(where, engine):
            m.d.comb += askers.w_en.eq(1)
            m.d.comb += askers.w_data.eq(engine)
            m.d.sync += self.request.p.eq(where)
            m.d.sync += self.request.valid.eq(1)

        # Answers
        m.d.comb += [
            self.answer.ready.eq(1),
            askers.r_en.eq(self.answer.valid),
            buffer.i.valid.eq(self.answer.valid & ~self.answer.p.error & fetching),
            buffer.i.p.instruction.eq(self.answer.p.data),
            buffer.i.p.engine.eq(askers.r_data),
            self.exhausted.eq(Mux(fetching, ~more & buffer.empty, 0)),
        ]

        # A header is held for one cycle to be checked.
        where        = Signal(32)                         # of the next header to request
        to_ask       = Signal(range(ENGINES + 1), init=ENGINES)
        header       = Signal(StreamHeader)
        header_owner = Signal(4)
        header_valid = Signal()
        end          = Signal(33)
        m.d.sync += header_valid.eq(self.answer.valid & ~self.answer.p.error & ~fetching)
        with m.If(self.answer.valid):
            m.d.sync += header.eq(self.answer.p.data)
            m.d.sync += header_owner.eq(askers.r_data)
        m.d.comb += end.eq(header.address + header.count * INSTRUCTION_BYTES)

        def fail(error, engine):
            m.d.sync += self.error.eq(error)
            m.d.sync += self.error_engine.eq(engine)
            m.next = "Failed"

        with m.FSM():
            with m.State("Idle"):
                m.d.sync += where.eq(self.base)
                with m.If(self.start):
                    m.next = "Check base"

            with m.State("Check base"):
                m.next = "Read headers"
                with m.If(where[:ALIGNED].any()
                          | (where > self.offchip_bytes - ENGINES * INSTRUCTION_BYTES)):
                    fail(Error.BAD_PROGRAM, 0)

            with m.State("Read headers"):
                with m.If(can_ask & (to_ask != 0)):
                    ask(where, ENGINES - to_ask)
                    m.d.sync += to_ask.eq(to_ask - 1)
                    m.d.sync += where.eq(where + INSTRUCTION_BYTES)
                m.d.comb += update.addr.eq(header_owner)
                m.d.comb += update.data.address.eq(header.address)
                m.d.comb += update.data.count.eq(header.count)
                with m.If(header_valid):
                    m.d.comb += update.en.eq(1)
                    m.d.sync += more.bit_select(header_owner, 1).eq(header.count != 0)
                    with m.If(header_owner == ENGINES - 1):
                        m.next = "Fetch"
                    with m.If((header.magic != PROGRAM_MAGIC) | (header.engine != header_owner)
                              | header.address[:ALIGNED].any() | (end > self.offchip_bytes)):
                        fail(Error.BAD_PROGRAM, header_owner)

            with m.State("Fetch"):
                m.d.comb += fetching.eq(1)
                m.d.comb += update.addr.eq(choice)
                m.d.comb += update.data.address.eq(rest.data.address + INSTRUCTION_BYTES)
                m.d.comb += update.data.count.eq(rest.data.count - 1)
                with m.If(can_ask & wants.any()):
                    ask(rest.data.address, choice)
                    m.d.comb += update.en.eq(1)
                    m.d.comb += buffer.reserve.eq(1 << choice)
                    m.d.sync += more.bit_select(choice, 1).eq(rest.data.count != 1)
                    m.d.sync += last.eq(choice)

            with m.State("Failed"):
                pass

        with m.If(self.answer.valid & self.answer.p.error):
            m.d.sync += self.error.eq(Error.AXI_READ)
            m.d.sync += self.error_engine.eq(askers.r_data)

        return m
