"""Where things lie: allocators for every memory of the machine, used while emitting."""

from dataclasses import dataclass, field
from math import inf

import numpy as np

from hw.compiler.errors import CompileError, NoRoom, or_set

MOST_ORDERS = 50        # in which blocks are placed before :func:`arrange` gives up


@dataclass
class Block:
    """``words`` words of ``memory`` from ``base``, for ``what``. ``uses`` has, per engine, the
    first and the last instruction of its stream that touches them."""
    memory: str
    what:   str
    base:   int
    words:  int
    uses:   dict = field(default_factory=dict)


@dataclass(eq=False)
class Life:
    """When a block of a heap lives: from event ``start`` to event ``stop`` of it, takes and gives
    being events."""
    what:  str
    words: int
    start: int
    stop:  float = inf


class Heap:
    """Blocks that live from :meth:`take` to :meth:`give`.

    What overwrites a block waits for its last reader, so a new block goes where the one of the same
    name before last was, if that is free, else to the words whose last block ended longest ago:
    successive tiles, stages and frames alternate between places instead of waiting for each other.

    Blocks are whole multiples of ``align`` words: where accesses are told apart by so many words,
    they would otherwise wait for their neighbours.

    A heap ``beyond`` whose end blocks may lie has room for what only lacks it in one piece, so that
    all lives become known (``strayed`` says that this happened); :func:`arrange` makes ``places``
    of them, block name -> bases, which the next heap then follows. ``knob`` is that of the
    machine's file for its size, which a refusal then names; a word is ``unit`` of it.
    """

    def __init__(self, name, words, *, align=1, beyond=0, places=None, knob=None, unit=1):
        self.name, self.words, self.align, self.knob = name, words, align, knob
        self._unit   = unit
        self.blocks  = {}       # base -> (words, what)
        self.history = []       # every :class:`Block` that ever was
        self.lives   = []       # of each of these
        self.strayed = False
        self._beyond = beyond
        self._places = {what: iter(bases) for what, bases in (places or {}).items()}
        total = words + beyond
        self._owner = np.full(total, -1, np.int32)  # per word: its last block, by number
        self._used  = np.zeros(total, bool)         # per word: whether it ever belonged to a block
        self._ended = np.zeros(total, np.int32)     # per word: when its last block ended
        self._time  = 0
        self._homes = {}        # what -> bases of its last two blocks

    def take(self, words, what, *, top=None):
        """Base of a new block; ``top`` forces it to the top of the memory (False: bottom)."""
        words = -(-words // self.align) * self.align
        base  = next(self._places.get(what, iter(())), None)
        if base is not None and self._is_free(base, words):
            return self._place(base, words, what)
        if top is not None:
            fits = [stop - words if top else start for start, stop in self.holes()
                    if stop - start >= words]
            base = (max(fits) if top else min(fits)) if fits else None
            return self._place(base, words, what)
        homes = self._homes.setdefault(what, [])
        base  = homes[0] if len(homes) == 2 and self._is_free(homes[0], words) else None
        if base is None:
            base = self._oldest(words)
        base = self._place(base, words, what)
        homes[:] = [*homes[-1:], base]
        return base

    def _place(self, base, words, what):
        if words > self.words - self.used():        # what strayed needs room as well
            base = None
        elif base is None:
            base = min((start for start, stop in self.holes(self.words, self._beyond)
                        if stop - start >= words), default=None)
            self.strayed |= base is not None
        if base is None:
            live = ", ".join(f"{name} {size}" for size, name in self.blocks.values())
            enough  = self._unit * max(self.used() + words, self.words + 1)
            way_out = self.knob and f"; use a narrower network{or_set(self.knob, enough)}"
            raise NoRoom(f"{what} needs {words} words of {self.name}; of its {self.words} these "
                         f"are in use: {live or 'none'}{way_out or ''}", wanted=what,
                         live=[name for _, name in self.blocks.values()],
                         alone=4 * words > 3 * self.words)
        self.blocks[base] = (words, what)
        self._used[base:base + words] = True
        self._owner[base:base + words] = len(self.history)
        self.history.append(Block(self.name, what, base, words))
        self._time += 1
        self.lives.append(Life(what, words, self._time))
        return base

    def touch(self, word, engine, index):
        """Instruction ``index`` of ``engine`` reads or writes the block that ``word`` is in."""
        uses = self.history[self._owner.item(word)].uses
        uses[engine] = uses[engine][0] if engine in uses else index, index

    def give(self, base):
        words, _ = self.blocks.pop(base)
        self._time += 1
        self._ended[base:base + words] = self._time
        self.lives[self._owner.item(base)].stop = self._time

    @property
    def footprint(self):
        """Words that ever belonged to a block. Blocks that end before others begin in the order of
        emission may live side by side when engines run ahead, so this is what a run occupies."""
        return int(self._used.sum())

    def used(self):
        """Words that belong to a block now."""
        return sum(size for size, _ in self.blocks.values())

    def holes(self, begin=0, size=None):
        """(start, stop) of every run of free words: of all, or of ``size`` from ``begin`` on."""
        end   = begin + (self.words if size is None else size)
        edges = [begin, *(edge for base, (words, _) in sorted(self.blocks.items())
                          if begin <= base < end for edge in (base, base + words)), end]
        return [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)
                if start < stop]

    def largest(self):
        """Words of the largest hole."""
        return max((stop - start for start, stop in self.holes()), default=0)

    def _is_free(self, base, words):
        return any(start <= base and base + words <= stop for start, stop in self.holes())

    def _oldest(self, words):
        candidates = []
        for start, stop in self.holes():
            changes = np.flatnonzero(np.diff(self._ended[start:stop])) + start + 1
            for base in (start, *changes.tolist()):
                if base + words <= stop:
                    candidates.append((int(self._ended[base:base + words].max()), base))
        return min(candidates)[1] if candidates else None


def arrange(lives, words):
    """Places for blocks in a memory of ``words`` words, name -> bases in the order of their lives,
    such that those that live at the same time lie apart; None if none are found. One after the
    other, the largest first, each gets the lowest place that is free as long as it lives; one that
    finds none goes to the front of all, and everything is placed anew."""
    order = sorted(lives, key=lambda life: life.words, reverse=True)
    for _ in range(MOST_ORDERS):
        bases = {}
        for life in order:
            base = _lowest(life, bases)
            if base + life.words > words:
                order.remove(life)
                order.insert(0, life)
                break
            bases[life] = base
        else:
            places = {}
            for life in lives:
                places.setdefault(life.what, []).append(bases[life])
            return places
    return None


def _lowest(life, bases):
    """The lowest place for a block beside those that have theirs and live at the same time."""
    lowest = 0
    for base, stop in sorted((base, base + other.words) for other, base in bases.items()
                             if other.start < life.stop and life.start < other.stop):
        if base - lowest >= life.words:
            break
        lowest = max(lowest, stop)
    return lowest


class OffchipImage:
    """The contents of off-chip memory before a run, built from address 0 up."""

    ALIGN = 64

    def __init__(self, capacity):
        self.capacity = capacity
        self.end      = 0
        self._blobs   = []      # (address, bytes), in the order of addresses

    def reserve(self, size, what):
        """Byte address of ``size`` bytes that the run fills."""
        address = -(-self.end // self.ALIGN) * self.ALIGN
        self.end = address + size
        if self.end > self.capacity:
            enough = 1 << (self.end - 1).bit_length()
            raise CompileError(f"{what} needs off-chip memory up to byte {self.end}; this machine "
                               f"has {self.capacity}; use fewer frames or a smaller network"
                               f"{or_set('offchip_bytes', enough)}")
        return address

    def place(self, blob, what):
        """Byte address of ``blob``."""
        address = self.reserve(len(blob), what)
        self._blobs.append((address, blob))
        return address

    @property
    def data(self):
        """All of it, up to the end of what was placed last."""
        pieces, end = [], 0
        for address, blob in self._blobs:
            pieces += bytes(address - end), blob
            end = address + len(blob)
        return b"".join(pieces)
