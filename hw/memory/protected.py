"""Memories and queues that notice, or correct, bits that flipped in them.

Every separately written part of a row has its own check bits, so that nothing is read before it is
written. ``parity`` is one bit: it notices any odd number of flips. ``secded`` is the code of Hsiao
(IBM Journal of Research and Development 14, 1970, p. 395), whose columns have odd weight: it
corrects one flip and notices two. A row of zeros is right in both, as memories start.
"""

from functools import reduce
from itertools import combinations
from operator import xor

from amaranth import *
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.memory import Memory, ReadPort, WritePort
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.config import PROTECTIONS
from hw.memory.collisions import UNTOUCHED

__all__ = ["ProtectedMemory", "ProtectedQueue", "check_bits", "columns", "decode", "encode",
           "errors", "memory", "queue"]


def check_bits(kind, width):
    """How many bits guard ``width`` bits."""
    if kind == "parity":
        return 1
    bits = 4
    while (1 << bits - 1) - bits < width:       # columns of odd weight but for the check bits' own
        bits += 1
    return bits


def columns(width):
    """Which check bits of a ``secded`` code each of ``width`` bits takes part in, as numbers: the
    lightest first, so that trees of exclusive ors stay small."""
    bits  = check_bits("secded", width)
    found = (sum(1 << bit for bit in chosen) for weight in range(3, bits + 1, 2)
             for chosen in combinations(range(bits), weight))
    return [column for _, column in zip(range(width), found)]


def encode(kind, value):
    """The check bits of a value."""
    bits = Value.cast(value)
    if kind == "parity":
        return bits.xor()
    chosen = columns(len(bits))
    return Cat(reduce(xor, [bit for bit, column in zip(bits, chosen) if column >> number & 1],
                      C(0, 1)) for number in range(check_bits(kind, len(bits))))


def decode(m, kind, value, check):
    """``(value, corrected, uncorrectable)``: a value made right with its check bits where that can
    be, and whether it was wrong."""
    bits     = Value.cast(value)
    syndrome = Signal(len(check))
    m.d.comb += syndrome.eq(encode(kind, bits) ^ check)
    if kind == "parity":
        return bits, C(0, 1), syndrome[0]
    hits  = Signal(len(bits))           # which bit it was
    known = Signal()
    m.d.comb += [
        hits.eq(Cat(syndrome == column for column in columns(len(bits)))),
        known.eq(hits.any() | Cat(syndrome == 1 << own for own in range(len(check))).any()),
    ]
    return bits ^ hits, known, syndrome.any() & ~known


class ProtectedMemory(wiring.Component):
    """In place of :class:`amaranth.lib.memory.Memory`: the same ports at the same latency.

    An error is told in the cycle in which the wrong row is on the port: for a port of the
    domain ``sync`` once for each read, for one of ``comb`` in every cycle.

    Parameters
    ----------
    kind : str
        ``"parity"`` or ``"secded"``.
    shape, depth
        As those of a memory.
    parts : int
        Separately writable parts of a row, all of one size.

    Members
    -------
    corrected, uncorrectable : Out(1)
        Some port shows a row that was, or could not be, made right.

    Attributes
    ----------
    rows : Memory
        What is stored: of every part its bits, then its check bits.
    """

    def __init__(self, *, kind, shape, depth, parts=1):
        width = Shape.cast(shape).width
        if kind not in PROTECTIONS[1:]:
            raise ValueError(f"Protection must be {' or '.join(PROTECTIONS[1:])}, not {kind!r}")
        if parts < 1 or width % parts:
            raise ValueError(f"Memory parts ({parts!r}) must divide its width ({width})")
        self.kind    = kind
        self.shape   = shape
        self.depth   = depth
        self.parts   = parts
        self.part    = width // parts
        self.coded   = self.part + check_bits(kind, self.part)
        self.rows    = Memory(shape=self.coded * parts, depth=depth, init=[], attrs=UNTOUCHED)
        self._writes = []
        self._reads  = []
        super().__init__({"corrected": Out(1), "uncorrectable": Out(1)})

    def write_port(self, *, granularity=None):
        if granularity not in (self.part, None if self.parts == 1 else self.part):
            raise ValueError(f"Write granularity must be {self.part}, not {granularity!r}")
        port = WritePort.Signature(addr_width=ceil_log2(self.depth), shape=self.shape,
                                   granularity=granularity).create()
        self._writes.append(port)
        return port

    def read_port(self, *, domain="sync"):
        port = ReadPort.Signature(addr_width=ceil_log2(self.depth), shape=self.shape).create()
        self._reads.append((port, domain))
        return port

    def elaborate(self, platform):
        m = Module()

        coded = self.coded
        m.submodules.rows = rows = self.rows
        for port in self._writes:
            write = rows.write_port(granularity=None if self.parts == 1 else coded)
            bits  = Value.cast(port.data)
            parts = [bits[part * self.part:][:self.part] for part in range(self.parts)]
            m.d.comb += [
                write.addr.eq(port.addr),
                write.en.eq(port.en),
                write.data.eq(Cat(Cat(part, encode(self.kind, part)) for part in parts)),
            ]

        corrected, uncorrectable = [], []
        for number, (port, domain) in enumerate(self._reads):
            read  = rows.read_port(domain=domain)
            shown = C(1)
            m.d.comb += read.addr.eq(port.addr)
            if domain != "comb":
                shown = Signal(name=f"shown_{number}")
                m.d.comb += read.en.eq(port.en)
                m.d.sync += shown.eq(port.en)
            right = []
            for part in range(self.parts):
                word = read.data[part * coded:][:coded]
                value, *errors = decode(m, self.kind, word[:self.part], word[self.part:])
                right.append(value)
                corrected.append(shown & errors[0])
                uncorrectable.append(shown & errors[1])
            m.d.comb += Value.cast(port.data).eq(Cat(right))
        m.d.comb += [
            self.corrected.eq(Cat(corrected).any()),
            self.uncorrectable.eq(Cat(uncorrectable).any()),
        ]

        return m


class ProtectedQueue(wiring.Component):
    """In place of :class:`amaranth.lib.fifo.SyncFIFO` or, if ``buffered``, ``SyncFIFOBuffered``:
    what goes through keeps its check bits on the whole way.

    Members
    -------
    w_data, w_rdy, w_en, r_data, r_rdy, r_en, level
        Those of the queue.
    corrected, uncorrectable : Out(1)
        The word that is taken in this cycle was, or could not be, made right.
    """

    def __init__(self, *, kind, width, depth, buffered=False):
        self.kind  = kind
        self.width = width
        self.depth = depth
        self._fifo = (fifo.SyncFIFOBuffered if buffered else fifo.SyncFIFO)(
            width=width + check_bits(kind, width), depth=depth)
        super().__init__({
            "w_data": In(width), "w_rdy": Out(1), "w_en": In(1),
            "r_data": Out(width), "r_rdy": Out(1), "r_en": In(1),
            "level": Out(range(depth + 1)), "corrected": Out(1), "uncorrectable": Out(1),
        })

    @property
    def r_stream(self):
        """The reading side as a stream."""
        port = stream.Signature(self.width).create()
        port.payload, port.valid, port.ready = self.r_data, self.r_rdy, self.r_en
        return port

    def elaborate(self, platform):
        m = Module()

        m.submodules.words = words = self._fifo
        value, *errors = decode(m, self.kind, words.r_data[:self.width], words.r_data[self.width:])
        taken = words.r_rdy & self.r_en
        m.d.comb += [
            words.w_data.eq(Cat(self.w_data, encode(self.kind, self.w_data))),
            words.w_en.eq(self.w_en),
            self.w_rdy.eq(words.w_rdy),
            self.r_data.eq(value),
            self.r_rdy.eq(words.r_rdy),
            words.r_en.eq(self.r_en),
            self.level.eq(words.level),
            self.corrected.eq(taken & errors[0]),
            self.uncorrectable.eq(taken & errors[1]),
        ]

        return m


def memory(kind, *, shape, depth, parts=1):
    """A memory of zeros that is protected as ``kind`` says; plain if that is ``"none"``. What a
    registered port reads in the very cycle in which the row is written may be anything on a chip
    (:mod:`hw.memory.collisions`)."""
    if kind == "none":
        return Memory(shape=shape, depth=depth, init=[], attrs=UNTOUCHED)
    return ProtectedMemory(kind=kind, shape=shape, depth=depth, parts=parts)


def queue(kind, *, width, depth, buffered=False):
    """The same for a queue."""
    if kind == "none":
        return (fifo.SyncFIFOBuffered if buffered else fifo.SyncFIFO)(width=width, depth=depth)
    return ProtectedQueue(kind=kind, width=width, depth=depth, buffered=buffered)


def errors(protected, memories):
    """``(corrected, uncorrectable)`` of some of the pairs ``(memory, part)``: a value each, a bit
    for each name in ``memories``."""
    found = [[part for name, part in protected
              if name == memory and isinstance(part, (ProtectedMemory, ProtectedQueue))]
             for memory in memories]
    return tuple(Cat(Cat(getattr(part, what) for part in parts).any() for parts in found)
                 for what in ("corrected", "uncorrectable"))
