"""Requantisation: an exact 32-bit sum becomes the next layer's byte."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.isa import Requant

LATENCY = 4
"""Enabled cycles from :class:`Requantizer`'s operands to its byte."""


class Requantizer(wiring.Component):
    """One lane of ``y = clamp((((acc + bias) * m + 2**(s-1)) >> s) + zero_out, low, high)``.

    ``acc + bias`` wraps to 32 bits, everything after it is exact; halves round up. The shift ``s``
    is 1..47. With ``bounds``, ``requant.bound`` stands for ``low``, which is 0 then, or with
    ``requant.ceiling`` of ``high``. Bit-exact with :func:`golden.arithmetic.requantise`.

    Takes one value per cycle; ``y`` belongs to the operands of :data:`LATENCY` enabled cycles
    before. A low ``enable`` freezes the lane. ``zero_out``, ``low`` and ``high`` are settings:
    they must hold while values are inside.

    Parameters
    ----------
    bounds : bool
        Whether channels have bounds of their own.

    Members
    -------
    enable : In(1)
    acc : In(signed(32))
    requant : In(hw.isa.Requant)
    zero_out, low, high : In(8)
    y : Out(8)
    """

    enable:   In(1)
    acc:      In(signed(32))
    requant:  In(Requant)
    zero_out: In(8)
    low:      In(8)
    high:     In(8)
    y:        Out(8)

    def __init__(self, bounds=False):
        self.bounds = bounds
        super().__init__()

    def elaborate(self, platform):
        m = Module()

        biased       = Signal(signed(32))
        multiplier   = Signal(signed(16))
        shift        = Signal(6)
        product      = Signal(signed(48))
        product_drop = Signal(6)
        halves       = Signal(signed(48))
        raw          = Signal(signed(49))
        low          = Signal(8)
        high         = Signal(8)

        m.d.comb += [low.eq(self.low), high.eq(self.high)]
        if self.bounds:
            bound, ceiling = self.requant.bound, self.requant.ceiling
            for stage in range(1, LATENCY):     # beside the value
                bound, ceiling = _later(m, self.enable, stage, bound, ceiling)
            with m.If(ceiling):
                m.d.comb += high.eq(bound)
            with m.Else():
                m.d.comb += low.eq(self.low | bound)

        # (p + 2**(s-1)) >> s equals ((p >> (s-1)) + 1) >> 1, which needs no variable addend.
        m.d.comb += raw.eq(((halves + 1) >> 1) + self.zero_out)

        with m.If(self.enable):
            m.d.sync += [
                biased.eq(self.acc + self.requant.bias),
                multiplier.eq(self.requant.multiplier),
                shift.eq(self.requant.shift),

                product.eq(biased * multiplier),
                product_drop.eq(shift - 1),

                halves.eq(product >> product_drop),

                self.y.eq(Mux(raw < low, low, Mux(raw > high, high, raw))),
            ]

        return m


def _later(m, enable, stage, bound, ceiling):
    """Both, an enabled cycle later."""
    later = Signal(8, name=f"bound_{stage}"), Signal(name=f"ceiling_{stage}")
    with m.If(enable):
        m.d.sync += [later[0].eq(bound), later[1].eq(ceiling)]
    return later
