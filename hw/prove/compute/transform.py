"""Properties of :mod:`hw.compute.transform`, and of how the array adds up what it makes."""

from amaranth import *

from hw.compute.mac_array import MacArray
from hw.compute.transform import DOUBLED_STEPS, PRODUCT, STEPS, PixelTransform, WeightTransform
from hw.prove.bench import prove

FIRST, SECOND, PLUS, MINUS = range(STEPS)


def steps(bench, dut):
    """Steps as the sequencer makes them: each follows the one before; the third and fourth may
    wait; the fourth may be left out."""
    now, past = dut.step, bench.before(dut.step)
    begins    = now == FIRST
    waits     = past[1] & (begins | (now == past))
    bench.assume(Mux(bench.started, waits | ((past != MINUS) & (now == past + 1)), begins))
    return now, past


@prove((PixelTransform.elaborate, "Mux(adds, a + b, a - b)", "a - b"))
def pixels_are_those_of_every_step(bench):
    """For all pixels d0..d3, a cycle after its step was at hand: d0 - d2, d1 - d3, d1 + d2 and
    d2 - d1, also while a step waits and where the fourth is left out."""
    dut  = bench.block(PixelTransform(pixels=1, vector=1))
    now, past = steps(bench, dut)
    even, odd = dut.window
    d    = [bench.register(8, f"d{number}") for number in range(4)]
    late = Mux(past == FIRST, even, d[2]), Mux(past == FIRST, odd, d[3])
    with bench.m.If(now == FIRST):
        bench.m.d.sync += [d[0].eq(even), d[1].eq(odd)]
    with bench.m.If(now == SECOND):
        bench.m.d.sync += [d[2].eq(even), d[3].eq(odd)]
    bench.assume((now != PLUS) | ((even == d[2]) & (odd == d[3])))      # the same window
    x = dut.x[0][0]
    for step, wanted in ((FIRST, d[0] - late[0]), (SECOND, d[1] - d[3]), (PLUS, d[1] + d[2]),
                         (MINUS, d[2] - d[1])):
        bench.check(~bench.started | (past != step) | (x == wanted), f"step {step}")
    bench.cover((past == MINUS) & (x == -3) & (d[0] == 9))
    bench.cover((past == PLUS) & (now == FIRST) & (x == 510))


@prove((WeightTransform.elaborate, "Mux(second, outer + word, outer)", "Mux(second, word, outer)"))
def weights_are_those_of_every_step(bench):
    """For all weights g0, g1, g2: g0, g2, g0 + g1 + g2 and g0 - g1 + g2, also while a step
    waits."""
    dut = bench.block(WeightTransform(outputs=1, vector=1))
    now, past = steps(bench, dut)
    word = dut.word[0][0]
    g    = [bench.register(signed(8), f"g{number}") for number in range(3)]
    for step, number in ((FIRST, 0), (SECOND, 2), (PLUS, 1)):
        with bench.m.If(now == step):
            bench.m.d.sync += g[number].eq(word)
    bench.assume(((now != MINUS) & ((now != PLUS) | (past != PLUS))) | (word == g[1]))
    for step, wanted in ((FIRST, word), (SECOND, word), (PLUS, g[0] + word + g[2]),
                         (MINUS, g[0] - word + g[2])):
        bench.check((now != step) | (dut.w[0][0] == wanted), f"step {step}")
    bench.cover((now == MINUS) & (dut.w[0][0] == -383))


class Accumulated(Elaboratable):
    """What the array adds to y0 and y1 in one step, from a sum of products."""

    def __init__(self, step, total):
        self.step, self.total = step, total
        self.y0, self.y1 = (Signal(signed(34), name=name) for name in ("y0", "y1"))

    def elaborate(self, platform):
        m = Module()
        y0, y1 = MacArray._to_pixels(m, self.total, self.step, name="sum")
        m.d.comb += [self.y0.eq(y0), self.y1.eq(y1)]
        return m


@prove((MacArray._to_pixels, "half + (found[0] & ~odd)", "half"), slow=True)
def four_steps_make_two_pixels(bench):
    """Four sums over any channels, p0 = y0's, p1 = y1's and two of the same last bit, add up to
    p0 + (p2 + p3) / 2 and (p2 - p3) / 2 - p1 exactly: what both halves lose is added once. Here
    for sums of 19 bits, whole products; with wider ones the same adders are longer."""
    sums, got = [bench.free(PRODUCT, f"p{number}") for number in range(STEPS)], []
    for number, total in enumerate(sums):
        added = Accumulated(C(number, 2), total)
        bench.m.submodules[f"step_{number}"] = added
        got.append(added)
    p0, p1, plus, minus = sums
    bench.assume(plus[0] == minus[0])
    y0, y1 = sum(each.y0 for each in got), sum(each.y1 for each in got)
    bench.check(2 * y0 == 2 * p0 + plus + minus, "y0")
    bench.check(2 * y1 == plus - minus - 2 * p1, "y1")
    bench.cover((y0 == -77) & (plus[0] == 1))


@prove((MacArray._to_pixels, "half + (found[0] & ~odd)", "half + odd"))
def doubled_pixels_need_three_steps(bench):
    """Where d1 = d2 the fourth product is zero and adds nothing to either pixel."""
    added = Accumulated(C(DOUBLED_STEPS, 2), total := bench.free(PRODUCT, "total"))
    bench.m.submodules.step = added
    bench.assume(total == 0)
    bench.check((added.y0 == 0) & (added.y1 == 0), "nothing")
    bench.cover(added.step == DOUBLED_STEPS)
