"""The cycle model against the hardware: every counter, and with a trace every instruction."""

from enum import Enum

import numpy as np

from hw.control.counters import Counter
from hw.isa import Engine

__all__ = ["deviations", "differences"]

TIMELESS = (Counter.RETIRED, Counter.READ_BYTES, Counter.WRITTEN_BYTES)


def differences(counters, offchip, run, trace=None):
    """What the hardware counted otherwise than the model did, a sentence each; none if they agree.

    Parameters
    ----------
    counters, offchip : dict
        Of the hardware, as :class:`sim.host.RtlEngine` has them.
    run : sim.model.ModelRun
    trace : sim.trace.Trace
        With it, the first instruction that retired in another cycle is named first.
    """
    found = [] if trace is None else _instructions(trace.timetable(), run.timetable)
    found += [f"{_spoken(key)}: {value} in the hardware, {run.counters[key]} in the model"
              for key, value in counters.items() if run.counters[key] != value]
    found += [f"off-chip memory, {name}: {value} in the hardware, {run.offchip[name]} in the model"
              for name, value in offchip.items() if run.offchip[name] != value]
    return found


def deviations(counters, offchip, run, margin):
    """What hardware with another off-chip memory did otherwise than it may, a sentence each: the
    cycles may be ``margin`` of the model's away, and instructions and bytes must be the same.

    Parameters
    ----------
    counters, offchip, run
        As :func:`differences` takes them.
    margin : float
    """
    found  = [f"{_spoken(key)}: {value} in the hardware, {run.counters[key]} in the model"
              for key, value in counters.items()
              if key[0] in TIMELESS and run.counters[key] != value]
    found += [f"off-chip memory, {name}: {offchip[name]} in the hardware, {run.offchip[name]} in "
              "the model" for name in ("read_bytes", "written_bytes")
              if run.offchip[name] != offchip[name]]
    cycles = counters[Counter.CYCLES,]
    if abs(cycles - run.cycles) > margin * run.cycles:
        found.append(f"cycles: {cycles} in the hardware, {run.cycles} in the model, more than "
                     f"{margin:.0%} apart")
    return found


def _instructions(hardware, model):
    """The earliest instruction of which both know another cycle."""
    first = None
    for engine in Engine:
        ours, theirs = np.array(hardware[engine]), np.array(model[engine])
        if len(ours) != len(theirs):
            return [(f"{engine.name.lower()} retired {len(ours) - 1} instructions in the hardware, "
                     f"{len(theirs) - 1} in the model")]
        wrong = np.flatnonzero(ours != theirs)
        if len(wrong) and (first is None or ours[wrong[0]] < first[0]):
            first = (ours[wrong[0]], engine, wrong[0] - 1, theirs[wrong[0]])
    if first is None:
        return []
    cycle, engine, number, other = first
    return [(f"{engine.name.lower()}, instruction {number}: retired in cycle {cycle} in the "
             f"hardware, {other} in the model")]


def _spoken(key):
    return ", ".join(part.name.lower().replace("_", " ") if isinstance(part, Enum) else str(part)
                     for part in key)
