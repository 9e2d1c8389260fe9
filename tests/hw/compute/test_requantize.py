import random

import pytest
from amaranth.sim import Simulator

from hw.compute.requantize import LATENCY, Requantizer


def expected(acc, bias, multiplier, shift, zero_out, low, high):
    biased = (acc + bias + 2**31) % 2**32 - 2**31
    return min(max((biased * multiplier + 2**(shift - 1)) // 2**shift + zero_out, low), high)


def run(cases, *, zero_out, low, high, stall=0.0, bounds=None):
    """Of ``bounds``, if any, each case has one: its requantiser's fields."""
    dut = Requantizer(bounds is not None)
    got = []
    fields = bounds or [{}] * len(cases)

    async def bench(ctx):
        ctx.set(dut.zero_out, zero_out)
        ctx.set(dut.low, low)
        ctx.set(dut.high, high)
        for (acc, bias, multiplier, shift), more in zip(cases + [(0, 0, 0, 1)] * LATENCY,
                                                        fields + [{}] * LATENCY, strict=True):
            ctx.set(dut.acc, acc)
            ctx.set(dut.requant, {"bias": bias, "multiplier": multiplier, "shift": shift, **more})
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
    limits = [(low, high) if not more else (low, more["bound"]) if more["ceiling"]
              else (more["bound"], high) for more in fields]
    assert got[LATENCY:] == [expected(*case, zero_out, *pair)
                             for case, pair in zip(cases, limits, strict=True)]
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


def test_each_channel_has_its_bound():
    """A bound goes with its value, beside values with others and with none."""
    bounds = [{"bound": 60, "ceiling": 0}, {"bound": 60, "ceiling": 1}, {},
              {"bound": 0, "ceiling": 0}, {"bound": 0, "ceiling": 1}, {"bound": 255, "ceiling": 0}]
    got = [run([(value, 0, 2, 1)] * 6, zero_out=7, low=0, high=255, bounds=bounds)
           for value in (20, 70)]
    assert got == [[60, 27, 27, 27, 0, 255], [77, 60, 77, 77, 0, 255]]


def test_bounds_without_requantisers_for_them():
    assert run([(20, 0, 2, 1)], zero_out=7, low=3, high=200) == [27]


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_bounds_against_exact_arithmetic(stall):
    random.seed(2)
    cases = [(random.randint(-200, 200), random.randint(-50, 50), 2, 1) for _ in range(60)]
    bounds = [random.choice(({}, {"bound": random.randrange(256), "ceiling": random.randrange(2)}))
              for _ in cases]
    run(cases, zero_out=random.randrange(256), low=0, high=255, stall=stall, bounds=bounds)
