# amaranth: UnusedElaboratable=no
import random
import re

import pytest

from hw.compute.drain import LATENCY, Drain
from tests.support import simulate

DELAY = 3


def serve(dut, sums, *, take=1.0, seed=0):
    """Issue ``sums`` as early as ``room`` allows. Returns the cycles of their reservations, and the
    ``(cycle, bytes)`` that came out; accumulator ``[p][o]`` of sum ``n`` is ``n + 10 * p + o``."""
    reserved, got = [], []
    chance = random.Random(seed)

    async def bench(ctx):
        ctx.set(dut.layer, {"low": 0, "high": 255, "zero_out": 1})
        ctx.set(dut.conv, {"groups": 2, "param_base": 5})
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for lane in dut.params.data:
            ctx.set(lane, {"multiplier": 2, "shift": 1})
        cycle = 0
        while len(got) < sums * dut.pixels and cycle < 2000:
            issue = ctx.get(dut.room) and len(reserved) < sums
            ctx.set(dut.reserve, issue)
            done = cycle - DELAY in reserved
            ctx.set(dut.done, done)
            if issue:
                reserved.append(cycle)
            if done:
                number = reserved.index(cycle - DELAY)
                assert ctx.get(dut.params.enable)
                assert ctx.get(dut.params.address) == 5 + number % 2
                for p, row in enumerate(dut.acc):
                    for o, acc in enumerate(row):
                        ctx.set(acc, number + 10 * p + o)
            ctx.set(dut.o.ready, chance.random() < take)
            if ctx.get(dut.o.valid) and ctx.get(dut.o.ready):
                got.append((cycle, list(ctx.get(dut.o.p))))
            await ctx.tick()
            cycle += 1

    simulate(dut, bench)
    assert [y for _, y in got] == [[n + 10 * p + o + 1 for o in range(dut.outputs)]
                                   for n in range(sums) for p in range(dut.pixels)]
    return reserved, [cycle for cycle, _ in got]


@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_one_pixel_per_cycle(pixels):
    dut = Drain(pixels=pixels, outputs=2, param_words=16, delay=DELAY)
    reserved, got = serve(dut, 30)
    assert reserved == list(range(0, 30 * pixels, pixels))
    assert got == list(range(DELAY + LATENCY, DELAY + LATENCY + 30 * pixels))


@pytest.mark.parametrize("take", [0.1, 0.4])
@pytest.mark.parametrize("pixels", [1, 4])
def test_a_slow_consumer_holds_back_reservations(pixels, take):
    dut = Drain(pixels=pixels, outputs=2, param_words=16, delay=DELAY)
    reserved, _ = serve(dut, 40, take=take, seed=pixels)
    assert reserved[-1] > 2 * 39 * pixels - dut.queue_depth * 2


def test_table_replaces_byte_0():
    dut = Drain(pixels=1, outputs=2, param_words=16, delay=DELAY)

    async def bench(ctx):
        ctx.set(dut.layer, {"high": 255, "table": 1})
        ctx.set(dut.params.data[0], {"multiplier": 2, "shift": 1})
        ctx.set(dut.params.data[1], {"multiplier": 2, "shift": 1})
        ctx.set(dut.acc[0][0], 77)
        ctx.set(dut.acc[0][1], 78)
        ctx.set(dut.done, 1)
        await ctx.tick()
        ctx.set(dut.done, 0)
        for _ in range(LATENCY):
            address = ctx.get(dut.table.address)
            await ctx.tick()
            ctx.set(dut.table.data, 200 if address == 77 else 0)
        assert ctx.get(dut.o.valid)
        assert list(ctx.get(dut.o.p)) == [200, 78]

    simulate(dut, bench)


@pytest.mark.parametrize("name", ["pixels", "outputs", "param_words", "delay"])
def test_sizes_must_be_positive(name):
    sizes = {"pixels": 1, "outputs": 1, "param_words": 4, "delay": 1, name: 0}
    with pytest.raises(ValueError, match="^" + re.escape(
            f"Drain {name} must be positive, not 0") + "$"):
        Drain(**sizes)
