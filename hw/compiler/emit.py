"""Instruction streams with waits found by the machine, not by hand.

Instructions are emitted in an order that would be correct if each ran alone to its end. Every
emission names the memory words that it reads and writes; from these :class:`Emitter` derives which
retired instructions of other engines it must wait for, so engines overlap as far as the data allow.
"""

from bisect import bisect_left
from functools import cache
from itertools import chain
from typing import NamedTuple

import numpy as np
from amaranth.lib import data

from hw.compiler.errors import CompileError
from hw.isa import FORMS, INSTRUCTION_BYTES, PROGRAM_MAGIC, WAITS, Engine, Opcode, StreamHeader

ENGINES = len(Engine)
NOBODY  = {}
SMALL   = 4096      # words of a memory in which each has a past of its own
BLOCK   = 8         # words with the same past in a larger one


class Span(NamedTuple):
    """Words ``start`` up to ``stop`` of the memory called ``memory``."""
    memory: str
    start:  int
    stop:   int


class _Piece:
    """Words of a memory with the same past: engine -> number of its instruction that last read,
    and that last wrote them. Engines ``seen`` (a bit each) know of all who wrote. ``whole`` until
    it is cut, or becomes part of a larger one."""

    __slots__ = ("reads", "writes", "seen", "whole")

    def __init__(self, reads, writes, seen=0):
        self.reads, self.writes, self.seen, self.whole = reads, writes, seen, True

    def copy(self):
        return _Piece(self.reads.copy(), self.writes.copy(), self.seen)


def grain(words):
    """Words of a memory whose accesses are not told apart: one of a small memory, where neighbours
    have nothing to do with each other; several of a large one."""
    return 1 if words <= SMALL else BLOCK


class _Accesses:
    """The pieces of a memory."""

    def __init__(self, words):
        self.words   = words
        self._block  = grain(words)
        self._starts = [0, -(-words // self._block)]
        self._pieces = [_Piece({}, {})]

    def pieces(self, span):
        """The pieces of which a span consists."""
        first, stop = self._cut_out(span)
        return self._pieces[first:stop]

    def join(self, span):
        """A new piece, for a span that is about to be written."""
        first, stop = self._cut_out(span)
        for piece in self._pieces[first:stop]:
            piece.whole = False
        joined = _Piece({}, {})
        self._pieces[first:stop] = [joined]
        del self._starts[first + 1:stop]
        return joined

    def _cut_out(self, span):
        """Let pieces begin and end where a span does: the slice of all that it is."""
        if not 0 <= span.start < span.stop <= self.words:
            raise AssertionError(f"Span {span} lies outside {self.words}")
        first = self._cut(span.start // self._block)
        return first, self._cut(-(-span.stop // self._block))

    def _cut(self, start):
        """Let a piece begin at block ``start``; its number."""
        index = bisect_left(self._starts, start)
        if self._starts[index] != start:
            cut = self._pieces[index - 1]
            cut.whole = False
            self._starts.insert(index, start)
            self._pieces[index - 1:index] = [cut.copy(), cut.copy()]
        return index


class Emitter:
    """Builds one stream per engine.

    Parameters
    ----------
    memories : dict[str, int]
        Words of every memory that spans may name.
    timetable : hw.compiler.estimate.Timetable
        Told of every instruction, if given.
    """

    def __init__(self, memories, timetable=None):
        self.timetable = timetable
        self.streams   = {engine: [] for engine in Engine}
        self._streams  = list(self.streams.values())    # enums are slow keys
        self._accesses = {name: _Accesses(words) for name, words in memories.items()}
        self._single   = {}     # span -> its piece, where it is one
        self._heaps    = {}
        # Per engine: the retirements of others that its last instruction can rely on, and the same
        # per instruction, so that waits already implied by another wait are left out.
        self._known    = [[0] * ENGINES for _ in Engine]
        self._clocks   = [[known] for known in self._known]

    def watch(self, heap):
        """Tell ``heap``, whose name is that of a memory, which instructions use its blocks."""
        self._heaps[heap.name] = heap

    def retired(self, engines):
        """Per engine, how many instructions it has been given so far: see ``beside``."""
        return {engine: len(self.streams[engine]) for engine in engines}

    def emit(self, engine, opcode, fields, *, layer=0, row=0, reads=(), writes=(), beside=NOBODY):
        """Append one instruction; ``fields`` as in :data:`hw.isa.FORMS`. ``beside`` are engines
        that write other bytes of the same words, and how many instructions each had been given
        before it began to: of what it writes, only those are waited for."""
        known, bit = self._known[engine], 1 << engine
        needed, users = {}, []
        read, written = self._pieces(reads), self._pieces(writes)
        for piece in read:
            if not piece.seen & bit:
                users.append(piece.writes)
        for piece in written:
            users += piece.reads, _limited(piece.writes, beside) if beside else piece.writes
        for each in users:
            for other, number in each.items():
                if number > known[other] and other != engine and number > needed.get(other, 0):
                    needed[other] = number

        waits = self._waits(engine, needed) if needed else []
        while len(waits) > WAITS:
            self._append(engine, Opcode.SYNC, {}, layer, row, waits[:WAITS])
            waits = waits[WAITS:]
        self._append(engine, opcode, fields, layer, row, waits)

        number = len(self._streams[engine])
        for piece in read:
            if not piece.whole:                 # what is written had it cut
                read = self._pieces(reads)
                break
        for piece in read:
            piece.reads[engine] = number
            piece.seen |= bit
        for span in writes:
            self._write(span, engine, number, beside)
        for span in chain(reads, writes):
            heap = self._heaps.get(span.memory)
            if heap is not None:
                heap.touch(span.start, engine, number - 1)

    def _pieces(self, spans):
        """The pieces of which spans consist."""
        found, single = [], self._single
        for span in spans:
            piece = single.get(span)
            if piece is not None and piece.whole:
                found.append(piece)
                continue
            pieces = self._accesses[span.memory].pieces(span)
            if len(pieces) == 1:
                single[span] = pieces[0]
            found += pieces
        return found

    def _write(self, span, engine, number, beside):
        """Let a span be written. That forgets who was there before: it has waited for all of them,
        so who waits for it waits for them. Not so where others write beside it, who do not."""
        pieces = self._pieces((span,))
        if beside:
            for piece in pieces:
                piece.writes[engine] = number
                piece.seen = 0
            return
        piece, = pieces if len(pieces) == 1 else (self._accesses[span.memory].join(span),)
        piece.reads.clear()
        piece.writes.clear()
        piece.writes[engine] = number
        piece.seen = 0

    def _waits(self, engine, needed):
        """The waits of an instruction, of which those that others imply are left out."""
        clocks = {other: self._clocks[other][number] for other, number in needed.items()}
        waits  = list(needed.items())
        if len(waits) > 1:
            waits = [(other, number) for other, number in sorted(waits)
                     if not any(clock[other] >= number for via, clock in clocks.items()
                                if via != other)]
        # Instructions that wait for nothing new share what is known with the one before.
        known = list(map(max, self._known[engine], *clocks.values()))
        for other, number in needed.items():
            if known[other] < number:
                known[other] = number
        self._known[engine] = known
        return waits

    def _append(self, engine, opcode, fields, layer, row, waits):
        self._streams[engine].append((opcode, fields, layer, row, waits))
        self._clocks[engine].append(self._known[engine])
        if self.timetable is not None:
            self.timetable.add(engine, opcode, fields, waits)

    def assemble(self, base, names=None):
        """The program as bytes to be placed at byte address ``base``: headers, then streams.
        ``names`` of layers by id are for what cannot be encoded."""
        headers, address = [], base + ENGINES * INSTRUCTION_BYTES
        for engine, stream in self.streams.items():
            headers.append(encode_layout(StreamHeader, {
                "magic": PROGRAM_MAGIC, "engine": engine, "count": len(stream),
                "address": address}).to_bytes(INSTRUCTION_BYTES, "little"))
            address += len(stream) * INSTRUCTION_BYTES
        return b"".join([*headers, encode_all([*chain(*self._streams)], names or {})])


def _limited(users, most):
    return {engine: min(number, most.get(engine, number)) for engine, number in users.items()}


def encode_all(instructions, names):
    """Instructions as bytes, one after the other; all of one kind at a time. ``names`` of layers
    by id are for what cannot be encoded."""
    words = np.zeros((len(instructions), INSTRUCTION_BYTES // 8), np.uint64)
    kinds = {}
    for place, instruction in enumerate(instructions):
        kinds.setdefault(instruction[0], []).append(place)
    for opcode, places in kinds.items():
        fields = [_fields(*instructions[place]) for place in places]
        try:
            words[places] = encode_columns(FORMS[opcode], {
                name: [each.get(name, 0) for each in fields] for name in _plan(FORMS[opcode])})
        except CompileError:
            _refuse([instructions[place] for place in places], names)
            raise
    return words.astype("<u8").tobytes()


def encode_columns(layout, columns):
    """Many values of a layout at once, as rows of 64-bit words: ``columns`` has, by name, the
    values of each field."""
    count = len(next(iter(columns.values())))
    words = np.zeros((count, -(-data.Layout.cast(layout).size // 64)), np.uint64)
    plan  = _plan(layout)
    for name, values in columns.items():
        for offset, width, part in _columns(values, *plan[name]):
            if not isinstance(part, np.ndarray):
                part = np.array([getattr(value, "value", value) for value in part], np.int64)
            wrong = np.flatnonzero((part < 0) | (part >> width))
            if len(wrong):
                raise _too_wide(name, width, part[wrong[0]])
            word, shift = divmod(offset, 64)
            part = part.astype(np.uint64)
            words[:, word] |= part << np.uint64(shift)
            if shift + width > 64:
                words[:, word + 1] |= part >> np.uint64(64 - shift)
    return words


def _columns(values, offset, width, inner):
    """(offset, width, values) of every field without parts in a field with ``inner`` ones."""
    if inner is None:
        yield offset, width, values
        return
    for index, (start, width, deeper) in enumerate(inner.values()):
        parts = [value[index] if value and index < len(value) else 0 for value in values]
        yield from _columns(parts, offset + start, width, deeper)


def _too_wide(name, width, value):
    return CompileError(f"instruction field {name!r} has {width} bits and would be {value}; use a "
                        "smaller network or fewer frames")


def _refuse(instructions, names):
    """Say which instruction cannot be encoded."""
    for instruction in instructions:
        try:
            encode(*instruction)
        except CompileError as error:
            layer = instruction[2]
            raise CompileError(f"Layer {names.get(layer, layer)!r}: {error}") from None


def encode(opcode, fields, layer=0, row=0, waits=()):
    """One instruction as bytes. Packs integers by the layout's own offsets: a layout constant for
    each of tens of thousands of instructions would take most of the compile time."""
    return encode_layout(FORMS[opcode], _fields(opcode, fields, layer, row, waits)).to_bytes(
        INSTRUCTION_BYTES, "little")


def _fields(opcode, fields, layer, row, waits):
    return {"opcode": opcode, "layer": layer, "row": row, "waits": waits, **fields}


def encode_layout(layout, fields):
    """``fields`` as one integer; absent ones are 0. Fields with parts may be sequences of these."""
    return _pack(_plan(layout), fields)


@cache
def _plan(shape):
    """``name -> (offset, width, inner plan or None)`` of a layout, found once."""
    return {name: (entry.offset, entry.width,
                   _plan(entry.shape) if isinstance(entry.shape, (data.Layout, type(data.Struct)))
                   else None)
            for name, entry in data.Layout.cast(shape)}


def _pack(plan, values):
    total = 0
    for name, value in (values if isinstance(values, dict) else dict(zip(plan, values))).items():
        offset, width, inner = plan[name]
        if inner is not None:
            value = _pack(inner, value)
        else:
            value = int(getattr(value, "value", value))
        if not 0 <= value < 1 << width:
            raise _too_wide(name, width, value)
        total |= value << offset
    return total
