"""The MAC array: every product and sum of a convolution happens here."""

from functools import reduce
from operator import add

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.compute.transform import PIXEL, PRODUCT, STEPS, WEIGHT

FAN_IN = 4
"""Addends per register stage of the adder tree: two levels of adders."""


def tree_stages(vector):
    """Register stages that bring ``vector`` products down to at most two partial sums."""
    stages = 0
    while vector > 2:
        vector = -(-vector // FAN_IN)
        stages += 1
    return stages


def latency(vector):
    """Cycles from a step to its sums."""
    return 3 + tree_stages(vector)


DEPTHWISE_LATENCY = 3
"""The same for depthwise sums, which do without the adder tree."""


class MacArray(wiring.Component):
    """``pixels`` x ``outputs`` dot products of ``vector`` bytes, accumulated over steps; or, with
    ``depthwise``, ``pixels`` x ``vector`` sums of ``taps`` products.

    Every step adds ``sum(x[p][o][c] * w[o][c] for c)`` to ``acc[p][o]``, where columns from
    ``taps`` on share the pixels of column 0. Every step with ``depthwise`` adds
    ``sum(x[p][o][c] * w[o][c] for o < taps)`` to ``depthwise_acc[p][c]``, out of the same products.
    The step marked ``first`` clears the sums before. They are exact in 32 bits and wrap around; the
    golden function is :func:`golden.arithmetic.convolve` before its bias.

    With ``transform``, ``step`` says what a step's sum adds to ``acc[p][o]``, pixel y0 of
    :mod:`hw.compute.transform`, and to ``odd_acc[p][o]``, pixel y1: that of step 0 goes whole to
    the former, as all of an untransformed layer do.

    Takes a step in every cycle with ``valid``, and never stalls. Operands, products, partial sums
    and accumulators are registers that run freely, so no enable spans the array, and an operand
    drives at most ``max(pixels, outputs)`` multipliers. ``latency`` cycles after a step marked
    ``last`` (depthwise: ``depthwise_latency``), ``done`` is high and the sums complete, for one
    cycle. ``depthwise`` is a setting: it must hold while steps are inside.

    Parameters
    ----------
    pixels, vector, outputs, taps : int
    transform : bool

    Attributes
    ----------
    latency, depthwise_latency : int

    Members
    -------
    depthwise : In(1)
    valid, first, last : In(1)
    step : In(range(STEPS))
        With ``transform`` only.
    x : In(8).array(pixels, taps, vector)
    w : In(signed(8)).array(outputs, vector)
        With ``transform``, ``PIXEL`` and ``WEIGHT`` instead.
    done : Out(1)
    acc : Out(signed(32)).array(pixels, outputs)
        Not depthwise only; nothing useful else.
    odd_acc : Out(signed(32)).array(pixels, outputs)
        With ``transform``, in transformed layers only.
    depthwise_acc : Out(signed(32)).array(pixels, vector)
        Depthwise only.
    """

    def __init__(self, *, pixels, vector, outputs, taps, transform=False):
        for name, value in (("pixels", pixels), ("vector", vector), ("outputs", outputs)):
            if value < 1:
                raise ValueError(f"MAC array {name} must be positive, not {value!r}")
        if not 1 <= taps <= min(outputs, FAN_IN - 1):
            raise ValueError(f"MAC array taps must be 1 to {min(outputs, FAN_IN - 1)}, "
                             f"not {taps!r}")
        self.pixels  = pixels
        self.vector  = vector
        self.outputs = outputs
        self.taps    = taps
        self.transform = transform
        self.x_shape = PIXEL if transform else unsigned(8)
        self.w_shape = WEIGHT if transform else signed(8)
        self.latency = latency(vector)
        self.depthwise_latency = DEPTHWISE_LATENCY

        super().__init__({
            "depthwise":     In(1),
            "valid":         In(1),
            "first":         In(1),
            "last":          In(1),
            "x":             In(self.x_shape).array(pixels, taps, vector),
            "w":             In(self.w_shape).array(outputs, vector),
            "done":          Out(1),
            "acc":           Out(signed(32)).array(pixels, outputs),
            "depthwise_acc": Out(signed(32)).array(pixels, vector),
            **({"step":      In(range(STEPS)),
                "odd_acc":   Out(signed(32)).array(pixels, outputs)} if transform else {}),
        })

    def elaborate(self, platform):
        m = Module()

        def register(value, shape, name):
            result = Signal(shape, name=name, reset_less=True)
            m.d.sync += result.eq(value)
            return result

        product_shape = PRODUCT if self.transform else signed(16)
        x = [[[register(value, self.x_shape, f"x_{p}_{o}_{c}") for c, value in enumerate(column)]
              for o, column in enumerate(pixel)] for p, pixel in enumerate(self.x)]
        w = [[register(value, self.w_shape, f"w_{o}_{c}") for c, value in enumerate(row)]
             for o, row in enumerate(self.w)]

        products = {(p, o): [register(x[p][o if o < self.taps else 0][c] * w[o][c], product_shape,
                                      f"product_{p}_{o}_{c}") for c in range(self.vector)]
                    for p in range(self.pixels) for o in range(self.outputs)}

        sums = dict(products)
        for level in range(tree_stages(self.vector)):
            shape = signed(product_shape.width + 2 * (level + 1))
            for (p, o), values in sums.items():
                chunks = [values[at:at + FAN_IN] for at in range(0, len(values), FAN_IN)]
                sums[p, o] = [register(reduce(add, chunk), shape, f"sum_{level}_{p}_{o}_{index}")
                              for index, chunk in enumerate(chunks)]

        # Markers reach the accumulators together with the sums of their step.
        step   = self.step if self.transform else Const(0, 2)
        stages = [Cat(self.valid, self.valid & self.first, self.valid & self.last, step)]
        for stage in range(self.latency - 1):
            following = Signal(len(stages[0]), name=f"markers_{stage}")
            m.d.sync += following.eq(stages[-1])
            stages.append(following)
        valid, first, last, *step = stages[-1]
        early_valid, early_first, early_last, *_ = stages[self.depthwise_latency - 1]

        def added(accumulate, first, acc, addend):
            """``acc`` after a cycle; 32 bits wide before the mux, so that compiled simulators make
            one branch of all accumulators."""
            total = Mux(first, 0, acc) + addend
            return Mux(accumulate, total[:32].as_signed(), acc)

        # Muxes instead of conditions: compiled simulators run them without copying the register.
        m.d.sync += self.done.eq(Mux(self.depthwise, early_last, last))
        for (p, o), values in sums.items():
            acc = Signal(signed(32), name=f"acc_{p}_{o}", reset_less=True)
            total = reduce(add, values)
            m.d.comb += self.acc[p][o].eq(acc)
            if self.transform:
                total, odd = self._to_pixels(m, total, step, name=f"{p}_{o}")
                odd_acc = Signal(signed(32), name=f"odd_acc_{p}_{o}", reset_less=True)
                m.d.sync += odd_acc.eq(added(valid, first, odd_acc, odd))
                m.d.comb += self.odd_acc[p][o].eq(odd_acc)
            m.d.sync += acc.eq(added(valid, first, acc, total))

        adds = Signal()
        m.d.comb += adds.eq(early_valid & self.depthwise)
        for p in range(self.pixels):
            for c in range(self.vector):
                acc  = Signal(signed(32), name=f"depthwise_acc_{p}_{c}", reset_less=True)
                taps = [products[p, o][c] for o in range(self.taps)]
                m.d.sync += acc.eq(added(adds, early_first, acc, reduce(add, taps)))
                m.d.comb += self.depthwise_acc[p][c].eq(acc)

        return m

    @staticmethod
    def _to_pixels(m, total, step, *, name):
        """What the sum of a step adds to y0 and to y1."""
        odd, halves = step          # steps 1 and 3; steps 2 and 3
        found = Signal(signed(32), name=f"total_{name}")
        half  = Signal(signed(32), name=f"half_{name}")
        plus  = Signal(signed(32), name=f"odd_total_{name}")
        m.d.comb += [
            found.eq(total),
            half.eq(found >> 1),
            plus.eq(Mux(halves, half, Mux(odd, found, 0))),
        ]
        y0 = Mux(halves, half + (found[0] & ~odd), Mux(odd, 0, found))
        return y0, Mux(odd, -plus, plus)
