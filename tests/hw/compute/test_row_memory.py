# amaranth: UnusedElaboratable=no
import random
import re

import pytest

from hw.compute.row_memory import RowMemory
from tests.support import simulate, stream_put


def small(**sizes):
    return RowMemory(**{"banks": 2, "depth": 16, "vector": 8, "lanes": 4, "writers": 3, **sizes})


def word(bank, address, data, mask=0b1111):
    return {"bank": bank, "address": address, "data": data, "mask": mask}


def test_reads_every_bank_and_holds_without_enable():
    dut = small()

    async def bench(ctx):
        await stream_put(ctx, dut.writes[0], word(0, 3, 0x1122334455667788))
        await stream_put(ctx, dut.writes[0], word(1, 5, 0xaabb, mask=0b0001))
        ctx.set(dut.read.enable, 1)
        ctx.set(dut.read.addresses[0], 3)
        ctx.set(dut.read.addresses[1], 5)
        await ctx.tick()
        assert [ctx.get(data) for data in dut.read.data] == [0x1122334455667788, 0xaabb]
        ctx.set(dut.read.enable, 0)
        ctx.set(dut.read.addresses[0], 0)
        await ctx.tick()
        assert ctx.get(dut.read.data[0]) == 0x1122334455667788

    simulate(dut, bench)


def test_mask_keeps_the_other_lanes():
    dut = small()

    async def bench(ctx):
        await stream_put(ctx, dut.writes[0], word(0, 3, 0x1111111111111111))
        await stream_put(ctx, dut.writes[2], word(0, 3, 0x2222222222222222, mask=0b1010))
        assert ctx.get(dut.banks[0].data[3]) == 0x2222111122221111

    simulate(dut, bench)


def test_lowest_writer_of_a_bank_wins_and_other_banks_do_not_wait():
    dut = small()

    async def bench(ctx):
        for writer, bank in ((0, 1), (1, 0), (2, 0)):
            ctx.set(dut.writes[writer].p, word(bank, writer, 7 + writer))
            ctx.set(dut.writes[writer].valid, 1)
        assert [ctx.get(port.ready) for port in dut.writes] == [1, 1, 0]
        await ctx.tick()
        ctx.set(dut.writes[1].valid, 0)
        assert [ctx.get(port.ready) for port in dut.writes] == [1, 0, 1]
        await ctx.tick()
        assert [ctx.get(dut.banks[bank].data[at]) for bank, at in ((1, 0), (0, 1), (0, 2))] \
            == [7, 8, 9]

    simulate(dut, bench)


def test_random_writers_lose_nothing():
    dut = small()
    chance = random.Random(5)
    # Each writer has its own addresses, so that the order between writers does not matter.
    work = [[word(chance.randrange(2), 5 * writer + chance.randrange(5), chance.getrandbits(64),
                  chance.randrange(1, 16)) for _ in range(60)] for writer in range(3)]
    expected = [[[0] * 4 for _ in range(16)] for _ in range(2)]
    for payloads in work:
        for write in payloads:
            for lane in range(4):
                if write["mask"] >> lane & 1:
                    expected[write["bank"]][write["address"]][lane] = \
                        write["data"] >> 16 * lane & 0xffff

    left = [3]

    def writer(number):
        async def bench(ctx):
            for payload in work[number]:
                await ctx.tick().repeat(random.Random(payload["data"]).randrange(1, 3))
                await stream_put(ctx, dut.writes[number], payload)
            left[0] -= 1
            if left[0] == 0:
                for bank in range(2):
                    for at in range(15):
                        data = ctx.get(dut.banks[bank].data[at])
                        assert [data >> 16 * lane & 0xffff for lane in range(4)] \
                            == expected[bank][at]
        return bench

    simulate(dut, *map(writer, range(3)))
    assert left == [0]


@pytest.mark.parametrize("name", ["banks", "depth", "writers"])
def test_sizes_must_be_positive(name):
    with pytest.raises(ValueError, match=f"^Row memory {name} must be positive, not 0$"):
        small(**{name: 0})


def test_lanes_must_divide_the_vector():
    with pytest.raises(ValueError, match="^" + re.escape(
            "Row memory lanes (3) must divide the vector (8)") + "$"):
        small(lanes=3)
