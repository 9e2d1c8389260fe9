# amaranth: UnusedElaboratable=no
from dataclasses import replace

import pytest

from hw.config import DDR4_2400
from hw.memory.dram import DramScheduler
from tests.support import simulate

TIMING = replace(DDR4_2400, refresh_interval=4000)


@pytest.mark.parametrize("batch", [1, 3])
def test_directions_take_turns_in_batches(batch):
    dut = DramScheduler(timing=TIMING, vector=16, address_width=20, batch=batch)

    async def drive(ctx):
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
    dut = DramScheduler(timing=TIMING, vector=16, address_width=20, batch=1)

    async def drive(ctx):
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
    dut    = DramScheduler(timing=timing, vector=16, address_width=20)

    async def drive(ctx):
        ctx.set(dut.reads.valid, 1)
        await ctx.tick()      # taken in cycle 0, on offer in cycle 0 + 1 + 2
        ctx.set(dut.reads.valid, 0)
        offered = []
        for _ in range(4):
            offered.append(ctx.get(dut.o.valid))
            await ctx.tick()
        assert offered == [0, 0, 1, 1]

    simulate(dut, drive)


@pytest.mark.parametrize(("parameters", "message"), [
    ({"vector": 8192},
     r"^DRAM rows of 8192 bytes must hold at least two vectors of 8192$"),
    ({"batch": 0}, r"^Batch must be positive, not 0$"),
])
def test_wrong_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        DramScheduler(**{"timing": TIMING, "vector": 16, "address_width": 20, **parameters})
