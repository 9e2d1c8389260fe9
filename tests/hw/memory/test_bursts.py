# amaranth: UnusedElaboratable=no
import random

import pytest
from amaranth.hdl import Signal

from hw.memory.bursts import BurstSplitter
from tests.support import simulate, stream_get, stream_put


def split(address, beats, window):
    """Bursts ``(address, beats, last)`` of a run, the slow way."""
    bursts, end = [], address + beats
    while address < end:
        stop = min(end, (address // window + 1) * window)
        bursts.append((address, stop - address, stop == end))
        address = stop
    return bursts


def test_expectation_by_hand():
    assert split(6, 20, 8) == [(6, 2, False), (8, 8, False), (16, 8, False), (24, 2, True)]


@pytest.mark.parametrize("window", [2, 8, 64])
def test_cuts_at_every_window(window):
    dut = BurstSplitter(address_width=12, beats=200, window=window)
    rng = random.Random(window)
    runs = [(0, 1), (window - 1, 1), (window - 1, 2), (0, window), (0, window + 1), (1, 200)]
    runs += [(rng.randrange(3000), rng.randint(1, 200)) for _ in range(40)]

    async def drive(ctx):
        for address, beats in runs:
            await stream_put(ctx, dut.i, {"address": address, "beats": beats})

    async def check(ctx):
        for address, beats in runs:
            for expected in split(address, beats, window):
                for _ in range(rng.randrange(3)):
                    await ctx.tick()
                burst = await stream_get(ctx, dut.o)
                assert (burst.address, burst.length + 1, bool(burst.last)) == expected

    simulate(dut, drive, check)


@pytest.mark.parametrize("window", [1, 4, 16, 64])
def test_a_smaller_window_that_is_known_at_run_time(window):
    within = Signal(6)
    dut = BurstSplitter(address_width=12, beats=200, window=64, within=within)
    rng = random.Random(window)
    runs = [(0, 1), (63, 2), (4032, 64), (2047, 200)]
    runs += [(rng.randrange(4096 - 200), rng.randint(1, 200)) for _ in range(30)]

    async def drive(ctx):
        ctx.set(within, window - 1)
        for address, beats in runs:
            await stream_put(ctx, dut.i, {"address": address, "beats": beats})

    async def check(ctx):
        for address, beats in runs:
            for expected in split(address, beats, window):
                burst = await stream_get(ctx, dut.o)
                assert (burst.address, burst.length + 1, bool(burst.last)) == expected

    simulate(dut, drive, check)


def test_one_burst_per_cycle_from_the_next_cycle_on():
    dut = BurstSplitter(address_width=8, beats=64, window=4)

    async def drive(ctx):
        await stream_put(ctx, dut.i, {"address": 0, "beats": 16})
        ctx.set(dut.o.ready, 1)
        for k in range(4):
            assert ctx.get(dut.o.valid)
            assert not ctx.get(dut.i.ready)
            assert ctx.get(dut.o.p.address) == 4 * k
            await ctx.tick()
        assert not ctx.get(dut.o.valid)
        assert ctx.get(dut.i.ready)

    simulate(dut, drive)


@pytest.mark.parametrize(("parameters", "message"), [
    ({"beats": 0}, r"^Number of beats must be positive, not 0$"),
    ({"window": 12}, r"^Window must be a power of two of at least 2, not 12$"),
    ({"window": 1}, r"^Window must be a power of two of at least 2, not 1$"),
    ({"window": 16, "address_width": 3}, r"^Window \(16\) must fit the address width \(3\)$"),
])
def test_wrong_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        BurstSplitter(**{"address_width": 8, "beats": 16, "window": 4, **parameters})
