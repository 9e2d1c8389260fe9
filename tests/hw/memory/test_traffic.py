# amaranth: UnusedElaboratable=no
import pytest

from hw.isa import Traffic
from hw.memory.traffic import TrafficCounter
from tests.support import simulate


def test_counts_each_class_on_its_own():
    dut = TrafficCounter(vector=8)

    async def drive(ctx):
        for kind, beats in ((Traffic.WEIGHTS, 3), (Traffic.MASK, 2), (Traffic.WEIGHTS, 1)):
            ctx.set(dut.traffic, kind)
            ctx.set(dut.beat, 1)
            await ctx.tick().repeat(beats)
            ctx.set(dut.beat, 0)
            await ctx.tick().repeat(3)
        assert [ctx.get(count) for count in dut.bytes] == [0, 32, 0, 0, 0, 16]

    simulate(dut, drive)


def test_wrong_vector():
    with pytest.raises(ValueError, match=r"^Vector must be a power of two, not 12$"):
        TrafficCounter(vector=12)
