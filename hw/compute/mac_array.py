"""The MAC array: every product and sum of a convolution happens here."""

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

    Takes one step per cycle in which ``run`` is high, and is frozen while ``run`` is low. All
    operands, products, partial sums and accumulators are registers: ``latency`` running cycles
    after a step marked ``last``, ``done`` is high and ``acc`` complete, for one running cycle.
    Between the ``first`` and the ``last`` step of a sum no running cycle may lack ``valid``.
    An operand drives at most ``max(pixels, outputs)`` multipliers.

    Parameters
    ----------
    pixels, vector, outputs : int

    Attributes
    ----------
    latency : int
        Running cycles from a step to its ``acc``.

    Members
    -------
    run, valid, first, last : In(1)
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
            "run":   In(1),
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

        # Markers travel beside the data; each stage moves only when it holds a step.
        valid, first, last = self.valid, self.first, self.last

        def stage(name):
            nonlocal valid, first, last
            moves = Signal(name=f"{name}_moves")
            m.d.comb += moves.eq(self.run & valid)
            source = valid, first, last
            valid, first, last = (Signal(name=f"{name}_{mark}")
                                  for mark in ("valid", "first", "last"))
            with m.If(self.run):
                m.d.sync += [target.eq(mark) for target, mark
                             in zip((valid, first, last), source)]
            return moves, source

        def register(moves, value, shape, name):
            result = Signal(shape, name=name)
            with m.If(moves):
                m.d.sync += result.eq(value)
            return result

        moves, _ = stage("operand")
        x = [[register(moves, value, 8, f"x_{p}_{c}") for c, value in enumerate(row)]
             for p, row in enumerate(self.x)]
        w = [[register(moves, value, signed(8), f"w_{o}_{c}") for c, value in enumerate(row)]
             for o, row in enumerate(self.w)]

        moves, _ = stage("product")
        partial = {(p, o): [register(moves, x[p][c] * w[o][c], signed(16), f"product_{p}_{o}_{c}")
                            for c in range(self.vector)]
                   for p in range(self.pixels) for o in range(self.outputs)}

        for level in range(tree_stages(self.vector)):
            moves, _ = stage(f"tree_{level}")
            for (p, o), values in partial.items():
                chunks = [values[at:at + FAN_IN] for at in range(0, len(values), FAN_IN)]
                partial[p, o] = [register(moves, sum(chunk), signed(16 + 2 * (level + 1)),
                                          f"sum_{level}_{p}_{o}_{index}")
                                 for index, chunk in enumerate(chunks)]

        moves, (_, clears, _) = stage("total")
        for (p, o), values in partial.items():
            with m.If(moves):
                m.d.sync += self.acc[p][o].eq(Mux(clears, 0, self.acc[p][o]) + sum(values))
        m.d.comb += self.done.eq(valid & last)

        return m
