"""Lending: units compute rows, or output channels, of layers that one of them would do alone.

In a single frame units wait for one another: the decoder's lanes for the encoder's maps, then the
encoder's lanes for the next frame. Every unit reads and writes on-chip memory, so what lies there
can be made by several at once, each with weights of its own; waits come from the words, as ever.

Passes that hand on rows are shared by *rows*: every unit has all their weights, and rows go, a few
at a time, to whichever unit will be done with them first. What is by itself is shared by output
*channels*: every unit loads the weights of its own channels only, so no byte is loaded twice.
"""

from itertools import accumulate, pairwise

from golden import integer

MAP_SHARE = 4       # bytes of a map per byte of weights from which on its rows may be shared
CHUNK     = 2       # rows that a unit takes at a time: their neighbours are filled once
# Rows of a map read while it passes that are made before the reader needs them, so that no unit
# waits, and those in memory: usually, and where there is no room for so many.
PASSING   = ((12, 20), (8, 14), (6, 11))


def by_rows(machine, item):
    """Whether there is so much more map than weights that all units may load the weights."""
    weights = sum(part.weight.size for part in item.parts)
    size    = machine.map_words(item.tensor) * item.tensor.height * machine.config.vector
    return size > MAP_SHARE * weights


def tied(network, item):
    """Whether only its own unit can run a pass: depthwise weights lie as each unit's steps need
    them, attention maps go to the attention unit's store, and the gate writes to the decoder."""
    return item.depthwise or item.alpha or any(
        leaf not in network.made and leaf in network.moves
        and isinstance(network.moves[leaf].layer, integer.Gate)
        for operand in item.operands for leaf in network.leaves(operand))


class Dealer:
    """Deals the rows of one pass to ``runs``, one for each unit that shares it."""

    def __init__(self, machine, runs, sources):
        self.machine, self.runs, self.sources = machine, runs, sources
        self._run = None

    def make_row(self, y):
        """Row ``y`` by the unit that would be done with it first, or by that of the row before."""
        if self._run is None or y % CHUNK == 0:
            self._run = min(self.runs, key=lambda run: self._done(run, y))
        self._run.make_row(y)

    def _done(self, run, y):
        ready = max((found.ready((y + CHUNK) / run.item.tensor.height) for found in self.sources),
                    default=0)
        start = max(self.machine.emitter.timetable.end(run.unit.conv), ready)
        return start + CHUNK * run.unit.cost(run.item, y)


def deal_channels(machine, runs, sources):
    """A range of output channels for each of ``runs``, one for each unit that shares a pass, so
    that all are done at about the same time; None, which is all, for a single one. Ends are
    multiples of what any of them does at a time."""
    if len(runs) == 1:
        return [None]
    item     = runs[0].item
    channels = item.parts[0].weight.shape[0]
    size     = max(run.unit.config.outputs for run in runs)
    blocks   = -(-channels // size)
    costs    = [sum(run.unit.cost(item, y) for y in range(item.tensor.height)) / blocks
                for run in runs]
    ready    = max((found.ready(1) for found in sources), default=0)
    ends     = [max(machine.emitter.timetable.end(run.unit.conv), ready) for run in runs]
    dealt    = [0] * len(runs)
    for _ in range(blocks):
        which = min(range(len(runs)), key=lambda index: ends[index] + costs[index])
        dealt[which] += 1
        ends[which]  += costs[which]
    edges = [min(size * count, channels) for count in accumulate(dealt, initial=0)]
    return [range(start, stop) for start, stop in pairwise(edges)]
