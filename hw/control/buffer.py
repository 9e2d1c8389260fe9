"""Instruction buffer: one RAM that holds what was fetched ahead for every engine."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.isa import INSTRUCTION, INSTRUCTION_BITS, Engine

ENGINES = len(Engine)


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

    def __init__(self, *, depth):
        if depth < 1 or depth & (depth - 1):
            raise ValueError(f"Buffer depth must be a power of two, not {depth!r}")
        self.depth = depth

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

        m.submodules.memory = memory = Memory(shape=INSTRUCTION_BITS, init=[],
                                              depth=1 << ceil_log2(ENGINES * self.depth))
        write, read = memory.write_port(), memory.read_port()

        write_row = Signal.like(write.addr)
        read_row  = Signal.like(read.addr)
        waiting   = Signal(ENGINES)                       # stored, and its receiver is ready
        offering  = Signal(ENGINES)                       # the word at the read port's output
        taken     = Signal(ENGINES)
        free      = Signal()
        choice, last = round_robin(m, waiting, name="delivery")

        for e, port in enumerate(self.o):
            used   = Signal(range(self.depth + 1), name=f"used_{e}")        # reserved or stored
            stored = Signal(range(self.depth + 1), name=f"stored_{e}")
            head   = Signal(ceil_log2(self.depth), name=f"head_{e}")
            tail   = Signal(ceil_log2(self.depth), name=f"tail_{e}")
            arrive = Signal(name=f"arrive_{e}")
            leave  = Signal(name=f"leave_{e}")

            m.d.comb += [
                arrive.eq(self.i.valid & (self.i.p.engine == e)),
                leave.eq(free & waiting.any() & (choice == e)),
                waiting[e].eq((stored != 0) & port.ready & ~offering[e]),
                taken[e].eq(offering[e] & port.ready),
                self.room[e].eq(used != self.depth),
                self.empty[e].eq(used == 0),
                port.valid.eq(offering[e]),
                port.p.eq(read.data),
            ]
            m.d.sync += used.eq(used + self.reserve[e] - taken[e])
            m.d.sync += stored.eq(stored + arrive - leave)
            with m.If(arrive):
                m.d.comb += write_row.eq(e * self.depth + head)
                m.d.sync += head.eq(head + 1)
            with m.If(leave):
                m.d.comb += read_row.eq(e * self.depth + tail)
                m.d.sync += tail.eq(tail + 1)

        m.d.comb += [
            write.addr.eq(write_row),
            write.data.eq(self.i.p.instruction),
            write.en.eq(self.i.valid),
            read.addr.eq(read_row),
            read.en.eq(free),
            free.eq(offering == taken),
        ]
        with m.If(free):
            m.d.sync += offering.eq(0)
            with m.If(waiting.any()):
                m.d.sync += offering.eq(1 << choice)
                m.d.sync += last.eq(choice)

        return m
