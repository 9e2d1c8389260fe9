"""Signatures that more than one block speaks."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.isa import INSTRUCTION, Cause, Error, LoadTarget

PENDING_READS = 2
"""Cycles from an accepted memory read request to its data: array, then output register."""

PIPELINED_READS = PENDING_READS + 2
"""The least of a pipelined machine: a register ahead of arbitration, and one behind it."""


class EngineSignature(wiring.Signature):
    """One issue port, seen from the engine.

    ``i`` offers an instruction whose waits are met and holds it while the engine works; the engine
    raises ``i.ready`` for one cycle to *retire* it, when every write of it has landed. ``cause``
    says what the engine did this cycle, and counts only while ``i.valid``. ``error`` other than
    ``NONE`` stops the machine; the controller then resets every engine. ``SYNC`` never reaches an
    engine: the front end retires it.
    """

    def __init__(self):
        super().__init__({
            "i":     In(stream.Signature(INSTRUCTION)),
            "cause": Out(Cause),
            "error": Out(Error),
        })


def window_layout():
    """The part of off-chip memory that a program may write: from byte address ``base`` up to, not
    including, ``limit``; a ``limit`` of 0 is the end of memory."""
    return data.StructLayout({"base": 32, "limit": 32})


class MemoryRead(wiring.Signature):
    """Read port of a banked memory, seen from the reader.

    A request (``address``, in vectors) is accepted when ``valid & ready``; exactly
    :data:`PENDING_READS` cycles later, or at least :data:`PIPELINED_READS` in a pipelined machine,
    ``data_valid`` is high for one cycle with ``data``. The reader must have room: data cannot be
    refused. Accepted requests are answered in order.
    """

    def __init__(self, *, depth, vector):
        super().__init__({
            "address":    Out(stream.Signature(range(depth))),
            "data":       In(vector * 8),
            "data_valid": In(1),
        })


def write_layout(*, depth, vector, lanes):
    """Payload of a memory write: ``mask`` has one bit for each of ``lanes`` equal parts."""
    return data.StructLayout({"address": range(depth), "data": vector * 8, "mask": lanes})


class MemoryWrite(wiring.Signature):
    """Write port of a memory, seen from the writer; a stream of masked vectors. The write is
    visible to every read request accepted in a later cycle."""

    def __init__(self, *, depth, vector, lanes):
        super().__init__({
            "w": Out(stream.Signature(write_layout(depth=depth, vector=vector, lanes=lanes))),
        })


def row_write_layout(*, banks, depth, vector, lanes):
    """Payload of a row-memory write: one masked vector into one bank."""
    return data.StructLayout({
        "bank":    range(max(banks, 2)),
        "address": range(depth),
        "data":    vector * 8,
        "mask":    lanes,
    })


def load_layout(*, vector):
    """Payload from a load channel to a unit's own memories: beat number ``index`` of the
    instruction and its word-address ``base``, for any target but on-chip memory."""
    return data.StructLayout({
        "target": LoadTarget,
        "base":   20,
        "index":  20,
        "data":   vector * 8,
    })


def tap_layout(*, vector):
    """What a unit writes, for comparison with the golden model: ``count`` bytes of consecutive
    channels from ``channel`` of pixel (``row``, ``column``) of ``layer``. Simulation only."""
    return data.StructLayout({
        "layer":   8,
        "row":     12,
        "column":  12,
        "channel": 12,
        "count":   8,
        "data":    vector * 8,
    })


class TapSignature(wiring.Signature):
    def __init__(self, *, vector):
        super().__init__({"valid": Out(1), "p": Out(tap_layout(vector=vector))})
