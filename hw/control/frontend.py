"""Front end of one engine: waits, issue, retirement, and what every cycle was spent on."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.interfaces import EngineSignature
from hw.isa import (
    INSTRUCTION,
    LOADS,
    WAITS,
    Cause,
    Engine,
    Error,
    Opcode,
    Wait,
    legal_opcodes,
)

RETIRED_BITS = 18


class FrontEnd(wiring.Component):
    """Issues one engine's stream in order, each instruction once its waits are met.

    One instruction is held back in a prefetch register while the engine works on the previous
    one. Its waits are checked there, one per cycle (waits for 0 cost nothing), against the retired
    counts of all engines, so that a met wait costs the engine no cycle: the next instruction is
    offered in the cycle after the previous one retires. An instruction that finds the engine free
    is offered one cycle after its last wait was seen met.

    ``SYNC`` retires here, once all earlier instructions have. The rest is offered on ``port``
    until the engine retires it.

    ``cause`` is the engine's own while an instruction is offered. Otherwise it is

    - ``OFFCHIP`` if the instruction has not been fetched, its unmet wait names a load engine, or it
      begins a frame that has not come;
    - ``DEPENDENCY`` if its unmet wait names another engine, and when a ``SYNC`` retires (it is no
      vector instruction, so it must not count as ``ISSUE``);
    - ``FILL_DRAIN`` while met waits are checked off and the instruction moves to the engine;
    - ``NO_WORK`` when the stream is exhausted, or ``enable`` is low.

    ``error`` is the engine's own; ``BAD_OPCODE`` for an opcode that the engine does not run, and
    ``BAD_PROGRAM`` for a wait for an engine that does not exist, both in program order: when
    the instruction would have been offered or its wait been checked. Nothing follows it.

    Parameters
    ----------
    engine : hw.isa.Engine
        Decides which opcodes are legal.

    Members
    -------
    enable : In(1)
        The machine runs. Low: nothing is issued, whatever comes.
    i : In(stream.Signature(INSTRUCTION))
    exhausted : In(1)
        Nothing will follow on ``i``.
    counts : In(18).array(len(Engine))
        Retired instructions of every engine, this one's included.
    missing : In(1)
        The next frame is not in off-chip memory: a LOAD with ``frame_start`` is not issued.
    beginning : Out(1)
        One is.
    held : Out(1)
        One would be but for ``missing``.
    port : In(EngineSignature())
        To the engine.
    retired : Out(18)
        Retired instructions since reset.
    retiring : Out(1)
        ``retired`` goes up at the end of this cycle.
    layer : Out(8)
        Layer of the instruction on offer.
    cause : Out(Cause)
    error : Out(Error)
    idle : Out(1)
        Stream exhausted, and everything retired.
    """

    def __init__(self, *, engine):
        try:
            self.engine = Engine(engine)
        except ValueError:
            raise ValueError(f"Front end engine must be an Engine, not {engine!r}") from None

        super().__init__({
            "enable":    In(1),
            "i":         In(stream.Signature(INSTRUCTION)),
            "exhausted": In(1),
            "counts":    In(RETIRED_BITS).array(len(Engine)),
            "missing":   In(1),
            "beginning": Out(1),
            "held":      Out(1),
            "port":      In(EngineSignature()),
            "retired":   Out(RETIRED_BITS),
            "retiring":  Out(1),
            "layer":     Out(8),
            "cause":     Out(Cause),
            "error":     Out(Error),
            "idle":      Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        following       = Signal(INSTRUCTION)      # waits are checked here
        following_valid = Signal()
        pending         = Signal(WAITS)            # waits not yet seen met
        offered         = Signal(INSTRUCTION)
        offered_valid   = Signal()

        # Fetch
        m.d.comb += self.i.ready.eq(~following_valid)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += following.eq(self.i.p)
            m.d.sync += following_valid.eq(1)
            m.d.sync += pending.eq(Cat(wait.count != 0 for wait in self.i.p.sync.waits))

        # Waits
        wait, met, unknown = Signal(Wait), Signal(), Signal()
        needs = Signal(RETIRED_BITS)
        for index in reversed(range(WAITS)):
            with m.If(pending[index]):
                m.d.comb += wait.eq(following.sync.waits[index])
        with m.Switch(wait.engine):
            for engine in Engine:
                with m.Case(engine):
                    m.d.comb += needs.eq(self.counts[engine])
            with m.Default():
                m.d.comb += unknown.eq(pending.any())
        m.d.comb += met.eq((needs >= wait.count) & ~unknown)
        with m.If(following_valid & met):
            m.d.sync += pending.eq(pending & (pending - 1))     # clears the lowest bit

        # Issue and retirement
        clear_to_issue = Signal()      # waits met, and the frame there
        take, sync     = Signal(), Signal()
        legal          = Signal()
        finish         = Signal()
        m.d.comb += [
            finish.eq(offered_valid & self.port.i.ready),
            clear_to_issue.eq(self.enable & following_valid & ~pending.any() & ~self.held),
        ]
        if self.engine in LOADS:
            begins = Signal()
            m.d.comb += [
                begins.eq((following.load.opcode == Opcode.LOAD) & following.load.frame_start),
                self.held.eq(self.enable & following_valid & ~pending.any() & begins
                             & self.missing),
                self.beginning.eq(take & begins),
            ]
        with m.Switch(following.sync.opcode):
            with m.Case(Opcode.SYNC):
                m.d.comb += legal.eq(1)
                m.d.comb += sync.eq(clear_to_issue & ~offered_valid)
            with m.Case(*(opcode for opcode in legal_opcodes(self.engine)
                          if opcode != Opcode.SYNC)):
                m.d.comb += legal.eq(1)
                m.d.comb += take.eq(clear_to_issue & (~offered_valid | finish))
        with m.If(finish):
            m.d.sync += offered_valid.eq(0)
        with m.If(take):
            m.d.sync += offered.eq(following)
            m.d.sync += offered_valid.eq(1)
        with m.If(take | sync):
            m.d.sync += following_valid.eq(0)
        m.d.comb += self.retiring.eq(finish | sync)
        with m.If(self.retiring):
            m.d.sync += self.retired.eq(self.retired + 1)

        m.d.comb += [
            self.port.i.p.eq(offered),
            self.port.i.valid.eq(offered_valid),
            self.layer.eq(offered.sync.layer),
            self.idle.eq(self.exhausted & ~following_valid & ~offered_valid),
        ]

        # Report
        with m.If(~self.enable):
            m.d.comb += self.cause.eq(Cause.NO_WORK)
        with m.Elif(offered_valid):
            m.d.comb += self.cause.eq(self.port.cause)
        with m.Elif(~following_valid):
            m.d.comb += self.cause.eq(Cause.OFFCHIP)
            with m.If(self.exhausted):
                m.d.comb += self.cause.eq(Cause.NO_WORK)
        with m.Elif(pending.any() & ~met):
            m.d.comb += self.cause.eq(Cause.DEPENDENCY)
            with m.Switch(wait.engine):
                with m.Case(*LOADS):
                    m.d.comb += self.cause.eq(Cause.OFFCHIP)
        with m.Elif(sync | self.held):
            m.d.comb += self.cause.eq(Mux(self.held, Cause.OFFCHIP, Cause.DEPENDENCY))
        with m.Else():
            m.d.comb += self.cause.eq(Cause.FILL_DRAIN)

        with m.If(self.enable):
            m.d.comb += self.error.eq(self.port.error)
            with m.If(following_valid & ~offered_valid & unknown):
                m.d.comb += self.error.eq(Error.BAD_PROGRAM)
            with m.If(clear_to_issue & ~offered_valid & ~legal):
                m.d.comb += self.error.eq(Error.BAD_OPCODE)

        return m
