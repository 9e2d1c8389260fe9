# amaranth: UnusedElaboratable=no
from dataclasses import replace

import pytest

from hw.config import REFERENCE
from hw.memory.dram import DramScheduler, timing_const
from tests.support import simulate

VECTOR = REFERENCE.vector
TIMING = replace(REFERENCE.timing, refresh_interval=4000)


@pytest.mark.parametrize("batch", [1, 3])
def test_directions_take_turns_in_batches(batch):
    dut = DramScheduler(vector=VECTOR, address_width=20, batch=batch)

    async def drive(ctx):
        ctx.set(dut.timing, timing_const(TIMING, VECTOR))
        for ready in (dut.reads.valid, dut.writes.valid, dut.o.ready):
            ctx.set(ready, 1)
        order = ""
        while len(order) < 6 * batch:
            _, _, valid, write = await ctx.tick().sample(dut.o.valid, dut.write)
            if valid:
                order += "W" if write else "R"
        assert order == ("R" * batch + "W" * batch) * 3

    simulate(dut, drive)


def test_one_direction_alone_has_the_bus():
    dut = DramScheduler(vector=VECTOR, address_width=20, batch=1)

    async def drive(ctx):
        ctx.set(dut.timing, timing_const(TIMING, VECTOR))
        ctx.set(dut.writes.valid, 1)
        ctx.set(dut.o.ready, 1)
        taken = 0
        for _ in range(100):
            _, _, valid, write = await ctx.tick().sample(dut.o.valid, dut.write)
            taken += valid
            assert not valid or write
        assert taken > 10
        assert ctx.get(dut.row_misses) == 1
        assert ctx.get(dut.row_hits) >= taken - 1

    simulate(dut, drive)


def test_costs_below_two_count_as_two():
    timing = replace(TIMING, row_hit=1, activate=0, precharge=0, turnaround=0)
    dut    = DramScheduler(vector=VECTOR, address_width=20)

    async def drive(ctx):
        ctx.set(dut.timing, timing_const(timing, VECTOR))
        ctx.set(dut.reads.valid, 1)
        await ctx.tick()      # taken in cycle 0, on offer in cycle 0 + 1 + 2
        ctx.set(dut.reads.valid, 0)
        offered = []
        for _ in range(4):
            offered.append(ctx.get(dut.o.valid))
            await ctx.tick()
        assert offered == [0, 0, 1, 1]

    simulate(dut, drive)


def test_wrong_batch():
    with pytest.raises(ValueError, match=r"^Batch must be positive, not 0$"):
        DramScheduler(vector=VECTOR, address_width=20, batch=0)
