"""Instruction buffer: one RAM that holds what was fetched ahead for every engine."""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.isa import INSTRUCTION, INSTRUCTION_BITS, Engine
from hw.memory.protected import memory

ENGINES     = len(Engine)
ENGINE_BITS = ceil_log2(ENGINES)


def round_robin(m, requests, *, name):
    """Choose among ``requests``, one bit each, starting after the previous choice.

    Returns ``(choice, last)``: ``choice`` is an index, meaningful while any request is high; the
    caller assigns it to ``last`` in the cycle in which it is used.
    """
    choice = Signal(range(len(requests)), name=f"{name}_choice")
    last   = Signal(range(len(requests)), name=f"{name}_last")
    with m.Switch(last):
        for index in range(len(requests)):
            with m.Case(index):
                for distance in range(len(requests), 0, -1):
                    candidate = (index + distance) % len(requests)
                    with m.If(requests[candidate]):
                        m.d.comb += choice.eq(candidate)
    return choice, last


class _Counters:
    """A small counter for each engine, stored by bit position: bit ``e`` of every signal is engine
    ``e``'s. All of them step together, with a few operations on short vectors."""

    def __init__(self, bits, name):
        self.bits = [Signal(ENGINES, name=f"{name}_{bit}") for bit in range(bits)]

    def step(self, m, engines):
        """Count up where ``engines`` is high."""
        carry = engines
        for bit in self.bits:
            m.d.sync += bit.eq(bit ^ carry)
            carry = carry & bit

    def differs(self, other):
        """Where two counters differ, by bit position."""
        return [mine ^ theirs for mine, theirs in zip(self.bits, other.bits)]

    def of(self, engine):
        """The counter of one engine."""
        return Cat(bit.bit_select(engine, 1) for bit in self.bits)


def _any(vectors):
    return reduce(or_, vectors)


class InstructionBuffer(wiring.Component):
    """A queue of ``depth`` instructions for each engine, all in one block of RAM.

    Each row is reserved before it is filled, so that an instruction on its way always has room. An
    instruction is offered at the earliest two cycles after it was written and one after its
    receiver became ready; all receivers together take at most one per cycle, one of them at most
    every other cycle.

    Parameters
    ----------
    depth : int
        Instructions per engine, a power of two.
    protection : str
        One of ``hw.config.PROTECTIONS``.

    Members
    -------
    reserve : In(len(Engine))
        Pulse: one more instruction for that engine is on its way; only where ``room`` is high.
    room : Out(len(Engine))
    empty : Out(len(Engine))
        Nothing reserved, and everything taken.
    i : In(stream.Signature({"engine", "instruction"}, always_ready=True))
    o : Out(stream.Signature(INSTRUCTION)).array(len(Engine))
        In engine order.
    """

    def __init__(self, *, depth, protection="none"):
        if depth < 1 or depth & (depth - 1):
            raise ValueError(f"Buffer depth must be a power of two, not {depth!r}")
        self.depth = depth
        self.memory    = memory(protection, shape=INSTRUCTION_BITS, depth=depth << ENGINE_BITS)
        self.protected = [("instructions", self.memory)]

        super().__init__({
            "reserve": In(ENGINES),
            "room":    Out(ENGINES),
            "empty":   Out(ENGINES),
            "i":       In(stream.Signature(data.StructLayout({
                "engine":      Engine,
                "instruction": INSTRUCTION_BITS,
            }), always_ready=True)),
            "o":       Out(stream.Signature(INSTRUCTION)).array(ENGINES),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.memory = self.memory
        write, read = self.memory.write_port(), self.memory.read_port()

        # Rows reserved, written and read so far, modulo twice the depth
        slot_bits = ceil_log2(self.depth)
        reserved  = _Counters(slot_bits + 1, "reserved")
        written   = _Counters(slot_bits + 1, "written")
        fetched   = _Counters(slot_bits + 1, "fetched")

        ready    = Signal(ENGINES)
        waiting  = Signal(ENGINES)      # stored, and the receiver is ready
        offering = Signal(ENGINES)      # the word at the read port's output
        free     = Signal()             # that word is gone after this cycle
        choice, last = round_robin(m, waiting, name="delivery")
        one_hot  = Signal(ENGINES)
        used     = reserved.differs(fetched)
        m.d.comb += [
            ready.eq(Cat(port.ready for port in self.o)),
            waiting.eq(_any(written.differs(fetched)) & ready & ~offering),
            free.eq((offering & ~ready) == 0),
            one_hot.eq(Mux(free & waiting.any(), 1 << choice, 0)),
            self.room.eq(~(used[-1] & ~_any([C(0, ENGINES), *used[:-1]]))),
            self.empty.eq(~(_any(used) | offering)),
        ]
        reserved.step(m, self.reserve)
        fetched.step(m, one_hot)
        with m.If(self.i.valid):
            written.step(m, (1 << self.i.p.engine)[:ENGINES])
        with m.If(free):
            m.d.sync += offering.eq(one_hot)
        with m.If(one_hot.any()):
            m.d.sync += last.eq(choice)

        m.d.comb += [
            write.addr.eq(Cat(written.of(self.i.p.engine)[:slot_bits], self.i.p.engine)),
            write.data.eq(self.i.p.instruction),
            write.en.eq(self.i.valid),
            read.addr.eq(Cat(fetched.of(choice)[:slot_bits], choice)),
            read.en.eq(free),
        ]
        for e, port in enumerate(self.o):
            m.d.comb += port.valid.eq(offering[e])
            m.d.comb += port.p.eq(read.data)

        return m
