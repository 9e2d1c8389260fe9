# amaranth: UnusedElaboratable=no
import random

import pytest

from hw.memory.skid import SkidBuffer, StreamRegister
from tests.support import simulate


@pytest.mark.parametrize("refuses", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("idle", [0.0, 0.5])
@pytest.mark.parametrize("block", [SkidBuffer, StreamRegister])
def test_random_words_against_a_list(block, idle, refuses):
    """Both keep one word at most, and lose none. One of them shows a word in the cycle in which it
    comes, and takes none while one is kept; the other shows it a cycle later, and takes the next
    one as it leaves."""
    dut, at_once = block(8), block is SkidBuffer
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
            free = not kept or (ready and not at_once)
            assert ctx.get(dut.i.ready) == free
            comes, offered = ([], offered) if not free or offered is None else ([offered], None)
            shown = kept + (comes if at_once else [])
            assert ctx.get(dut.o.valid) == len(shown) <= 1
            assert not shown or ctx.get(dut.o.p) == shown[0]
            kept  = (kept + comes)[bool(shown) and ready:]
            sent += bool(shown) and ready
            await ctx.tick()
        assert sent > 100

    simulate(dut, drive)


def test_the_way_in_does_not_see_a_refusal_in_its_cycle():
    dut = SkidBuffer(8)

    async def drive(ctx):
        ctx.set(dut.i.valid, 1)
        for ready in (0, 1):
            ctx.set(dut.o.ready, ready)
            assert ctx.get(dut.i.ready)
        ctx.set(dut.o.ready, 0)
        await ctx.tick()
        assert ctx.get(dut.full)
        for ready in (0, 1):
            ctx.set(dut.o.ready, ready)
            assert not ctx.get(dut.i.ready)

    simulate(dut, drive)
