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
    is 1..47. Bit-exact with :func:`golden.arithmetic.requantise`.

    Takes one value per cycle; ``y`` belongs to the operands of :data:`LATENCY` enabled cycles
    before. A low ``enable`` freezes the lane. ``zero_out``, ``low`` and ``high`` are settings:
    they must hold while values are inside.

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

    def elaborate(self, platform):
        m = Module()

        biased       = Signal(signed(32))
        multiplier   = Signal(signed(16))
        shift        = Signal(6)
        product      = Signal(signed(48))
        product_drop = Signal(6)
        halves       = Signal(signed(48))
        raw          = Signal(signed(49))

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

                self.y.eq(Mux(raw < self.low, self.low, Mux(raw > self.high, self.high, raw))),
            ]

        return m
