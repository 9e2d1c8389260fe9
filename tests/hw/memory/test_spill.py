# amaranth: UnusedElaboratable=no
import random

import pytest

from hw.memory.spill import SpillRegister, StreamRegister
from tests.support import simulate


@pytest.mark.parametrize("refuses", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("idle", [0.0, 0.5])
def test_random_words_against_a_list(refuses, idle):
    """A word goes through at once unless it is refused: then it waits here, and the next one does
    not come in."""
    dut = SpillRegister(8)
    rng = random.Random(f"{refuses} {idle}")

    async def drive(ctx):
        offered, waits, sent = None, [], 0
        for _ in range(1000):
            if offered is None and rng.random() >= idle:
                offered = rng.getrandbits(8)
                ctx.set(dut.i.p, offered)
            ready = rng.random() >= refuses
            ctx.set(dut.i.valid, offered is not None)
            ctx.set(dut.o.ready, ready)
            assert ctx.get(dut.full) == len(waits)
            if ctx.get(dut.i.ready):
                assert not waits
                waits += [] if offered is None else [offered]
                offered = None
            assert ctx.get(dut.o.valid) == len(waits) <= 1
            if waits:
                assert ctx.get(dut.o.p) == waits[0]
                sent += ready
                waits = waits[ready:]
            await ctx.tick()
        assert sent > 100

    simulate(dut, drive)


@pytest.mark.parametrize("refuses", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("idle", [0.0, 0.5])
def test_a_register_hands_on_a_word_a_cycle_later(refuses, idle):
    dut = StreamRegister(8)
    rng = random.Random(f"{refuses} {idle}")

    async def drive(ctx):
        offered, kept, sent = None, [], 0
        for _ in range(1000):
            if offered is None and rng.random() >= idle:
                offered = rng.getrandbits(8)
                ctx.set(dut.i.p, offered)
            ready = rng.random() >= refuses
            ctx.set(dut.i.valid, offered is not None)
            ctx.set(dut.o.ready, ready)
            assert ctx.get(dut.o.valid) == len(kept) <= 1
            assert not kept or ctx.get(dut.o.p) == kept[0]
            assert ctx.get(dut.i.ready) == (not kept or ready)
            if ctx.get(dut.i.ready):
                sent += len(kept)
                kept, offered = [] if offered is None else [offered], None
            await ctx.tick()
        assert sent > 100

    simulate(dut, drive)


def test_the_way_in_does_not_see_a_refusal_in_its_cycle():
    dut = SpillRegister(8)

    async def drive(ctx):
        ctx.set(dut.i.valid, 1)
        for ready in (0, 1):
            ctx.set(dut.o.ready, ready)
            assert ctx.get(dut.i.ready)
        ctx.set(dut.o.ready, 0)
        await ctx.tick()
        for ready in (0, 1):
            ctx.set(dut.o.ready, ready)
            assert not ctx.get(dut.i.ready)

    simulate(dut, drive)
