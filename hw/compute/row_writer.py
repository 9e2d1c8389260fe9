"""Where the vectors of a row go in row memory: the writing half of the fill and gate engines."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.interfaces import row_write_layout


class RowWriter(wiring.Component):
    """Writes vectors, pixel by pixel, into the banks of a row memory.

    Vector ``v`` of pixel ``x`` goes to bank ``x % banks``, address
    ``base + x // banks * stride + v``. With ``twice``, every vector taken is written to two
    neighbouring pixels.

    ``start`` begins a row of ``columns`` pixels; ``finished`` is high in the cycle in which its
    last write is accepted. The settings must hold meanwhile. Takes and writes one vector per cycle
    (``twice``: takes every other cycle), one cycle later, as long as ``o`` is taken.

    Parameters
    ----------
    banks, depth, vector, lanes : int
        The row memory, as in :func:`hw.interfaces.row_write_layout`; at least two banks.

    Members
    -------
    start : In(1)
    base : In(range(depth))
    stride, vectors : In(7)
    columns : In(12)
    twice : In(1)
    i : In(stream.Signature(vector * 8))
    o : Out(stream.Signature(row_write_layout(...)))
    column, channel : Out(12)
        Pixel and first channel of the vector on offer at ``o``.
    finished : Out(1)
    """

    def __init__(self, *, banks, depth, vector, lanes):
        if banks < 2 or banks & (banks - 1):
            raise ValueError("Row writer banks must be a power of two of at least 2, "
                             f"not {banks!r}")
        self.banks  = banks
        self.vector = vector
        super().__init__({
            "start":    In(1),
            "base":     In(range(depth)),
            "stride":   In(7),
            "vectors":  In(7),
            "columns":  In(12),
            "twice":    In(1),
            "i":        In(stream.Signature(vector * 8)),
            "o":        Out(stream.Signature(row_write_layout(banks=banks, depth=depth,
                                                              vector=vector, lanes=lanes))),
            "column":   Out(12),
            "channel":  Out(12),
            "finished": Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        bank_bits = exact_log2(self.banks)
        bank   = Signal(bank_bits)
        block  = Signal.like(self.base)     # address of the pixel's vector 0
        column = Signal(12)
        vec    = Signal(7)
        copy   = Signal()                   # the second of two
        last   = Signal()                   # `o` holds the row's last vector

        load, done = Signal(), Signal()
        m.d.comb += [
            load.eq(self.i.valid & (~self.o.valid | self.o.ready)),
            done.eq(load & (~self.twice | copy)),
            self.i.ready.eq((~self.o.valid | self.o.ready) & (~self.twice | copy)),
            self.finished.eq(last & self.o.valid & self.o.ready),
        ]

        # Pairs begin at an even pixel, so both of a pair lie in the same block.
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(load):
            m.d.sync += [
                self.o.valid.eq(1),
                self.o.p.data.eq(self.i.p),
                self.o.p.bank.eq(bank + copy),
                self.o.p.address.eq(block + vec),
                self.o.p.mask.eq(-1),
                self.column.eq(column + copy),
                self.channel.eq(vec * self.vector),
                copy.eq(self.twice & ~copy),
            ]

        step        = Mux(self.twice, 2, 1)
        next_bank   = Signal(bank_bits + 1)     # its highest bit: on to the next block
        next_column = Signal(12)
        m.d.comb += [next_bank.eq(bank + step), next_column.eq(column + step)]
        with m.If(done):
            m.d.sync += vec.eq(vec + 1)
            with m.If(vec == self.vectors - 1):
                m.d.sync += [
                    vec.eq(0),
                    bank.eq(next_bank[:bank_bits]),
                    column.eq(next_column),
                    last.eq(next_column == self.columns),
                ]
                with m.If(next_bank[bank_bits]):
                    m.d.sync += block.eq(block + self.stride)

        with m.If(self.start):
            m.d.sync += [block.eq(self.base), bank.eq(0), column.eq(0), vec.eq(0), last.eq(0)]

        return m
