"""Lending: units compute rows, or output channels, of layers that one of them would do alone.

In a single frame units wait for one another: the decoder's lanes for the encoder's maps, then the
encoder's lanes for the next frame. Every unit reads and writes on-chip memory, so what lies there
can be made by several at once, each with weights of its own; waits come from the words, as ever.

Passes that hand on rows are shared by *rows*: every unit has all their weights, and rows go, a few
at a time, to whichever unit will be done with them first, unless they would cost it much more than
another. So are depthwise passes. What else is by itself is shared by output
*channels*: every unit loads the weights of its own channels only, so no byte is loaded twice, but
where the last channels are shared by rows after all, so that all units are done at once.
"""

from itertools import accumulate, pairwise, product

import numpy as np

from golden import integer

MAP_SHARE = 4       # bytes of a map per byte of weights from which on its rows may be shared
DEPTHWISE_SHARE = 30    # the same for depthwise weights, which lie between zeros
CHUNK     = 2       # rows that a unit takes at a time: their neighbours are filled once
PATIENCE  = 1 / 6   # of the rows of a map: how much later may be done what costs a row's price less
LEAST     = 1e-3    # price of a unit that has nothing to do
WORTH     = 32_000  # cycles by which a layer must be done sooner if weights are to be loaded twice
# Rows of a map read while it passes that are made before the reader needs them, so that no unit
# waits, and those in memory: usually, and where there is no room for so many.
PASSING   = ((12, 20), (8, 14), (6, 11))


def by_rows(machine, item, share=MAP_SHARE):
    """Whether there is so much more map than weights that all units may load the weights."""
    weights = sum(part.weight.size for part in item.parts)
    size    = machine.map_words(item.tensor) * item.tensor.height * machine.config.vector
    return size > share * weights


def shares(item):
    """The passes that make a tensor between them: itself, or its pieces."""
    return item.pieces or (item,)


def tied(machine, item):
    """Whether only its own unit can run a pass, or should: attention maps go to the attention
    unit's store, copies to feedback memory, and the gate writes to the decoder; what interpolates
    needs depthwise steps of some width; sums and small maps are not worth the weights."""
    network = machine.network
    return (item.alpha or item.parked
            or item.depthwise and (len(item.operands) > 1
                                   or not by_rows(machine, item, DEPTHWISE_SHARE))
            or any(part.lines or part.clamp for part in item.parts)
            or any(leaf not in network.made and leaf in network.moves
                   and isinstance(network.moves[leaf].layer, integer.Gate)
                   for operand in item.operands for leaf in network.leaves(operand)))


def able(machine, item, name):
    """Whether the unit called ``name`` may run a pass. The encoder reads no feedback memory; and of
    the decoder's lanes, which are most, few would have work in a depthwise pass."""
    network = machine.network
    if name == item.unit:
        return True
    if tied(machine, item) or name == "decoder" and item.depthwise:
        return False
    return name != "encoder" or not any(
        network.made[source].parked for operand in item.operands
        for leaf in network.leaves(operand) for source in network.stored(leaf)
        if source in network.made)


class Prices:
    """What a cycle of each unit is worth to passes whose rows all units share: so much that those
    which make each row at the least price are all done at the same time. Without, a unit that
    happens to be free would take rows that cost it more than they cost another.

    Where the rows of pass ``i`` take ``c[i, u]`` cycles of unit ``u``, which is free from ``b[u]``
    on, no way to deal them is done before ``sum(p[u] * b[u]) + sum(min(p[u] * c[i, u]))`` whatever
    the prices ``p``, which add up to 1; and the best way is done at the largest of these."""

    def __init__(self, machine, runs):
        units = list(machine.units.values())
        costs = {}
        for run in runs:
            costs.setdefault(run.item, [np.inf] * len(units))[units.index(run.unit)] = sum(
                run.unit.cost(run.item, y) for y in range(run.item.tensor.height))
        ends = np.array([machine.emitter.timetable.end(unit.conv) for unit in units])
        self._of = dict(zip(units, prices(np.array(list(costs.values())), ends), strict=True))

    def __getitem__(self, unit):
        return self._of[unit]


def prices(costs, begin):
    """See :class:`Prices`: the largest, by a search that becomes finer."""
    count = len(begin)
    best, step = np.full(count, 1 / count), 1 / count
    moves = np.array(list(product((-2, -1, 0, 1, 2), repeat=count)))
    for _ in range(8):
        tried  = np.maximum(best + step * moves, LEAST)
        tried /= tried.sum(axis=1, keepdims=True)
        least  = (tried @ (begin - begin.max())
                  + (costs * tried[:, None]).min(axis=2).sum(axis=1))
        best   = tried[least.argmax()]
        step  /= 2
    return best


class Dealer:
    """Deals the rows of one pass, or of one piece of it, to ``runs``, one for each unit that shares
    it."""

    def __init__(self, machine, runs, prices):
        self.machine, self.runs, self.prices = machine, runs, prices
        self.sources = runs[0].sources()
        self._run    = None

    def run(self, y):
        """What makes row ``y``: the unit that would be done with it first, if that is worth its
        price; or that of the row before."""
        if self._run is None or y % CHUNK == 0:
            self._run = min(self.runs, key=lambda run: self._done(run, y))
        return self._run

    def _done(self, run, y):
        end   = self.machine.emitter.timetable.end
        ready = max((found.ready((y + CHUNK) / run.item.tensor.height) for found in self.sources),
                    default=0)
        cost  = CHUNK * run.unit.cost(run.item, y)
        rows  = PATIENCE * run.item.tensor.height
        return (max(end(run.unit.conv), end(run.unit.fill), ready)
                + cost * (1 + rows * self.prices[run.unit]))


def deal_rows(machine, runs, prices, make_row):
    """What makes a row by one of ``runs``, or by one for each piece of it."""
    pieces = {}
    for run in runs:
        pieces.setdefault(run.item, []).append(run)
    dealers = [Dealer(machine, found, prices) for found in pieces.values()]
    return lambda y: make_row([dealer.run(y) for dealer in dealers], y)


def deal_channels(machine, runs):
    """For each of ``runs``, one for each unit that shares a pass, a range of output channels, None
    for all, and a range of rows; and the channels of which each makes these rows only.

    Channels are dealt in blocks, of which a unit makes all rows, so that all are done at about the
    same time. Where blocks are too few to come out even, and that costs much, the rows of the last
    block are dealt as well."""
    if len(runs) == 1:
        return [(None, range(0))], range(0)
    item     = runs[0].item
    channels = item.parts[0].weight.shape[0]
    height   = item.tensor.height
    size     = max(run.unit.config.outputs for run in runs)
    blocks   = -(-channels // size)
    costs    = [sum(run.unit.cost(item, y) for y in range(height)) / blocks for run in runs]
    ready    = max((found.ready(1) for found in runs[0].sources()), default=0)
    ends     = [max(machine.emitter.timetable.end(run.unit.conv), ready) for run in runs]
    dealt    = [0] * len(runs)
    for _ in range(blocks):
        before = list(ends)
        last   = min(range(len(runs)), key=lambda index: ends[index] + costs[index])
        dealt[last] += 1
        ends[last]  += costs[last]
    level, parts = _level(before, costs)
    cuts  = [0] * (len(runs) + 1)
    if max(ends) - level > WORTH:
        dealt[last] -= 1
        cuts = np.rint(np.cumsum([0, *parts]) * height).astype(int).tolist()
    edges = [min(size * count, channels) for count in accumulate(dealt, initial=0)]
    return ([(range(*block), range(*rows))
             for block, rows in zip(pairwise(edges), pairwise(cuts), strict=True)],
            range(edges[-1], channels))


def _level(ends, costs):
    """When all are done if one block more, which takes each of them ``costs``, is divided among
    those who have ended by then, and what part of it each of them makes."""
    for count in range(len(ends), 0, -1):
        some  = sorted(range(len(ends)), key=ends.__getitem__)[:count]
        level = ((1 + sum(ends[index] / costs[index] for index in some))
                 / sum(1 / costs[index] for index in some))
        if level >= ends[some[-1]]:
            break
    return max(level, *ends), [max(level - end, 0) / cost
                               for end, cost in zip(ends, costs, strict=True)]
