"""Instruction streams with waits found by the machine, not by hand.

Instructions are emitted in an order that would be correct if each ran alone to its end. Every
emission names the memory words that it reads and writes; from these :class:`Emitter` derives which
retired instructions of other engines it must wait for, so engines overlap as far as the data allow.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from amaranth.lib import data

from hw.compiler.errors import CompileError
from hw.isa import FORMS, INSTRUCTION_BYTES, PROGRAM_MAGIC, WAITS, Engine, Opcode, StreamHeader

ENGINES = len(Engine)


@dataclass(frozen=True)
class Span:
    """Words ``start`` up to ``stop`` of the memory called ``memory``."""
    memory: str
    start:  int
    stop:   int


class _Accesses:
    """Last instruction of each engine that read, and that wrote, each block of a memory: a word of
    a small one, where neighbours have nothing to do with each other; several of a large one."""

    SMALL = 4096
    BLOCK = 8

    def __init__(self, words):
        self.block  = 1 if words <= self.SMALL else self.BLOCK
        blocks = -(-words // self.block)
        self.reads  = np.zeros((ENGINES, blocks), np.int32)
        self.writes = np.zeros((ENGINES, blocks), np.int32)
        self.readers = []       # engines that ever did, so that the others cost nothing
        self.writers = []

    def blocks(self, span):
        return slice(span.start // self.block, -(-span.stop // self.block))


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
        self._size     = dict(memories)
        self._accesses = {name: _Accesses(words) for name, words in memories.items()}
        self._heaps    = {}
        # Per engine: the retirements that its last instruction can rely on, and per instruction
        # the same, so that waits already implied by another wait are left out.
        self._known    = np.zeros((ENGINES, ENGINES), np.int32)
        self._clocks   = {engine: [np.zeros(ENGINES, np.int32)] for engine in Engine}

    def watch(self, heap):
        """Tell ``heap``, whose name is that of a memory, which instructions use its blocks."""
        self._heaps[heap.name] = heap

    def retired(self, engines):
        """Per engine, how many instructions it has been given so far: see ``beside``."""
        return {engine: len(self.streams[engine]) for engine in engines}

    def emit(self, engine, opcode, fields, *, layer=0, row=0, reads=(), writes=(), beside=None):
        """Append one instruction; ``fields`` as in :data:`hw.isa.FORMS`. ``beside`` are engines
        that write other bytes of the same words, and how many instructions each had been given
        before it began to: of what it writes, only those are waited for."""
        waits = self._waits(engine, self._needed(engine, reads, writes, beside or {}))
        while len(waits) > WAITS:
            self._append(engine, Opcode.SYNC, {}, layer, row, waits[:WAITS])
            waits = waits[WAITS:]
        self._append(engine, opcode, fields, layer, row, waits)
        self._record(engine, reads, writes)

    def _needed(self, engine, reads, writes, beside):
        needed = np.zeros(ENGINES, np.int32)
        for spans, kinds in ((reads, ("writes",)), (writes, ("reads", "writes"))):
            for span in spans:
                if not 0 <= span.start < span.stop <= self._size[span.memory]:
                    raise AssertionError(f"Span {span} lies outside {self._size[span.memory]}")
                accesses = self._accesses[span.memory]
                blocks   = accesses.blocks(span)
                for kind in kinds:
                    for other in accesses.readers if kind == "reads" else accesses.writers:
                        latest = getattr(accesses, kind)[other, blocks].max()
                        if spans is writes and kind == "writes" and other in beside:
                            latest = min(latest, beside[other])
                        if latest > needed[other]:
                            needed[other] = latest
        needed[engine] = 0
        return needed

    def _waits(self, engine, needed):
        known = self._known[engine]
        open_ = [other for other in np.nonzero(needed > known)[0]]
        waits = []
        for other in open_:
            implied = any(self._clocks[Engine(via)][needed[via]][other] >= needed[other]
                          for via in open_ if via != other)
            if not implied:
                waits.append((Engine(other), int(needed[other])))
        for other in open_:
            np.maximum(known, self._clocks[Engine(other)][needed[other]], out=known)
        return waits

    def _append(self, engine, opcode, fields, layer, row, waits):
        self.streams[engine].append((opcode, fields, layer, row, waits))
        if self.timetable is not None:
            self.timetable.add(engine, opcode, fields, waits)
        self._known[engine, engine] = len(self.streams[engine])
        self._clocks[engine].append(self._known[engine].copy())

    def _record(self, engine, reads, writes):
        count = len(self.streams[engine])
        for span in (*reads, *writes):
            if span.memory in self._heaps:
                self._heaps[span.memory].touch(span.start, engine, count - 1)
        for spans, kind in ((reads, "read"), (writes, "write")):
            for span in spans:
                accesses = self._accesses[span.memory]
                getattr(accesses, f"{kind}s")[engine, accesses.blocks(span)] = count
                users = getattr(accesses, f"{kind}ers" if kind == "read" else "writers")
                if engine not in users:
                    users.append(engine)

    def assemble(self, base, names=None):
        """The program as bytes to be placed at byte address ``base``: headers, then streams.
        ``names`` of layers by id are for what cannot be encoded."""
        headers, streams = [], []
        address = base + ENGINES * INSTRUCTION_BYTES
        for engine, stream in self.streams.items():
            headers.append(encode_layout(StreamHeader, {
                "magic": PROGRAM_MAGIC, "engine": engine, "count": len(stream),
                "address": address}).to_bytes(INSTRUCTION_BYTES, "little"))
            streams.append(b"".join(_encoded(instruction, names or {}) for instruction in stream))
            address += len(streams[-1])
        return b"".join(headers + streams)


def encode(opcode, fields, layer=0, row=0, waits=()):
    """One instruction as bytes. Packs integers by the layout's own offsets: a layout constant for
    each of tens of thousands of instructions would take most of the compile time."""
    return encode_layout(FORMS[opcode], {
        "opcode": opcode, "layer": layer, "row": row,
        "waits": [{"engine": engine, "count": count} for engine, count in waits],
        **fields}).to_bytes(INSTRUCTION_BYTES, "little")


def _encoded(instruction, names):
    try:
        return encode(*instruction)
    except CompileError as error:
        layer = instruction[2]
        raise CompileError(f"Layer {names.get(layer, layer)!r}: {error}") from None


def encode_layout(layout, fields):
    """``fields`` as one integer; absent ones are 0."""
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
    for name, value in (enumerate(values) if isinstance(values, list) else values.items()):
        offset, width, inner = plan[name]
        if inner is not None:
            value = _pack(inner, value)
        else:
            value = int(getattr(value, "value", value))
        if not 0 <= value < 1 << width:
            raise CompileError(f"instruction field {name!r} has {width} bits and would be {value}; "
                               "use a smaller network or fewer frames")
        total |= value << offset
    return total
