"""F(2,3): two neighbouring pixels of a convolution three columns wide, in four products.

Of four pixels d0..d3 of an input row and a kernel row g0..g2, a convolution makes
y0 = d0 g0 + d1 g1 + d2 g2 and y1 = d1 g0 + d2 g1 + d3 g2, six products. One step each makes

    step  pixel    weight         y0         y1
    0     d0 - d2  g0             + m
    1     d1 - d3  g2                        - m
    2     d1 + d2  g0 + g1 + g2   + m / 2    + m / 2
    3     d2 - d1  g0 - g1 + g2   + m / 2    - m / 2

and since both weights of steps 2 and 3, and both pixels, are odd or even together, so are both
products, and sums of them over channels: halving both downwards, and adding the lost bit once to
y0, loses nothing. Where d1 = d2, as in a row that was doubled by nearest upsampling, step 3 adds
nothing and is left out.

Bounds: a pixel of 0..255 becomes one of -255..510, a weight of -128..127 one of -384..382, and no
product exceeds 510 * 384 = 195,840 in magnitude. Sums to y0 and y1 are exact modulo 2**32, as
those of the untransformed convolution are, so accumulators need no more bits than these.
(Winograd's minimal filtering, S. Winograd, Arithmetic Complexity of Computations, 1980.)
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

OUTPUTS = 2
"""Neighbouring pixels that a lane makes."""

STEPS = 4
"""Of one kernel row and input vector."""

DOUBLED_STEPS = 3
"""The same where pixels come in equal pairs."""

COLUMNS = (0, 2, 1)
"""Kernel columns, in the order in which steps 0, 1 and 2 read their weights; step 3 reads none."""

PIXEL   = signed(10)
WEIGHT  = signed(10)
PRODUCT = signed(19)


class PixelTransform(wiring.Component):
    """The pixels of every step, from two neighbouring windows of a row.

    Step 0 is fetched with the window that begins at pixel d0 of lane 0, and steps 1 and 2 with the
    one that begins two pixels further on; lane ``p`` makes pixels ``2 p`` and ``2 p + 1``. ``step``
    is that of the window at hand, and ``x`` belongs to the step that was at hand in the cycle
    before. Steps follow each other; steps 2 and 3 may wait, step 2 with its window at hand.

    Parameters
    ----------
    pixels, vector : int

    Members
    -------
    step : In(range(STEPS))
    window : In(vector * 8).array(2 * pixels)
    x : Out(PIXEL).array(pixels, vector)
    """

    def __init__(self, *, pixels, vector):
        self.pixels = pixels
        self.vector = vector
        super().__init__({
            "step":   In(range(STEPS)),
            "window": In(vector * 8).array(OUTPUTS * pixels),
            "x":      Out(PIXEL).array(pixels, vector),
        })

    def elaborate(self, platform):
        m = Module()

        turn = Signal.like(self.step)
        m.d.sync += turn.eq(self.step)
        loads, shifts, ends, adds, at_1 = (Signal(name=name) for name in (
            "loads", "shifts", "ends", "adds", "at_1"))
        m.d.comb += [
            loads.eq(self.step == 0),
            shifts.eq(turn == 0),           # d2 takes the place of d0, which has been used
            at_1.eq(turn == 1),
            adds.eq(turn == 2),
            ends.eq(turn == 3),
        ]
        for p in range(self.pixels):
            even, odd = (Signal(self.vector * 8, name=f"{name}_{p}", reset_less=True)
                         for name in ("even", "odd"))
            new_even, new_odd = self.window[OUTPUTS * p], self.window[OUTPUTS * p + 1]
            m.d.sync += [
                even.eq(Mux(loads | shifts, new_even, even)),
                odd.eq(Mux(loads, new_odd, odd)),
            ]
            left, right = (Signal(self.vector * 8, name=f"{name}_{p}")
                           for name in ("left", "right"))
            m.d.comb += [
                left.eq(Mux(shifts | ends, even, odd)),
                right.eq(Mux(shifts, new_even, Mux(at_1, new_odd, Mux(adds, even, odd)))),
            ]
            for c, x in enumerate(self.x[p]):
                a, b = left.word_select(c, 8), right.word_select(c, 8)
                m.d.comb += x.eq(Mux(adds, a + b, a - b))

        return m


class WeightTransform(wiring.Component):
    """The weights of every step, from kernel columns in the order of :data:`COLUMNS`.

    ``word`` is what steps 0 to 2 have read, and still there in step 3. ``w`` belongs to the same
    cycle. Steps follow each other; steps 2 and 3 may wait, with their word at hand.

    Parameters
    ----------
    outputs, vector : int

    Members
    -------
    step : In(range(STEPS))
    word : In(signed(8)).array(outputs, vector)
    w : Out(WEIGHT).array(outputs, vector)
    """

    def __init__(self, *, outputs, vector):
        self.outputs = outputs
        self.vector  = vector
        super().__init__({
            "step": In(range(STEPS)),
            "word": In(signed(8)).array(outputs, vector),
            "w":    Out(WEIGHT).array(outputs, vector),
        })

    def elaborate(self, platform):
        m = Module()

        first, second, plain, adds = (Signal(name=name) for name in (
            "first", "second", "plain", "adds"))
        m.d.comb += [
            first.eq(self.step == 0),
            second.eq(self.step == 1),
            plain.eq(~self.step[1]),
            adds.eq(self.step == 2),
        ]
        for o in range(self.outputs):
            for c in range(self.vector):
                word  = self.word[o][c]
                outer = Signal(signed(9), name=f"outer_{o}_{c}", reset_less=True)   # g0, g0 + g2
                m.d.sync += outer.eq(Mux(first, word, Mux(second, outer + word, outer)))
                m.d.comb += self.w[o][c].eq(Mux(plain, word, Mux(adds, outer + word,
                                                                 outer - word)))

        return m
