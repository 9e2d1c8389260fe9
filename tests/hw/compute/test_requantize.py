import random

import pytest
from amaranth.sim import Simulator

from hw.compute.requantize import LATENCY, Requantizer


def expected(acc, bias, multiplier, shift, zero_out, low, high):
    biased = (acc + bias + 2**31) % 2**32 - 2**31
    return min(max((biased * multiplier + 2**(shift - 1)) // 2**shift + zero_out, low), high)


def run(cases, *, zero_out, low, high, stall=0.0):
    dut = Requantizer()
    got = []

    async def bench(ctx):
        ctx.set(dut.zero_out, zero_out)
        ctx.set(dut.low, low)
        ctx.set(dut.high, high)
        for acc, bias, multiplier, shift in cases + [(0, 0, 0, 1)] * LATENCY:
            ctx.set(dut.acc, acc)
            ctx.set(dut.requant, {"bias": bias, "multiplier": multiplier, "shift": shift})
            while random.random() < stall:
                ctx.set(dut.enable, 0)
                await ctx.tick()
            ctx.set(dut.enable, 1)
            got.append(ctx.get(dut.y))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    assert got[LATENCY:] == [expected(*case, zero_out, low, high) for case in cases]
    return got[LATENCY:]


def test_halves_round_up():
    assert run([(acc, 0, 1, 1) for acc in (-3, -2, -1, 0, 1, 2, 3)],
               zero_out=100, low=0, high=255) == [99, 99, 100, 100, 101, 101, 102]


def test_bias_wraps_around_and_bounds_clamp():
    assert run([(2**31 - 1, 1, 1, 24), (-2**31, -1, 1, 24), (50, 0, 2, 1), (-50, 0, 2, 1)],
               zero_out=7, low=3, high=40) == [3, 40, 40, 3]


def test_largest_product_and_shift():
    cases = [(-2**31, 0, -2**15, shift) for shift in (1, 39, 40, 46, 47)]
    assert run(cases, zero_out=0, low=0, high=255) == [255, 128, 64, 1, 1]


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_against_exact_arithmetic(stall):
    random.seed(1)
    for _ in range(6):
        low, high = sorted(random.choices(range(256), k=2))
        cases = []
        for _ in range(60):
            size = random.randint(1, 31)
            cases.append((random.randint(-2**size, 2**size - 1), random.randint(-2**31, 2**31 - 1)
                          >> random.randint(0, 31), random.randint(-2**15, 2**15 - 1),
                          random.randint(max(1, size + 6 - 8), 47)))
        run(cases, zero_out=random.randrange(256), low=low, high=high, stall=stall)
