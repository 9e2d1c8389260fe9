"""What lived on chip, and when: the compiler's blocks with the cycles of a run."""

import numpy as np

from hw.control.counters import Counter, LayerField
from sim.counters import ledger_engines

__all__ = ["live_bytes", "over_time", "stretch"]


def over_time(program, config, timetable, *, source):
    """``occupancy.over_time`` of the report.

    ``timetable`` has per engine the cycle in which it had retired 0, 1, 2 .. instructions. A block
    lives from the first instruction that writes to it to the last that reads it; ``source`` says
    whether those cycles come from the machine's own ``trace`` or from an ``estimate``. A block may
    follow another row by row through the same words: from its first row on they count as its own,
    and the other goes on as an entry of fewer bytes.
    """
    lives = []
    for block in program.blocks:
        if block.uses:
            first = min(timetable[engine][uses[0] + 1] for engine, uses in block.uses.items())
            last  = max(timetable[engine][uses[1] + 1] for engine, uses in block.uses.items())
            lives.append((int(first), int(last), block))
    blocks = [{"name": block.what, "memory": block.memory, "bytes": words * config.vector,
               "first": first, "last": last} for first, last, words, block in _owned(lives)]
    blocks.sort(key=lambda block: (block["first"], -block["bytes"]))
    return {"source": source, "peak": int(live_bytes(blocks)[1].max(initial=0)), "blocks": blocks}


def _owned(lives):
    """``(first, last, words, block)`` of the words that each block had to itself, from
    ``(first, last, block)``."""
    owners, open_ = {}, {}      # memory -> per word the last block; block -> [since, words]
    changes = sorted([*((first, 1, number) for number, (first, _, _) in enumerate(lives)),
                      *((last, 0, number) for number, (_, last, _) in enumerate(lives))])
    for cycle, starts, number in changes:
        first, last, block = lives[number]
        end   = block.base + block.words
        owner = owners.get(block.memory, np.empty(0, int))
        if len(owner) < end:
            owner = owners[block.memory] = np.pad(owner, (0, end - len(owner)), constant_values=-1)
        place = owner[block.base:end]
        if not starts:
            since, words = open_.pop(number, (cycle, 0))
            if words and since < cycle:
                yield since, cycle, words, block
            place[place == number] = -1
        elif first < last:
            for other, shared in zip(*np.unique(place[place >= 0], return_counts=True),
                                     strict=True):
                since, words = open_[other]
                if since < cycle:
                    yield since, cycle, words, lives[other][2]
                open_[other] = cycle, words - int(shared)
            place[:] = number
            open_[number] = cycle, block.words


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
        engines = ledger_engines(layer)
        if engines and layer.id in program.layer_spans:
            points[program.layer_spans[layer.id][1]] = max(
                counters[Counter.LAYER, engine, layer.id, LayerField.LAST] for engine in engines)
    estimated = sorted(points)
    measured  = np.maximum.accumulate([points[cycle] for cycle in estimated])
    return lambda cycles: np.interp(cycles, estimated, measured).round().astype(int)
