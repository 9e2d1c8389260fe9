"""Central controller: runs a program on all engines, and stops them all if one fails."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.config import MEMORIES, Config
from hw.control.counters import TIME_BITS
from hw.control.fetch import ProgramFetcher, fetch_answer_layout
from hw.control.frontend import RETIRED_BITS, FrontEnd
from hw.control.ledger import MEMORY_ERRORS, TRAFFIC, Ledger
from hw.control.registers import ControlRegisters, monitor_layout
from hw.control.regmap import ADDRESS_BITS, DEFAULT_STALL_LIMIT, Status
from hw.control.trace import EventTrace, TraceSignature
from hw.interfaces import EngineSignature, window_layout
from hw.isa import Cause, Engine, Error
from hw.memory.axi import AxiLite

ENGINES = len(Engine)


class CentralController(wiring.Component):
    """Fetches, issues, counts; see the README of the package for the whole picture.

    A run begins when the host starts it: ``clear`` resets all engines, front ends and
    counters for one cycle, then the program is read and issued. It ends

    - when every stream is exhausted, all of it retired, and ``idle`` is high;
    - when an engine, a front end or the fetcher reports an error (the lowest engine wins);
    - when a protected memory gave a word that could not be corrected (``MEMORY``, before all
      others; the lowest memory wins), one cycle later;
    - when the cycle limit is reached (``CYCLE_LIMIT``), or no engine issued or retired anything for
      the stall limit (``STALLED``); the engine in the status is then the lowest unfinished one;
    - when the host stops it (no error); a stop that comes with the start, or just after it, counts.

    A stream may still be coming: the load of a frame is held back until the host says that the
    frame is there, and the stall limit does not count meanwhile. Each mask raises an interrupt.

    Unless all of it retired, nothing more is issued and ``abort`` rises, until the next ``clear``;
    the run ends when ``idle`` says that no transfer is under way any more. From there, the counters
    and the reason stay readable until the next start, which resets everything, so a
    failed run leaves no trace in the next one. Cycles are counted from ``clear`` to the last
    cycle before the end or ``abort``.

    A bus that never answers holds up nobody for longer than the stall limit: such a run ends
    (``NO_ANSWER``, unless there was an error before) while the status says ``unanswered``. Answers
    that still come are dropped. A start waits for them as long again, and else ends with
    ``NO_ANSWER`` before anything is reset or fetched. ``reset`` ends a run without waiting for
    anything and forgets what the bus owes: it is for when memory and interconnect were reset, too.

    Parameters
    ----------
    config : Config
    onchip_readers, onchip_writers : int
        Ports of the on-chip memory whose accesses are counted.
    trace : bool
        Show every event, for a simulation.

    Members
    -------
    bus : In(AxiLite(address_width=12))
        The registers of :mod:`hw.control.regmap`.
    irq : Out(1)
    fetch_request : Out(stream.Signature(32))
    fetch_answer : In(stream.Signature(fetch_answer_layout()))
        As those of :class:`hw.control.fetch.ProgramFetcher`.
    engines : In(EngineSignature()).array(len(Engine))
        In engine order.
    clear : Out(1)
        Pulse: reset all engines and off-chip channels (with a ``ResetInserter``).
    abort : Out(1)
        Off-chip channels start nothing more and let what is under way end.
    writable : Out(window_layout())
        For the STORE engines.
    idle : In(1)
        No off-chip transfer is under way.
    frame_started, frame_ended : In(1)
    onchip_reads, onchip_writes : In(1).array(...)
    read_bytes, written_bytes : In(40).array(len(Traffic))
    read_bursts, written_bursts : In(40)
        For the counters; as in :class:`hw.control.ledger.Ledger`.
    corrected, uncorrectable : In(len(MEMORIES))
        Only with a protected memory: pulses, a bit for each of ``hw.config.MEMORIES``.
    monitor : Out(monitor_layout())
    monitor_sent, monitor_dropped : In(32)
    trace : Out(TraceSignature())
        Only with ``trace``.
    """

    def __init__(self, config, *, onchip_readers=6, onchip_writers=4, trace=False):
        if not isinstance(config, Config):
            raise ValueError(f"Controller config must be a Config, not {config!r}")
        self.config     = config
        self._fetcher   = ProgramFetcher(offchip_bytes=config.offchip_bytes,
                                         protects=config.protects)
        self._ledger    = Ledger(onchip_readers=onchip_readers, onchip_writers=onchip_writers,
                                 memories=len(MEMORIES) if config.protected else 0)
        self.protected  = self._fetcher.protected
        self._trace     = EventTrace(ports=onchip_readers + onchip_writers) if trace else None

        super().__init__({
            "bus":             In(AxiLite(address_width=ADDRESS_BITS)),
            "irq":             Out(1),
            "fetch_request":   Out(stream.Signature(32)),
            "fetch_answer":    In(stream.Signature(fetch_answer_layout())),
            "engines":         In(EngineSignature()).array(ENGINES),
            "clear":           Out(1),
            "abort":           Out(1),
            "writable":        Out(window_layout()),
            "idle":            In(1),
            "frame_started":   In(1),
            "frame_ended":     In(1),
            "onchip_reads":    In(1).array(onchip_readers),
            "onchip_writes":   In(1).array(onchip_writers),
            "read_bytes":      In(TIME_BITS).array(TRAFFIC),
            "written_bytes":   In(TIME_BITS).array(TRAFFIC),
            "read_bursts":     In(TIME_BITS),
            "written_bursts":  In(TIME_BITS),
            "monitor":         Out(monitor_layout()),
            "monitor_sent":    In(32),
            "monitor_dropped": In(32),
            **({name: In(len(MEMORIES)) for name in MEMORY_ERRORS} if config.protected else {}),
            **({"trace": Out(TraceSignature())} if trace else {}),
        })

    def elaborate(self, platform):
        m = Module()

        fetcher, ledger = self._fetcher, self._ledger
        fronts = [FrontEnd(engine=engine) for engine in Engine]
        m.submodules.registers = registers = ControlRegisters()
        m.submodules.fetcher   = ResetInserter(self.clear)(fetcher)
        m.submodules.ledger    = ledger
        for engine, front in zip(Engine, fronts):
            m.submodules[f"front_{engine.name.lower()}"] = ResetInserter(self.clear)(front)

        # Host
        connect(m, flipped(self.bus), registers.bus)
        m.d.comb += [
            self.irq.eq(registers.irq),
            self.writable.eq(registers.writable),
            self.monitor.eq(registers.monitor),
            registers.monitor_sent.eq(self.monitor_sent),
            registers.monitor_dropped.eq(self.monitor_dropped),
            registers.counter_sampled.eq(ledger.sampled),
            registers.counter_value.eq(ledger.value),
            ledger.select.eq(registers.counter_select),
            ledger.sample.eq(registers.counter_sample),
        ]

        # Program
        running = Signal()
        connect(m, fetcher.request, flipped(self.fetch_request))
        connect(m, flipped(self.fetch_answer), fetcher.answer)
        m.d.comb += fetcher.base.eq(registers.program_base)
        for e, front in enumerate(fronts):
            connect(m, fetcher.o[e], front.i)
            connect(m, front.port, flipped(self.engines[e]))
            m.d.comb += [
                front.enable.eq(running),
                front.exhausted.eq(fetcher.exhausted[e]),
                *(front.counts[other].eq(fronts[other].retired) for other in range(ENGINES)),
            ]

        # Frames
        begun = Signal(RETIRED_BITS)
        held  = Signal()
        m.d.comb += held.eq(Cat(front.held for front in fronts).any())
        m.d.comb += [front.missing.eq((registers.frames_ready != 0)
                                      & (begun >= registers.frames_ready)) for front in fronts]
        with m.If(self.clear):
            m.d.sync += begun.eq(0)
        with m.Elif(Cat(front.beginning for front in fronts).any()):
            m.d.sync += begun.eq(begun + 1)
        m.d.comb += registers.interrupts.mask.eq(running & self.frame_ended)

        # Counters
        for e, front in enumerate(fronts):
            m.d.comb += [
                ledger.activity[e].cause.eq(front.cause),
                ledger.activity[e].retiring.eq(front.retiring),
                ledger.activity[e].offered.eq(front.port.i.valid),
                ledger.activity[e].layer.eq(front.layer),
                ledger.retired[e].eq(front.retired),
            ]
        m.d.comb += [ledger.clear.eq(self.clear), ledger.running.eq(running)]
        for name in ("frame_started", "frame_ended", "read_bursts", "written_bursts"):
            m.d.comb += getattr(ledger, name).eq(getattr(self, name))
        for name in ("onchip_reads", "onchip_writes", "read_bytes", "written_bytes"):
            for port, source in zip(getattr(ledger, name), getattr(self, name)):
                m.d.comb += port.eq(source)
        if self.config.protected:
            m.d.comb += [getattr(ledger, name).eq(getattr(self, name)) for name in MEMORY_ERRORS]

        if self._trace is not None:
            self._connect_trace(m, fronts, running)

        # Reasons to stop; the last assignment wins. A run sees them a cycle later, also at its end.
        error, culprit = Signal(Error), Signal(Engine)
        seen, by       = Signal(Error), Signal(Engine)
        unfinished     = Signal(Engine)
        finished       = Signal()
        progress       = Signal(ENGINES)  # of each engine, in the cycle before
        waiting        = Signal()         # for nothing but the bus
        still          = Signal(32)       # cycles without progress
        stall_limit    = Signal(32)
        m.d.comb += finished.eq(Cat(front.idle for front in fronts).all() & self.idle)
        m.d.sync += progress.eq(Cat((front.cause == Cause.ISSUE) | front.retiring
                                    for front in fronts))
        m.d.sync += still.eq(Mux((running & ~progress.any() & ~held) | waiting, still + 1, 0))
        m.d.sync += stall_limit.eq(Mux(registers.stall_limit == 0, DEFAULT_STALL_LIMIT,
                                       registers.stall_limit))
        for e, front in reversed(list(enumerate(fronts))):
            with m.If(~front.idle):
                m.d.comb += unfinished.eq(e)
        too_long, stalled = Signal(), Signal()      # in the cycle before
        m.d.sync += too_long.eq((registers.cycle_limit != 0)
                                & (ledger.cycles >= registers.cycle_limit))
        m.d.sync += stalled.eq(still >= stall_limit)
        with m.If(too_long):
            m.d.comb += [error.eq(Error.CYCLE_LIMIT), culprit.eq(unfinished)]
        with m.If(stalled):
            m.d.comb += [error.eq(Error.STALLED), culprit.eq(unfinished)]
        with m.If(fetcher.error != Error.NONE):
            m.d.comb += [error.eq(fetcher.error), culprit.eq(fetcher.error_engine)]
        for e, front in reversed(list(enumerate(fronts))):
            with m.If(front.error != Error.NONE):
                m.d.comb += [error.eq(front.error), culprit.eq(e)]
        if self.config.protected:
            memory = Signal(range(len(MEMORIES)))
            broken = Signal(len(MEMORIES))
            m.d.sync += broken.eq(self.uncorrectable)
            with m.If(broken.any()):
                m.d.comb += [error.eq(Error.MEMORY), culprit.eq(0)]
            for number in reversed(range(len(MEMORIES))):
                with m.If(broken[number]):
                    m.d.sync += memory.eq(number)
        m.d.sync += [seen.eq(Mux(running, error, Error.NONE)), by.eq(culprit)]

        # The run
        control   = registers.control
        status    = Signal(Status)
        stopping  = Signal()      # the host wants no more of this run
        resetting = Signal()
        m.d.comb += registers.status.eq(status)
        m.d.comb += registers.status.unanswered.eq(~status.busy & ~self.idle)
        with m.If(control.stop):
            m.d.sync += stopping.eq(1)
        with m.If(control.reset):
            m.d.sync += resetting.eq(1)

        with m.FSM():
            with m.State("Ready"):
                m.d.sync += stopping.eq(control.start & control.stop)
                with m.If(control.start):
                    m.d.sync += status.as_value().eq(0)
                    m.d.sync += status.busy.eq(1)
                    m.next = "Wait for the bus"
                with m.If(resetting):
                    m.next = "Reset"

            with m.State("Wait for the bus"):
                m.d.comb += waiting.eq(1)
                with m.If(self.idle):
                    m.next = "Clear"
                with m.Elif(stopping):
                    m.d.sync += status.stopped.eq(1)
                    m.next = "Done"
                with m.Elif(stalled):
                    m.d.sync += status.error.eq(Error.NO_ANSWER)
                    m.next = "Done"
                with m.If(resetting):
                    m.next = "Reset"

            with m.State("Clear"):
                m.d.comb += self.clear.eq(1)
                m.d.sync += self.abort.eq(0)
                m.next = "Start"

            with m.State("Start"):
                m.d.comb += fetcher.start.eq(1)
                m.next = "Run"

            def fail():
                m.d.sync += [status.error.eq(seen), status.engine.eq(by)]
                if self.config.protected:
                    m.d.sync += status.memory.eq(memory)
                m.next = "Abort"

            with m.State("Run"):
                m.d.comb += running.eq(1)
                with m.If(seen != Error.NONE):
                    fail()
                with m.Elif(stopping):
                    m.d.sync += status.stopped.eq(1)
                    m.next = "Abort"
                with m.Elif(finished):
                    m.next = "Finished"
                with m.If((seen != Error.NONE) | stopping):
                    m.d.sync += self.abort.eq(1)
                    m.d.sync += [still.eq(0), stalled.eq(0)]
                with m.If(resetting):
                    m.next = "Reset"

            with m.State("Finished"):
                m.next = "Done"
                with m.If(seen != Error.NONE):
                    m.d.sync += [self.abort.eq(1), still.eq(0), stalled.eq(0)]
                    fail()
                with m.If(resetting):
                    m.next = "Reset"

            with m.State("Abort"):
                m.d.comb += waiting.eq(1)
                with m.If(self.idle):
                    m.next = "Done"
                with m.Elif(stalled):
                    with m.If(status.error == Error.NONE):
                        m.d.sync += status.error.eq(Error.NO_ANSWER)
                    m.next = "Done"
                with m.If(resetting):
                    m.next = "Reset"

            with m.State("Done"):
                m.d.sync += status.busy.eq(0)
                m.d.sync += status.done.eq(1)
                m.d.comb += registers.interrupts.done.eq(1)
                m.d.comb += registers.interrupts.error.eq(status.error != Error.NONE)
                m.next = "Ready"

            with m.State("Reset"):
                m.d.comb += self.clear.eq(1)
                m.d.sync += status.as_value().eq(0)
                m.d.sync += self.abort.eq(0)
                m.d.sync += resetting.eq(control.reset)
                m.next = "Ready"

        return m

    def _connect_trace(self, m, fronts, running):
        m.submodules.trace = trace = self._trace
        connect(m, trace.o, flipped(self.trace))
        m.d.comb += [trace.clear.eq(self.clear), trace.running.eq(running)]
        for front, activity in zip(fronts, trace.activity):
            offered = front.port.i.p.sync
            m.d.comb += [
                activity.offered.eq(front.port.i.valid),
                activity.retiring.eq(front.retiring),
                activity.cause.eq(front.cause),
                activity.number.eq(front.retired),
                activity.opcode.eq(offered.opcode),
                activity.layer.eq(offered.layer),
                activity.row.eq(offered.row),
            ]
        for port, source in zip(trace.moves, (*self.onchip_reads, *self.onchip_writes)):
            m.d.comb += port.eq(source)
        for name in ("frame_started", "frame_ended"):
            m.d.comb += getattr(trace, name).eq(getattr(self, name))
        for name in ("read_bytes", "written_bytes"):
            for port, source in zip(getattr(trace, name), getattr(self, name)):
                m.d.comb += port.eq(source)
