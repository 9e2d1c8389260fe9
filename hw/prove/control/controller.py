"""Properties of :class:`hw.control.controller.CentralController`: how a run begins and ends."""

from contextlib import contextmanager
from types import SimpleNamespace

from amaranth import *

from hw.control import controller
from hw.control.controller import CentralController
from hw.isa import Cause, Error
from hw.prove.bench import prove
from hw.prove.small import SMALL

LIMIT = 3
"""Cycles: the largest stall and cycle limits looked at; the counters have their full widths."""


@contextmanager
def played():
    """Within it, a controller is made of parts that have ports and nothing inside."""
    made, real = {}, {}
    for name in ("ControlRegisters", "ProgramFetcher", "Ledger", "FrontEnd"):
        real[name] = getattr(controller, name)

        class Played(real[name]):
            def elaborate(self, platform):
                m = Module()        # with its own parts, unconnected: nothing is made and not used
                m.submodules += [part for part in vars(self).values()
                                 if isinstance(part, Elaboratable)]
                return m

        def make(*args, kind=Played, name=name, **kwargs):
            part = kind(*args, **kwargs)
            made.setdefault(name, []).append(part)
            return part
        setattr(controller, name, make)
    try:
        yield made
    finally:
        for name, kind in real.items():
            setattr(controller, name, kind)


def control(bench, *, resets=False, limited=True, progress=True):
    """A controller whose registers, fetcher, ledger and front ends do anything, within limits that
    the host has set before: of 1 to 3 cycles without progress, and ``limited`` also as many in all.
    Without ``progress`` no engine ever issues or retires, and none waits for a frame; without
    ``resets`` the host does not reset the machine.

    Returns it and its parts: ``start``, ``stop``, ``reset``, ``status``, ``interrupts``,
    ``running``, ``stall_limit``.
    """
    with played() as made:
        dut = CentralController(SMALL)
        bench.inner(dut)
    registers, = made["ControlRegisters"]
    fetcher,   = made["ProgramFetcher"]
    ledger,    = made["Ledger"]
    fronts     = made["FrontEnd"]

    def free(part, label, *names):
        for name in names:
            signal = Value.cast(getattr(part, name))
            bench.inputs[f"{label}.{name}"] = bench.shown[f"{label}.{name}"] = signal

    free(registers, "registers", "control")
    free(fetcher, "fetcher", "error", "error_engine")
    for number, front in enumerate(fronts):
        free(front, f"front_{number}", "idle", "error", "cause", "retiring", "held")
        if not progress:
            bench.assume((front.cause != Cause.ISSUE) & ~front.retiring & ~front.held)

    stall_limit = bench.constant(2, "stall_limit")
    cycle_limit = bench.constant(2, "cycle_limit")
    cycles      = bench.register(48, "cycles")
    running     = fronts[0].enable
    bench.m.d.comb += [registers.stall_limit.eq(stall_limit), ledger.cycles.eq(cycles),
                       registers.cycle_limit.eq(cycle_limit)]
    bench.m.d.sync += cycles.eq(Mux(dut.clear, 0, cycles + bench.before(running)))
    bench.assume(stall_limit != 0)
    bench.assume((cycle_limit != 0) if limited else (cycle_limit == 0))
    pulses = registers.control
    if not resets:
        bench.assume(~pulses.reset)
    status = bench.named(registers.status.as_value(), "status")
    return dut, SimpleNamespace(
        start=pulses.start, stop=pulses.stop, reset=pulses.reset, running=running, fronts=fronts,
        status=registers.status, interrupts=registers.interrupts, shown=status)


def busy_for(bench, parts):
    """Cycles that the machine has been busy for without a break."""
    count = bench.register(6, "busy_for")
    bench.m.d.sync += count.eq(Mux(parts.status.busy, Mux(count.all(), count, count + 1), 0))
    return count


@prove((CentralController.elaborate, "~held) | waiting", "~held)"), slow=True)
def every_run_ends(bench):
    """With a cycle limit every run ends, whatever program, engines and bus do, also a bus that
    never answers: at most the stall limit before it, the cycle limit, the stall limit once more,
    and twelve cycles for the steps between. No program holds the machine for ever."""
    _, parts = control(bench)
    count = busy_for(bench, parts)
    bench.check(count <= 3 * LIMIT + 12, "over in time")
    bench.cover(count == 2 * LIMIT + 6)
    bench.cover(parts.interrupts.done & (parts.status.error == Error.CYCLE_LIMIT))


@prove((CentralController.elaborate, "(running & ~progress.any() & ~held) | waiting", "waiting"),
       slow=True)
def no_progress_ends_a_run(bench):
    """Without a cycle limit, a run in which no engine issues or retires anything, nor waits for a
    frame, ends as well."""
    _, parts = control(bench, limited=False, progress=False)
    count = busy_for(bench, parts)
    bench.check(count <= 3 * LIMIT + 12, "over in time")
    bench.cover(parts.interrupts.done & (parts.status.error == Error.STALLED))


@prove((CentralController.elaborate, "stopping.eq(control.start & control.stop)", "stopping.eq(0)"),
       slow=True)
def a_stop_is_never_lost(bench):
    """A stop while the machine is busy, or with the start, ends the run within the stall limit and
    eight cycles, although nothing else would; and the status says that it was stopped, unless the
    run ended with an error, or by itself in those two cycles."""
    _, parts = control(bench, limited=False)
    counts = parts.stop & (parts.status.busy | parts.start)
    asked  = bench.register(1, "asked")
    since  = bench.register(5, "since")
    bench.m.d.sync += [
        asked.eq((asked & parts.status.busy) | counts),
        since.eq(Mux(asked & parts.status.busy, Mux(since.all(), since, since + 1), 0)),
    ]
    bench.check(since <= 2 * LIMIT + 8, "over in time")
    bench.check(~parts.interrupts.done | (since < 2) | parts.status.stopped
                | (parts.status.error != Error.NONE), "says that it was stopped")
    bench.cover(parts.interrupts.done & parts.status.stopped & (since > 3))


@prove((CentralController.elaborate, "registers.interrupts.done.eq(1)",
        "registers.interrupts.done.eq(status.error != Error.STALLED)"), slow=True)
def every_end_raises_its_interrupt(bench):
    """A run ends in the cycle after one pulse of the interrupt, and never otherwise but by a reset;
    the interrupt of an error comes with it exactly if the status has one. A start while the machine
    is ready makes it busy."""
    _, parts = control(bench, resets=True)
    busy, past = parts.status.busy, bench.before(parts.status.busy)
    late  = bench.register(6, "resets")         # in the cycles before: it takes effect by then
    bench.m.d.sync += late.eq(Cat(parts.reset, late))
    reset = late.any()
    bench.check(~past | busy | bench.before(parts.interrupts.done) | reset, "an interrupt")
    bench.check(~parts.interrupts.done | busy, "only at the end of a run")
    bench.check(~bench.before(parts.interrupts.done) | ~busy | reset, "it is over then")
    bench.check(parts.interrupts.error == (parts.interrupts.done
                                           & (parts.status.error != Error.NONE)), "of an error")
    bench.check(past | busy | ~bench.before(parts.start) | reset, "starts")
    bench.cover(parts.interrupts.error & (parts.status.error == Error.STALLED))
    bench.cover(bench.before(parts.interrupts.done) & ~parts.status.error.as_value().any())


@prove((CentralController.elaborate, "m.d.sync += self.abort.eq(1)",
        "m.d.sync += self.abort.eq(stopping)"), slow=True)
def nothing_runs_after_an_error(bench):
    """Engines are issued to only from two cycles after a ``clear`` until the run is over; after an
    error ``abort`` is high, and stays until the next ``clear``."""
    dut, parts = control(bench, resets=True)
    cleared = bench.register(1, "cleared")      # since the last run
    bench.m.d.sync += cleared.eq((cleared | dut.clear) & ~parts.interrupts.done)
    failed  = parts.status.busy & (parts.status.error != Error.NONE)
    bench.check(~parts.running | (parts.status.busy & ~dut.abort), "not under abort")
    bench.check(~parts.running | cleared, "only after a clear")
    bench.check(~failed | dut.abort | ~bench.before(parts.running | bench.before(parts.running)),
                "abort with the error")
    bench.check(dut.abort | ~bench.before(dut.abort) | bench.before(dut.clear), "until a clear")
    bench.cover(dut.abort & failed & bench.before(parts.running))


@prove((CentralController.elaborate, 'm.next = "Wait for the bus"', 'm.next = "Clear"'), slow=True)
def nothing_is_reset_that_the_bus_still_owes(bench):
    """But for a reset by the host, engines and channels are cleared only when, a cycle before, no
    transfer was under way: no answer of an earlier run reaches the next one."""
    dut, _ = control(bench)
    bench.check(~dut.clear | bench.before(dut.idle), "only when idle")
    bench.cover(dut.clear & bench.before(bench.before(~dut.idle)))
