# amaranth: UnusedElaboratable=no
import random

import pytest
from amaranth.sim import Simulator

from hw.control.totals import Totals


@pytest.mark.parametrize("slots, reading", [(8, 0.5), (8, 1), (32, 0.9)])
def test_totals_of_counters_that_wrap(slots, reading):
    """Every counter may grow in every cycle, readers take up to every third one, and the walk is
    cleared in its midst."""
    dut  = Totals(slots=slots)
    rng  = random.Random(f"{slots} {reading}")
    true = [0] * slots
    assert 1 << dut.bits == 2 * slots

    async def bench(ctx):
        pace  = [rng.choice([0, 0.1, 1]) for _ in range(slots)]
        reads = []          # slots that were asked for, cycle by cycle
        seen  = []
        for now in range(40 * slots):
            clear = now == 21 * slots + 3
            ctx.set(dut.clear, clear)
            wanted = rng.randrange(slots) if now % 3 == 0 and rng.random() < reading else None
            ctx.set(dut.read, wanted is not None)
            ctx.set(dut.read_slot, rng.randrange(slots) if wanted is None else wanted)
            ctx.set(dut.narrow, true[ctx.get(dut.slot)] % (1 << dut.bits))
            if len(reads) > 1 and reads[-2] is not None:
                assert ctx.get(dut.value) == seen[reads[-2]]
            seen = list(true)
            reads.append(None if clear else wanted)
            await ctx.tick()
            if clear:
                true[:] = [0] * slots
                reads = []
            else:
                for slot in range(slots):
                    true[slot] += rng.random() < pace[slot]
        assert max(true) > 3 << dut.bits

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
