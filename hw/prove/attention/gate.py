"""Properties of :class:`hw.attention.gate.GateEngine`: what it reads and writes."""

from dataclasses import replace
from types import SimpleNamespace

from amaranth import *

from hw.attention.gate import GateEngine
from hw.isa import Opcode
from hw.prove.bench import prove
from hw.prove.compute.sequence import times
from hw.prove.small import SMALL

CONFIG = replace(SMALL, gate_lanes=SMALL.decoder.outputs)
"""A vector in two steps."""


def engine(bench):
    """A gate engine with instructions of up to 5 x 2 vectors at any addresses, in a memory that
    answers two cycles after a request and refuses as it likes.

    Returns it, and its instruction and ports.
    """
    dut = bench.block(GateEngine(CONFIG))
    gate, read = dut.engine.i.p.gate, dut.read_skip
    bench.driven(read.data_valid)
    bench.m.d.comb += read.data_valid.eq(
        bench.before(bench.before(read.address.valid & read.address.ready)))
    bench.assume(bench.kept(dut.engine.i.valid, dut.engine.i.ready, dut.engine.i.p))
    bench.assume(~dut.engine.i.valid | (dut.engine.i.p.sync.opcode == Opcode.GATE))
    bench.assume((gate.width < 6) & (gate.vectors < 3) & (gate.dst_stride < 4))
    return dut, SimpleNamespace(gate=gate, read=read.address, write=dut.write)


@prove((GateEngine.elaborate, "| alpha_bad", ""), steps=14, slow=True)
def reads_stay_in_the_row(bench):
    """Every on-chip read lies in the skip row or, ``wide``, in the row of alpha, and both lie in
    on-chip memory; every read of the alpha store that is used lies in its row and in the store.
    Rows of up to 5 pixels of 2 vectors, at any addresses."""
    dut, at = engine(bench)
    gate, read = at.gate, at.read
    pixels = Mux(gate.same, gate.width, (gate.width + 1) >> 1)
    size, sized = times(gate.width, gate.vectors, 2), times(pixels, gate.vectors, 2)
    skip   = (read.p >= gate.skip_base) & (read.p < gate.skip_base + size)
    alpha  = gate.wide & (read.p >= gate.alpha_base) & (read.p < gate.alpha_base + sized)
    bench.check(~read.valid | skip | alpha, "in a row")
    bench.check(~read.valid | ((gate.skip_base + size <= SMALL.onchip_words) & (
        ~gate.wide | (gate.alpha_base + sized <= SMALL.onchip_words))), "in on-chip memory")
    bench.check(~read.valid | gate.wide | (
        (dut.read_alpha.address == gate.alpha_base) & (gate.alpha_base < SMALL.alpha_words)),
        "in the alpha store")           # a word has the bytes of 8 pixels
    bench.check(~read.valid | dut.engine.i.valid, "of an instruction")
    bench.cover(read.valid & alpha & ~skip & (read.p == gate.alpha_base + sized - 1) & gate.same)


@prove((GateEngine.elaborate, "| (dst_end > decoder.row_words)", ""), steps=20, slow=True)
def writes_stay_in_the_row(bench):
    """Every vector that is written lies at the place of its pixel and vector, and in the decoder's
    row memory: ``dst_base + x // banks * dst_stride + dst_vector + v``."""
    dut, at = engine(bench)
    gate, write, banks = at.gate, at.write, SMALL.decoder.banks
    pixel, vector = dut.tap.p.column, dut.tap.p.channel // SMALL.vector
    place  = gate.dst_base + times(gate.dst_stride, pixel // banks, 1) + gate.dst_vector + vector
    bench.check(~write.valid | ((pixel < gate.width) & (vector < gate.vectors)), "in the row")
    bench.check(~write.valid | (place < SMALL.decoder.row_words), "in memory")
    bench.check(~write.valid | ((write.p.address == place[:len(write.p.address)])
                                & (write.p.bank == pixel % banks)), "at its place")
    bench.check(~write.valid | dut.engine.i.valid, "of an instruction")
    bench.cover(write.valid & (place == SMALL.decoder.row_words - 1))


@prove((GateEngine.elaborate, "free.eq(free - (issue & (part == 0))", "free.eq(free"),
       steps=28, slow=True)
def queues_never_overflow(bench):
    """No skip vector arrives without a place in the queue, and no result leaves the requantisers
    without one in theirs: nothing behind the first step ever waits."""
    dut, _ = engine(bench)
    for queue, text in ((dut.queue, "a skip vector"), (dut.results, "a result")):
        bench.check(~queue.w_en | queue.w_rdy, f"a place for {text}")
    bench.cover(dut.results.level == dut.slots - 1)
