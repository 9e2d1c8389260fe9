"""Product of two small numbers, one bit per cycle: for address checks that are worth no DSP."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class SerialProduct(wiring.Component):
    """``o = a * b`` by shifting and adding.

    A cycle with ``start`` takes the operands; from the following one ``done`` is low while bits of
    ``b`` are left, so the product is ready after as many cycles as ``b`` has significant bits.

    Parameters
    ----------
    a_bits, b_bits : int
        Operand widths.

    Members
    -------
    start : In(1)
    a, b  : In(a_bits), In(b_bits)
    done  : Out(1)
    o     : Out(a_bits + b_bits)
    """

    def __init__(self, *, a_bits, b_bits):
        for name, bits in (("a_bits", a_bits), ("b_bits", b_bits)):
            if bits < 1:
                raise ValueError(f"Product {name} must be positive, not {bits!r}")
        super().__init__({
            "start": In(1),
            "a":     In(a_bits),
            "b":     In(b_bits),
            "done":  Out(1),
            "o":     Out(a_bits + b_bits),
        })

    def elaborate(self, platform):
        m = Module()

        weight = Signal(len(self.o))        # a, shifted to the bit of b in turn
        left   = Signal(len(self.b))        # bits of b not added yet
        m.d.comb += self.done.eq(left == 0)

        with m.If(self.start):
            m.d.sync += [weight.eq(self.a), left.eq(self.b), self.o.eq(0)]
        with m.Elif(~self.done):
            m.d.sync += [weight.eq(weight << 1), left.eq(left >> 1)]
            with m.If(left[0]):
                m.d.sync += self.o.eq(self.o + weight)

        return m
