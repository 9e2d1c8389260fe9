"""Feature maps while a program is emitted: which row is where, and what brings it there."""

from hw.compiler.emit import Span
from hw.compiler.errors import CompileError
from hw.isa import Engine, Opcode, Source, Traffic

LOAD, STORE, SPILL = Opcode.LOAD, Opcode.STORE, Traffic.SPILL    # slow to look up on their types
SOURCES  = {"onchip": Source.ONCHIP, "feedback": Source.FEEDBACK}
STORE_OF = {"encoder": Engine.STORE, "attention": Engine.STORE,
            "decoder": Engine.STORE_DECODER}


class Ring:
    """Rows of a map in a ring of ``slots`` places; ``produce(y, address, span)`` emits what brings
    row ``y`` there. Rows that are still in place are not produced again."""

    def __init__(self, memory, base, row_words, slots, produce=None):
        self.memory, self.base, self.row_words, self.slots = memory, base, row_words, slots
        self.produce = produce
        self._holds  = [None] * slots
        self._places = [(address, Span(memory, address, address + row_words))
                        for address in range(base, base + slots * row_words, row_words)]

    @property
    def words(self):
        return self.row_words * self.slots

    def place(self, y):
        """Address and span of the place of row ``y``."""
        return self._places[y % self.slots]

    def holds(self, y):
        return self._holds[y % self.slots] == y

    def claim(self, y):
        """The place of row ``y``, about to be written by the caller."""
        self._holds[y % self.slots] = y
        return self.place(y)

    def get(self, y):
        """The place of row ``y``, produced if it is not there."""
        slot = y % self.slots
        if self._holds[slot] != y:
            self._holds[slot] = y
            self.produce(y, *self._places[slot])
        return self._places[slot]


class Map:
    """A tensor in shared memory: whole on chip or in feedback memory, or off chip.

    It is written through a ring of ``slots`` rows: all of them for a map that stays; of one that
    goes off chip as many as are in the making at once. Such a map is stored row by row from
    ``offchip`` on, and loaded again, by the load engine of whichever unit asks, into a ring of that
    unit's own. A ``packed`` map has one channel, a byte a pixel, and is only for the host.

    ``producer(y)`` emits what makes row ``y``; rows are made in order, each once, on demand, and
    ``ahead`` more than that. The last ``kept`` rows lie in ``kept_heap``, or in the same memory,
    and never go off chip. The ring lies at ``base``, or where there is room. ``times`` are the
    estimated cycles in which the rows made so far are there, where units lend.
    """

    WRITE_SLOTS = 8
    READ_SLOTS  = 12
    FEW_READ_SLOTS   = 8        # where the next frame waits for the words of the others
    LEAST_READ_SLOTS = 5        # a gate's two skip rows, and the three that its next row reads

    def __init__(self, machine, item, *, heap, slots, top=None, offchip=None,
                 traffic=Traffic.SPILL, packed=False, ends_frame=False, base=None, kept=0,
                 kept_heap=None):
        self.machine, self.tensor, self.heap = machine, item.tensor, heap
        self.layer   = item.id          # what bytes off chip are charged to
        self.engine  = STORE_OF[item.unit]
        self.offchip = offchip
        self.traffic = traffic
        self.packed  = packed
        self.ends_frame = ends_frame
        self.vectors    = 1 if packed else machine.vectors(item.tensor.name)
        self.row_words  = machine.map_words(item.tensor, packed=packed)
        self.made     = 0
        self.ahead    = 0
        self.times    = []
        self.producer = None
        self._lent = base is None
        if self._lent:
            base = heap.take(slots * self.row_words, item.tensor.name, top=top)
        self.ring = Ring(heap.name, base, self.row_words, slots)
        self._kept_heap = kept_heap or heap
        self._kept = kept and Ring(
            self._kept_heap.name, self._kept_heap.take(
                kept * self.row_words, f"{item.tensor.name} (kept rows)", top=True),
            self.row_words, kept)
        self._readers = {}

    @property
    def spilled(self):
        return self.offchip is not None

    @property
    def complete(self):
        return self.made == self.tensor.height

    def evict(self):
        """Give back the rings of a map that lies off chip; later readers load again."""
        if self.spilled:
            self._give_ring()
        if self.spilled:
            for load in list(self._readers):
                self.heap.give(self._readers.pop(load).base)

    def free(self):
        """Nobody reads this map any more."""
        self._give_ring()
        if self._kept:
            self._kept_heap.give(self._kept.base)
        for ring in self._readers.values():
            self.heap.give(ring.base)

    def _give_ring(self):
        if self.ring is not None and self._lent:
            self.heap.give(self.ring.base)
        self.ring = None

    def ready(self, share):
        """The estimated cycle in which the first ``share`` of the rows is there, as far as they
        are made."""
        index = min(int(share * self.tensor.height), len(self.times) - 1)
        return self.times[index] if self.times else 0

    def claim(self, y):
        """Where the producer writes row ``y``: address, spans, and no place in the alpha store."""
        address, span = (self._kept if self._keeps(y) else self.ring).claim(y)
        return address, [span], 0

    def _keeps(self, y):
        """Whether row ``y`` is one of those that never go off chip."""
        return self._kept and y >= self.tensor.height - self._kept.slots

    def stored(self, y):
        """To be called once what writes row ``y`` to its place has been emitted."""
        if self.spilled and not self._keeps(y):
            _, span = self.ring.place(y)
            self.machine.emitter.emit(
                self.engine, STORE,
                {"traffic": self.traffic, "offchip": self._offchip(y), "beats": self.row_words,
                 "base": span.start,
                 "frame_end": self.ends_frame and y == self.tensor.height - 1},
                layer=self.layer, row=y, reads=[span], writes=[self._offchip_span(y)])
            self.machine.charge(self.layer, self.row_words)
            if self.traffic is SPILL:
                self.machine.stored.add(self.tensor.name)

    def ensure(self, y):
        while self.made <= y:
            self.made += 1
            self.producer(self.made - 1)

    def get(self, y, load):
        """Source, address and span of row ``y``, for a reader whose load engine is ``load``."""
        if y + self.ahead >= self.made:
            self.ensure(min(y + self.ahead, self.tensor.height - 1) if self.producer else y)
        ring = self._kept if self._kept and self._keeps(y) else self.ring
        if ring is None or not ring.holds(y):
            if not self.spilled:
                raise CompileError(f"Row {y} of {self.tensor.name!r}, which passes through "
                                   f"{ring.slots} rows of {self.heap.name}, is there no more")
            ring = self._reader(load)
        return SOURCES[ring.memory], *ring.get(y)

    def _reader(self, load):
        if load not in self._readers:
            slots = min(self.tensor.height, self.machine.schedule.read_slots,
                        max(self.heap.largest() // self.row_words, self.LEAST_READ_SLOTS))
            base = self.heap.take(slots * self.row_words, f"{self.tensor.name} (reloaded)")

            def produce(y, address, span):
                self.machine.emitter.emit(
                    load, LOAD,
                    {"traffic": SPILL, "offchip": self._offchip(y),
                     "beats": self.row_words, "base": address},
                    layer=self.layer, row=y, reads=[self._offchip_span(y)], writes=[span])
                self.machine.charge(self.layer, self.row_words)
                self.machine.loaded.add(self.tensor.name)

            self._readers[load] = Ring(self.heap.name, base, self.row_words, slots, produce)
        return self._readers[load]

    def _offchip(self, y):
        return self.offchip + y * self.row_words * self.machine.config.vector

    def _offchip_span(self, y):
        start = self._offchip(y) // self.machine.config.vector
        return Span("offchip", start, start + self.row_words)
