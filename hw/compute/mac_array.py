"""The MAC array: every product and sum of a convolution happens here."""

from functools import reduce
from operator import add

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

FAN_IN = 4
"""Addends per register stage of the adder tree: two levels of adders."""


def tree_stages(vector):
    """Register stages that bring ``vector`` products down to at most two partial sums."""
    stages = 0
    while vector > 2:
        vector = -(-vector // FAN_IN)
        stages += 1
    return stages


class MacArray(wiring.Component):
    """``pixels`` x ``outputs`` dot products of ``vector`` bytes, accumulated over steps.

    Every step adds ``sum(x[p][c] * w[o][c] for c)`` to ``acc[p][o]``, which the step marked
    ``first`` clears before. Sums are exact in 32 bits and wrap around; the golden function is
    :func:`golden.arithmetic.convolve` before its bias.

    Takes a step in every cycle with ``valid``, and never stalls. Operands, products, partial sums
    and accumulators are registers that run freely, so no enable spans the array, and an operand
    drives at most ``max(pixels, outputs)`` multipliers. ``latency`` cycles after a step marked
    ``last``, ``done`` is high and ``acc`` complete, for one cycle.

    Parameters
    ----------
    pixels, vector, outputs : int

    Attributes
    ----------
    latency : int

    Members
    -------
    valid, first, last : In(1)
    x : In(8).array(pixels, vector)
    w : In(signed(8)).array(outputs, vector)
    done : Out(1)
    acc : Out(signed(32)).array(pixels, outputs)
    """

    def __init__(self, *, pixels, vector, outputs):
        for name, value in (("pixels", pixels), ("vector", vector), ("outputs", outputs)):
            if value < 1:
                raise ValueError(f"MAC array {name} must be positive, not {value!r}")
        self.pixels  = pixels
        self.vector  = vector
        self.outputs = outputs
        self.latency = 3 + tree_stages(vector)

        super().__init__({
            "valid": In(1),
            "first": In(1),
            "last":  In(1),
            "x":     In(8).array(pixels, vector),
            "w":     In(signed(8)).array(outputs, vector),
            "done":  Out(1),
            "acc":   Out(signed(32)).array(pixels, outputs),
        })

    def elaborate(self, platform):
        m = Module()

        def register(value, shape, name):
            result = Signal(shape, name=name, reset_less=True)
            m.d.sync += result.eq(value)
            return result

        x = [[register(value, 8, f"x_{p}_{c}") for c, value in enumerate(row)]
             for p, row in enumerate(self.x)]
        w = [[register(value, signed(8), f"w_{o}_{c}") for c, value in enumerate(row)]
             for o, row in enumerate(self.w)]

        sums = {(p, o): [register(x[p][c] * w[o][c], signed(16), f"product_{p}_{o}_{c}")
                         for c in range(self.vector)]
                for p in range(self.pixels) for o in range(self.outputs)}

        for level in range(tree_stages(self.vector)):
            shape = signed(16 + 2 * (level + 1))
            for (p, o), values in sums.items():
                chunks = [values[at:at + FAN_IN] for at in range(0, len(values), FAN_IN)]
                sums[p, o] = [register(reduce(add, chunk), shape, f"sum_{level}_{p}_{o}_{index}")
                              for index, chunk in enumerate(chunks)]

        # Markers reach the accumulators together with the sums of their step.
        markers = Cat(self.valid, self.valid & self.first, self.valid & self.last)
        for stage in range(self.latency - 1):
            following = Signal(3, name=f"markers_{stage}")
            m.d.sync += following.eq(markers)
            markers = following
        valid, first, last = markers

        # Muxes instead of conditions: compiled simulators run them without copying the register.
        m.d.sync += self.done.eq(last)
        for (p, o), values in sums.items():
            acc = Signal(signed(32), name=f"acc_{p}_{o}", reset_less=True)
            m.d.sync += acc.eq(Mux(valid, Mux(first, 0, acc) + reduce(add, values), acc))
            m.d.comb += self.acc[p][o].eq(acc)

        return m
