"""Properties of :class:`hw.compute.product.SerialProduct`."""

from amaranth import *

from hw.compute.product import SerialProduct
from hw.prove.bench import prove


@prove((SerialProduct.elaborate, "weight.eq(weight << 1)", "weight.eq(weight)"), slow=True)
def product_is_exact(bench):
    """When ``done``, ``o`` is the product of the operands at ``start``, here of 6 x 4 bits.

    On the way, ``o`` and what is left to add, in this order, sum to the product.
    """
    dut    = SerialProduct(a_bits=6, b_bits=4)
    inside = bench.inner(dut)
    weight, left = inside("weight"), inside("left")
    whole  = bench.register(10, "product")
    known  = bench.register(1, "known")
    with bench.m.If(dut.start):
        bench.m.d.sync += [known.eq(1), whole.eq(added(C(0, 10), dut.a, dut.b))]
    bench.check(~known | (added(dut.o, weight, left) == whole), "done and to do are the product")
    bench.check(~known | ~dut.done | (dut.o == whole), "o = a * b")
    bench.cover(known & dut.done & (dut.o == 63 * 15))


def added(total, a, b):
    """``total + a * b`` in 10 bits, bit by bit of ``b``, as the block does it."""
    for number, bit in enumerate(b):
        total = Mux(bit, (total + (a << number))[:10], total)
    return total


@prove((SerialProduct.elaborate, "left.eq(left >> 1)", "left.eq(left)"))
def product_ends(bench):
    """``done`` rises at most as many cycles after ``start`` as ``b`` has bits."""
    dut    = bench.block(SerialProduct(a_bits=12, b_bits=7))
    cycles = bench.register(4, "cycles")
    bench.m.d.sync += cycles.eq(Mux(dut.start | dut.done, 0, cycles + 1))
    bench.check(cycles <= 7, "seven cycles at most")
    bench.cover(cycles == 7)
