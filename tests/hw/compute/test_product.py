# amaranth: UnusedElaboratable=no
import random

import pytest
from amaranth.sim import Simulator

from hw.compute.product import SerialProduct


def test_products_take_as_many_cycles_as_b_has_bits():
    dut    = SerialProduct(a_bits=11, b_bits=7)
    chance = random.Random(1)
    pairs  = [(0, 0), (5, 0), (0, 127), (2047, 127), (2047, 1), (1, 64)]
    pairs += [(chance.randrange(2048), chance.randrange(128)) for _ in range(40)]

    async def drive(ctx):
        for a, b in pairs:
            ctx.set(dut.a, a)
            ctx.set(dut.b, b)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.b, chance.randrange(128))
            cycles = 0
            while not ctx.get(dut.done):
                await ctx.tick()
                cycles += 1
            assert (ctx.get(dut.o), cycles) == (a * b, b.bit_length())
            await ctx.tick().repeat(2)
            assert ctx.get(dut.o) == a * b, "the product must stay"

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(drive)
    sim.run()


@pytest.mark.parametrize("bits", [dict(a_bits=0, b_bits=3), dict(a_bits=3, b_bits=0)])
def test_widths_must_be_positive(bits):
    name = next(name for name, value in bits.items() if not value)
    with pytest.raises(ValueError, match=f"^Product {name} must be positive, not 0$"):
        SerialProduct(**bits)
