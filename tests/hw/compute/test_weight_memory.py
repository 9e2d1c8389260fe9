# amaranth: UnusedElaboratable=no
import re

import pytest

from hw.compute.weight_memory import WeightMemory
from hw.isa import LoadTarget
from tests.support import simulate, stream_put


def small(**sizes):
    return WeightMemory(**{"vector": 8, "outputs": 4, "drain": 4, "weight_words": 16,
                           "params": 8, **sizes})


async def load(ctx, dut, target, base, beats):
    for index, data in enumerate(beats):
        await stream_put(ctx, dut.load, {"target": target, "base": base, "index": index,
                                         "data": data})


def test_beats_go_round_the_lanes():
    dut = small()

    async def bench(ctx):
        await load(ctx, dut, LoadTarget.WEIGHTS, 9, range(100, 110))
        await ctx.tick()
        ctx.set(dut.weights.enable, 1)
        ctx.set(dut.weights.address, 11)
        await ctx.tick()
        assert [ctx.get(data) for data in dut.weights.data] == [108, 109, 0, 0]
        ctx.set(dut.weights.address, 10)
        await ctx.tick()
        assert [ctx.get(data) for data in dut.weights.data] == [104, 105, 106, 107]
        ctx.set(dut.weights.enable, 0)
        ctx.set(dut.weights.address, 11)
        await ctx.tick()
        assert ctx.get(dut.weights.data[0]) == 104

    simulate(dut, bench)


def test_parameters_are_the_low_64_bits():
    dut = small(vector=16)
    fields = {"bias": -5, "multiplier": -3, "shift": 47}

    async def bench(ctx):
        word = dut.params.data[0].shape().const(fields).as_bits()
        await load(ctx, dut, LoadTarget.PARAMS, 6, [0, word | 0xffff << 64])
        await ctx.tick()
        ctx.set(dut.params.enable, 1)
        ctx.set(dut.params.address, 6)
        await ctx.tick()
        got = ctx.get(dut.params.data[1])
        assert {name: got[name] for name in fields} == fields

    simulate(dut, bench)


def test_parameters_go_round_the_drain_lanes():
    dut = small(drain=16)

    async def bench(ctx):
        await load(ctx, dut, LoadTarget.PARAMS, 3, range(100, 108))
        await ctx.tick()
        ctx.set(dut.params.enable, 1)
        for word, wanted in ((0, [0] * 12 + [100, 101, 102, 103]),
                             (1, [104, 105, 106, 107] + [0] * 12)):
            ctx.set(dut.params.address, word)
            await ctx.tick()
            assert [ctx.get(lane).bias for lane in dut.params.data] == wanted
        ctx.set(dut.params.enable, 0)
        ctx.set(dut.params.address, 0)
        await ctx.tick()
        assert ctx.get(dut.params.data[0]).bias == 104

    simulate(dut, bench)


@pytest.mark.parametrize("vector", [8, 16])
def test_table_is_bytes_lowest_address_first(vector):
    dut = small(vector=vector)
    table = [(37 * number + 5) % 256 for number in range(256)]

    async def bench(ctx):
        await load(ctx, dut, LoadTarget.TABLE, 0,
                   [int.from_bytes(bytes(table[at:at + vector]), "little")
                    for at in range(0, 256, vector)])
        await ctx.tick()
        ctx.set(dut.table.enable, 1)
        for number in range(256):
            wanted = [(number + 77 * lane) % 256 for lane in range(4)]
            for port, address in zip(dut.table.address, wanted, strict=True):
                ctx.set(port, address)
            await ctx.tick()
            assert [ctx.get(byte) for byte in dut.table.data] == [table[at] for at in wanted]

    simulate(dut, bench)


def test_beats_for_others_or_past_the_end_are_dropped():
    dut = small()

    async def bench(ctx):
        await load(ctx, dut, LoadTarget.WEIGHTS, 15, range(1, 9))
        await load(ctx, dut, LoadTarget.PARAMS, 8, [1] * 4)
        await load(ctx, dut, LoadTarget.GATE_PARAMS, 0, [1] * 4)
        await load(ctx, dut, LoadTarget.TABLE, 0, [0] * 32 + [9])
        await ctx.tick().repeat(2)
        for lane in range(4):
            words = [ctx.get(dut.weight_lanes[lane].data[at]) for at in range(16)]
            assert words == [0] * 15 + [lane + 1]
            params = [ctx.get(dut.param_lanes[lane].data[at]).as_bits() for at in range(8)]
            assert params == [0] * 8
        assert ctx.get(dut.table_words.data[0]) == 0

    simulate(dut, bench)


@pytest.mark.parametrize("name", ["outputs", "weight_words", "params"])
def test_sizes_must_be_positive(name):
    with pytest.raises(ValueError, match=f"^Weight memory {name} must be positive, not 0$"):
        small(**{name: 0})


@pytest.mark.parametrize("vector", [4, 12])
def test_vector_must_fit_the_table(vector):
    with pytest.raises(ValueError, match="^" + re.escape(
            f"Weight memory vector must divide 256 and be at least 8, not {vector}") + "$"):
        small(vector=vector)


@pytest.mark.parametrize("drain", [2, 12])
def test_drain_must_be_a_power_of_two_of_at_least_the_outputs(drain):
    with pytest.raises(ValueError, match="^" + re.escape(
            "Weight memory drain must be a power of two of at least its outputs (4), "
            f"not {drain}") + "$"):
        small(drain=drain)
