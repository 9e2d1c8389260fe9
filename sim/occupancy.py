"""What lived on chip, and when: the compiler's blocks with the cycles of a run."""

import numpy as np

from hw.control.counters import Counter, LayerField
from sim.counters import ledger_engine

__all__ = ["live_bytes", "over_time", "stretch"]


def over_time(program, config, timetable, *, source):
    """``occupancy.over_time`` of the report.

    ``timetable`` has per engine the cycle in which it had retired 0, 1, 2 .. instructions. A block
    lives from the first instruction that writes to it to the last that reads it; ``source`` says
    whether those cycles come from the machine's own ``trace`` or from an ``estimate``.
    """
    blocks = []
    for block in program.blocks:
        if block.uses:
            first = min(timetable[engine][uses[0] + 1] for engine, uses in block.uses.items())
            last  = max(timetable[engine][uses[1] + 1] for engine, uses in block.uses.items())
            blocks.append({"name": block.what, "memory": block.memory,
                           "bytes": block.words * config.vector,
                           "first": int(first), "last": int(last)})
    blocks.sort(key=lambda block: (block["first"], -block["bytes"]))
    return {"source": source, "peak": int(live_bytes(blocks)[1].max(initial=0)), "blocks": blocks}


def live_bytes(blocks):
    """Cycles at which something begins or ends, and the bytes that live from each on."""
    changes = {}
    for block in blocks:
        changes[block["first"]] = changes.get(block["first"], 0) + block["bytes"]
        changes[block["last"]]  = changes.get(block["last"], 0) - block["bytes"]
    cycles = sorted(changes)
    return np.array(cycles, int), np.cumsum([changes[cycle] for cycle in cycles], dtype=int)


def stretch(program, counters):
    """A function from the compiler's estimated cycles to those of the run, in which every layer and
    the run itself end when they did."""
    points = {0: 0, program.estimated_cycles: counters[Counter.CYCLES,]}
    for layer in program.layers:
        engine = ledger_engine(layer)
        if engine is not None and layer.id in program.layer_spans:
            last = counters[Counter.LAYER, engine, layer.id, LayerField.LAST]
            points[program.layer_spans[layer.id][1]] = last
    estimated = sorted(points)
    measured  = np.maximum.accumulate([points[cycle] for cycle in estimated])
    return lambda cycles: np.interp(cycles, estimated, measured).round().astype(int)
