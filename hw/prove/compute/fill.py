"""Properties of :class:`hw.compute.fill.FillEngine`: what it reads and writes."""

from types import SimpleNamespace

from amaranth import *

from hw.compute.fill import FillEngine
from hw.isa import FillMode, Opcode
from hw.prove.bench import prove
from hw.prove.compute.sequence import times
from hw.prove.small import SMALL

UNIT = SMALL.encoder


def engine(bench):
    """A fill engine with instructions of up to 3 x 2 vectors at any addresses, in a memory that
    answers two cycles after a request and refuses as it likes.

    Returns it, and its instruction and ports.
    """
    dut = bench.block(FillEngine(SMALL, UNIT, has_feedback=False))
    fill, read = dut.engine.i.p.fill, dut.read_onchip
    bench.driven(read.data_valid)
    bench.m.d.comb += read.data_valid.eq(
        bench.before(bench.before(read.address.valid & read.address.ready)))
    bench.assume(bench.kept(dut.engine.i.valid, dut.engine.i.ready, dut.engine.i.p))
    bench.assume(~dut.engine.i.valid | (dut.engine.i.p.sync.opcode == Opcode.FILL))
    bench.assume((fill.width < 4) & (fill.vectors < 3) & (fill.dst_stride < 4))
    return dut, SimpleNamespace(fill=fill, read=read.address, write=dut.write)


@prove((FillEngine.elaborate, "(fill.src_base + source.o > words)", "C(0)"), steps=14, slow=True)
def reads_stay_in_the_row(bench):
    """Every vector that is read lies in the row, or one of two rows, of the instruction, and in
    on-chip memory: none is for an instruction that leaves it. Rows of up to 3 pixels of 2 vectors,
    at any addresses."""
    dut, at = engine(bench)
    fill, read = at.fill, at.read
    size   = times(fill.width, fill.vectors, 2)
    first  = (read.p >= fill.src_base) & (read.p < fill.src_base + size)
    second = (read.p >= fill.src_base2) & (read.p < fill.src_base2 + size)
    pool   = fill.mode == FillMode.POOL
    bench.check(~read.valid | first | (pool & second), "in the row")
    bench.check(~read.valid | ((fill.src_base + size <= SMALL.onchip_words) & (
        ~pool | (fill.src_base2 + size <= SMALL.onchip_words))), "in memory")
    bench.check(~read.valid | dut.engine.i.valid, "of an instruction")
    bench.cover(read.valid & pool & second & ~first & (read.p == fill.src_base2 + size - 1))


@prove((FillEngine.elaborate, "| (dst_end > unit.row_words)", ""), steps=15, slow=True)
def writes_stay_in_the_row(bench):
    """Every vector that is written lies at the place of its pixel and vector, and in row memory:
    ``dst_base + x // banks * dst_stride + dst_vector + v``. Rows of up to 3 pixels of 2 vectors."""
    dut, at = engine(bench)
    fill, write = at.fill, at.write
    pixel, vector = dut.tap.p.column, dut.tap.p.channel // SMALL.vector
    blocks = pixel // UNIT.banks
    place  = fill.dst_base + times(fill.dst_stride, blocks, 1) + fill.dst_vector + vector
    pixels = Mux(fill.mode == FillMode.POOL, fill.width >> 1,
                 fill.width << (fill.mode == FillMode.UP))
    bench.check(~write.valid | ((pixel < pixels) & (vector < fill.vectors)), "in the row")
    bench.check(~write.valid | (place < UNIT.row_words), "in memory")
    bench.check(~write.valid | ((write.p.address == place[:len(write.p.address)])
                                & (write.p.bank == pixel % UNIT.banks)), "at its place")
    bench.check(~write.valid | dut.engine.i.valid, "of an instruction")
    bench.cover(write.valid & (pixel == 5) & (vector == 0) & (place == UNIT.row_words - 1))


@prove((FillEngine.elaborate, "credits.eq(credits - taken +", "credits.eq(credits +"),
       steps=24, slow=True)
def queue_never_overflows(bench):
    """No vector arrives without a place in the queue, whoever refuses whatever."""
    dut, _ = engine(bench)
    bench.check(~dut.queue.w_en | dut.queue.w_rdy, "a place for each")
    bench.cover(dut.queue.level == dut.queue.depth)
