"""Properties of :class:`hw.compute.sequence.StepSequencer`: every step is its closed form."""

from types import SimpleNamespace

from amaranth import *
from amaranth.utils import exact_log2

from hw.compute.sequence import StepSequencer
from hw.compute.transform import COLUMNS, DOUBLED_STEPS, OUTPUTS, STEPS
from hw.config import UnitConfig
from hw.prove.bench import prove

UNIT = UnitConfig(pixels=2, outputs=4, drain=4, row_words=64, weight_words=64, params=8,
                  transform=True)
"""Two pixels in four banks."""


def sequencer(bench, *, depthwise=0, transformed=0):
    """The sequencer with a layer and an instruction that hold: kernels of up to 3 x 3, 3 vectors,
    3 groups, padding and 15 pixels, any stride; started at any time while it is not busy.

    Returns it, and its loop counters with what a step's addresses are made of.
    """
    dut    = StepSequencer(unit=UNIT)
    inside = bench.inner(dut)
    layer, conv = dut.layer, dut.conv
    settings = Cat(layer.as_value(), conv.as_value(), dut.more_rows.as_value())
    bench.assume(~dut.busy | (settings == bench.before(settings)))
    bench.assume(~(dut.start & dut.busy))
    for value, most in ((layer.kernel_h, 3), (layer.kernel_w, 3), (layer.vectors, 3),
                        (conv.groups, 3), (layer.width_out, 15)):
        bench.assume((value != 0) & (value <= most))
    bench.assume(layer.pad_left < 4)
    bench.assume(layer.depthwise == depthwise)
    bench.assume(layer.transformed == transformed)
    if transformed:
        bench.assume((layer.kernel_w == len(COLUMNS)) & ~layer.stride2 & ~layer.clamp)
        bench.assume(layer.doubled <= layer.vectors)
    names = ("vec column row group block turn word offset phase weight row_word row_offset "
             "tap_offset block_offset row_phase last_block fresh")
    return dut, SimpleNamespace(**{name: inside(name) for name in names.split()})


def times(value, count, most):
    """``value * count`` for a ``count`` of at most ``most``, as a sum."""
    return sum(Mux(count > number, value, 0) for number in range(most))


def closed_form(bench, dut, at, *, window, turn, turns, ends, kernel, begins):
    """What every step must be while the sequencer is busy, as a function of the loop counters.

    ``window`` is how many pixels its first pixel lies behind that of its group of pixels, ``turn``
    of ``turns`` its weight word in its kernel row, which ``ends`` with it; ``kernel`` says whether
    the counters of a kernel row are in their ranges, ``begins`` at which offset its kernel column
    does.
    """
    layer, conv, banks = dut.layer, dut.conv, UNIT.banks
    doubles = layer.stride2 | layer.transformed
    begin   = (at.block << exact_log2(UNIT.pixels) << doubles) - layer.pad_left
    pixel   = bench.named((begin + window).as_signed(), "pixel")
    group   = Mux(layer.depthwise, at.group, 0)
    number  = times(times(at.group, layer.kernel_h, 3) + at.row, turns, 9) + turn
    blocks  = Mux(layer.transformed, (layer.width_out - 1) >> exact_log2(UNIT.pixels) + 1,
                  (layer.width_out - 1) >> exact_log2(UNIT.pixels))
    bits    = exact_log2(banks)
    for holds, text in (
            ((at.group < conv.groups) & (at.row < layer.kernel_h) & kernel, "within the loops"),
            ((at.last_block == blocks) & (at.block <= at.last_block), "within the row"),
            (Cat(at.row_phase, at.row_word).as_signed() == begin, "first pixel of the group"),
            (Cat(at.phase, at.word).as_signed() == pixel, "first pixel of the step"),
            (at.block_offset == times(at.row_word, layer.vectors, 3), "offset of the group"),
            (at.row_offset == times(at.row_word, layer.vectors, 3) + group, "of the kernel row"),
            (at.tap_offset == begins, "of the kernel column"),
            (at.offset == times(at.word, layer.vectors, 3) + at.vec + group, "of the step"),
            (at.fresh == ((turn == 0) & (at.row == 0) & (at.turn == 0)), "fresh"),
            (at.weight == conv.weight_base + number, "weights follow each other")):
        bench.check(~dut.busy | holds, text)

    # One cycle later, in the registers.
    before = bench.before
    bench.check(dut.valid == before(dut.issues), "valid")
    rows   = [*conv.rows, *dut.more_rows]
    row    = Mux(at.row == 0, rows[0].base, Mux(at.row == 1, rows[1].base, rows[2].base))
    exists = Mux(at.row == 0, rows[0].valid, Mux(at.row == 1, rows[1].valid, rows[2].valid))
    bench.check(~dut.valid | (dut.weight_address == before(
        (conv.weight_base + number)[:len(dut.weight_address)])), "weight address")
    bench.check(~dut.valid | (dut.rotation == before(pixel[:bits])), "rotation")
    for bank in range(banks):
        mine = Signal(signed(16), name=f"mine_{bank}")      # the pixel that this bank reads
        bench.m.d.comb += mine.eq(pixel + (bank - pixel)[:bits])
        here = (row + times((mine >> bits), layer.vectors, 3) + at.vec + group)
        inner = exists & (mine >= 0) & (mine < layer.width_in)
        bench.check(~dut.valid | (dut.inside[bank] == before(inner)), f"bank {bank} is inside")
        bench.check(~dut.valid | (dut.left[bank] == before(mine < 0)), f"bank {bank} is left")
        bench.check(~dut.valid | ~before(inner) | (
            dut.row_address[bank] == before(here[:len(dut.row_address[bank])])), f"bank {bank}")
    last = ends & (at.row == layer.kernel_h - 1)
    bench.check(~dut.valid | (dut.last == before(last)), "last of a sum")
    first = (turn == 0) & (at.row == 0) & (at.turn == 0)
    bench.check(~dut.valid | (dut.first == before(first)), "first of a sum")
    done = (last & (at.group == conv.groups - 1) & (at.block == at.last_block)
            & dut.issues)
    bench.check(~before(dut.busy) | (dut.busy == ~before(done)), "busy until the last step")
    bench.check(~dut.busy | (dut.issues == (dut.room | ~last)), "no bubble")
    bench.cover(dut.valid & dut.last & before(at.block == 2) & (at.group == 1))


@prove((StepSequencer.elaborate, "tap_offset + Mux(next_phase[bits], layer.vectors, 0)",
        "tap_offset + Mux(next_phase[bits], 1, 0)"), method="induction", depth=2, slow=True)
def dense_steps_are_their_closed_form(bench):
    """Dense: step (block, group, ky, kx, v) reads pixel ``block * pixels * stride - pad + kx`` and
    the next ones, vector v of word ``base[ky] + pixel // banks * vectors``; weight word
    ``weight_base + ((group * kh + ky) * kw + kx) * vectors + v``; every step once, in this order,
    without a bubble."""
    dut, at = sequencer(bench)
    layer   = dut.layer
    turn    = times(at.column, layer.vectors, 3) + at.vec
    turns   = times(layer.kernel_w, layer.vectors, 3)
    closed_form(bench, dut, at, window=at.column, turn=turn, turns=turns, ends=turn == turns - 1,
                begins=at.offset - at.vec,
                kernel=(at.column < layer.kernel_w) & (at.vec < layer.vectors) & (at.turn == 0))


@prove((StepSequencer.elaborate, "group_offset.eq(row_offset + layer.depthwise)",
        "group_offset.eq(row_offset)"), method="induction", depth=2, slow=True)
def depthwise_steps_are_their_closed_form(bench):
    """Depthwise: step (block, v, ky, chunk of kernel columns) likewise, with the vector in the
    group's place, and one weight word for each chunk."""
    dut, at = sequencer(bench, depthwise=1)
    layer   = dut.layer
    taps    = [UNIT.depthwise_taps(1), UNIT.depthwise_taps(2)]

    def chunks(columns):
        return Mux(layer.stride2, (columns + taps[1] - 1) // taps[1],
                   (columns + taps[0] - 1) // taps[0])

    bench.assume(dut.conv.groups == layer.vectors)
    chunk   = chunks(at.column)
    turns   = chunks(layer.kernel_w)
    whole   = times(chunk, Mux(layer.stride2, taps[1], taps[0]), max(taps)) == at.column
    closed_form(bench, dut, at, window=at.column, turn=chunk, turns=turns, ends=chunk == turns - 1,
                begins=at.offset,
                kernel=(at.column < layer.kernel_w) & whole & (at.vec == 0) & (at.turn == 0))


@prove((StepSequencer.elaborate, "again & (turn == DOUBLED_STEPS - 1)", "C(0)"),
       method="induction", depth=2, slow=True)
def transformed_steps_are_their_closed_form(bench):
    """Transformed: step (block, group, ky, v, s) reads pixel ``2 * block * pixels - pad``, from s =
    1 on two more, and one of three weight words of its vector; the first ``doubled`` vectors have
    three steps, others four."""
    dut, at = sequencer(bench, transformed=1)
    layer   = dut.layer
    final   = Mux(at.vec < layer.doubled, DOUBLED_STEPS, STEPS) - 1
    word    = times(at.vec, len(COLUMNS), 3) + Mux(at.turn == STEPS - 1, STEPS - 2, at.turn)
    closed_form(bench, dut, at, window=Mux(at.turn == 0, 0, OUTPUTS), turn=word,
                turns=times(len(COLUMNS), layer.vectors, 3),
                ends=(at.vec == layer.vectors - 1) & (at.turn == final),
                begins=times(at.row_word, layer.vectors, 3) + at.vec,
                kernel=(at.column == 0) & (at.vec < layer.vectors) & (at.turn <= final))
