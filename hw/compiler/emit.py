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
from hw.isa import (
    FORMS,
    INSTRUCTION_BYTES,
    LOADS,
    PROGRAM_MAGIC,
    STORES,
    WAITS,
    Engine,
    Opcode,
    StreamHeader,
)

ENGINES = len(Engine)
NOBODY  = {}
NOTHING = []
SYNC    = Opcode.SYNC
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

    def forget(self):
        """Let go of all instructions. A machine is full of cycles; what hangs on it would wait for
        Python's garbage collector, which takes ten times as long to find it."""
        for each in (*self._streams, *self._clocks, self._accesses, self._single):
            each.clear()

    def retired(self, engines):
        """Per engine, how many instructions it has been given so far: see ``beside``."""
        return {engine: len(self.streams[engine]) for engine in engines}

    def users(self, spans):
        """Engine -> its last instruction that read or wrote any of ``spans``: see ``after``."""
        found = {}
        for piece in (piece for span in spans for piece in self._pieces(span)):
            for users in (piece.reads, piece.writes):
                for engine, count in users.items():
                    found[engine] = max(count, found.get(engine, 0))
        return found

    def waits_ahead(self):
        """Whether the end of a frame waits for the first bytes of the next."""
        starts = [(engine, number) for engine in LOADS
                  for number, (_, fields, *_) in enumerate(self.streams[engine], 1)
                  if fields.get("frame_start")]
        ends   = [(engine, number) for engine in STORES
                  for number, (_, fields, *_) in enumerate(self.streams[engine], 1)
                  if fields.get("frame_end")]
        return any(self._clocks[mask][number][load] >= start for (mask, number), (load, start) in
                   zip(ends, starts[1:], strict=False))

    def emit(self, engine, opcode, fields, *, layer=0, row=0, reads=(), writes=(), beside=NOBODY,
             after=None):
        """Append one instruction; ``fields`` as in :data:`hw.isa.FORMS`. ``beside`` are engines
        that write other bytes of the same words, and how many instructions each had been given
        before it began to: of what it writes, only those are waited for. Or ``after`` has the
        :meth:`users` of what it writes, from before the first of those that write other bytes."""
        known, bit, heaps, single = self._known[engine], 1 << engine, self._heaps, self._single
        needed = {}
        number = len(self._streams[engine]) + 1
        for span in reads:
            found = single.get(span)
            if found is None or not found[0].whole:
                found = self._pieces(span)
            for piece in found:
                piece.reads[engine] = number
                if not piece.seen & bit:
                    piece.seen |= bit
                    for other, count in piece.writes.items():
                        if (count > known[other] and other != engine
                                and count > needed.get(other, 0)):
                            needed[other] = count
        if after is not None:
            for other, count in after.items():
                if count > known[other] and other != engine and count > needed.get(other, 0):
                    needed[other] = count
        for span in writes if after is None else ():
            found = single.get(span)
            if found is None or not found[0].whole:
                found = self._pieces(span)
            for piece in found:
                for users in (piece.reads,
                              _limited(piece.writes, beside) if beside else piece.writes):
                    for other, count in users.items():
                        if (count > known[other] and other != engine
                                and count > needed.get(other, 0)):
                            needed[other] = count

        waits = self._waits(engine, needed) if needed else NOTHING
        if len(waits) > WAITS:
            while len(waits) > WAITS:
                self._append(engine, SYNC, NOBODY, layer, row, waits[:WAITS])
                waits = waits[WAITS:]
            number = len(self._streams[engine]) + 1
            for piece in (piece for span in reads for piece in self._pieces(span)):
                piece.reads[engine] = number
        self._append(engine, opcode, fields, layer, row, waits)

        for span in writes:
            self._write(span, engine, number, beside or after is not None)
        for span in (*reads, *writes):
            if span[0] in heaps:
                heaps[span[0]].touch(span[1], engine, number - 1)

    def _pieces(self, span):
        """The pieces of which a span consists."""
        pieces = self._accesses[span.memory].pieces(span)
        if len(pieces) == 1:
            self._single[span] = pieces
        return pieces

    def _write(self, span, engine, number, beside):
        """Let a span be written. That forgets who was there before: it has waited for all of them,
        so who waits for it waits for them. Not so where others write beside it, who do not."""
        found = self._single.get(span)
        if beside:
            for piece in self._pieces(span):
                piece.writes[engine] = number
                piece.seen = 0
            return
        if found is None or not found[0].whole:
            found = self._single[span] = [self._accesses[span.memory].join(span)]
        piece = found[0]
        piece.reads, piece.writes, piece.seen = {}, {engine: number}, 0

    def _waits(self, engine, needed):
        """The waits of an instruction, of which those that others imply are left out."""
        known, waits, clocks = self._known[engine], [], []
        for other, number in needed.items():
            clock = self._clocks[other][number]
            known = [a if a > b else b for a, b in zip(known, clock)]
            clocks.append(clock)
        for other, number in sorted(needed.items()):
            if known[other] < number:
                known[other] = number
            for clock in clocks:                # no engine relies on itself
                if clock[other] >= number:
                    break
            else:
                waits.append((other, number))
        # Instructions that wait for nothing new share what is known with the one before.
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
        _, fields, layers, rows, waits = zip(*[instructions[place] for place in places])
        known = {"opcode": [opcode] * len(places), "layer": layers, "row": rows, "waits": waits}
        try:
            words[places] = encode_columns(FORMS[opcode], known | {
                name: [each.get(name, 0) for each in fields]
                for name in _plan(FORMS[opcode]) if name not in known})
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
            try:
                part = np.asarray(part, np.int64)
            except TypeError:
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
