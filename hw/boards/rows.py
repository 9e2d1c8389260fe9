"""Rows of the attention monitor, kept until the host asks for them."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.monitor.monitor import MonitorStream

__all__ = ["ROW_WORDS", "WORD", "MonitorRows", "row_head"]

ROW_WORDS = 256         # words of 64 bits that are kept: a block RAM
WORD      = 8           # bytes of one


class row_head(data.Struct):
    """The word before the bytes of a row, which fill whole words."""
    layer:  8
    row:    12
    _spare: 12
    bytes:  32


class MonitorRows(wiring.Component):
    """A ring of words. A row that finds no room is dropped as a whole, and never waited for.

    Words have numbers that go on from one to the next modulo 2**16: those from ``done`` to before
    ``level`` may be read. A row counts once it is there to its last byte.

    Members
    -------
    i : In(MonitorStream())
        Always taken.
    level : Out(16)
    done : In(16)
        The host wants nothing before this one any more.
    address : In(8)
    word : Out(64)
        Word ``address``, modulo the ring, one cycle later.
    """

    i:       In(MonitorStream())
    level:   Out(16)
    done:    In(16)
    address: In(exact_log2(ROW_WORDS))
    word:    Out(64)

    def elaborate(self, platform):
        m = Module()

        m.submodules.words = words = Memory(shape=64, depth=ROW_WORDS, init=[])
        write, read = words.write_port(), words.read_port()
        m.d.comb += [read.addr.eq(self.address), self.word.eq(read.data)]

        begin  = Signal(16)         # of the row under way: its head
        place  = Signal(16, init=1) # of the word that fills
        count  = Signal(32)         # bytes of the row so far
        filled = Signal(64)
        lost   = Signal()           # the row is
        ended  = Signal()           # its head is still to be written
        which  = Signal.like(self.i.tuser)
        head   = Signal(row_head)
        full   = Signal()
        taken  = Signal()
        m.d.comb += [
            self.i.tready.eq(~ended),
            taken.eq(self.i.tvalid & self.i.tready),
            full.eq((place - self.done)[:16] >= ROW_WORDS),
            self.level.eq(begin),
            head.layer.eq(which.layer), head.row.eq(which.row), head.bytes.eq(count),
            write.data.eq(filled | (self.i.tdata << (count[:3] << 3))),
            write.addr.eq(place),
        ]
        with m.If(taken):
            m.d.sync += [
                count.eq(count + 1),
                filled.eq(write.data),
                which.eq(self.i.tuser),
                lost.eq(lost | full),
                ended.eq(self.i.tlast),
            ]
            with m.If((count[:3] == WORD - 1) | self.i.tlast):
                m.d.comb += write.en.eq(~lost & ~full)
                m.d.sync += [place.eq(place + 1), filled.eq(0)]
        with m.If(ended):
            m.d.comb += [write.addr.eq(begin), write.data.eq(head), write.en.eq(~lost)]
            m.d.sync += [ended.eq(0), lost.eq(0), count.eq(0)]
            with m.If(lost):
                m.d.sync += place.eq(begin + 1)
            with m.Else():
                m.d.sync += [begin.eq(place), place.eq(place + 1)]

        return m
