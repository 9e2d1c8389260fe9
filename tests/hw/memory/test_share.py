# amaranth: UnusedElaboratable=no
import random

import pytest
from amaranth import *
from amaranth.lib.wiring import connect

from hw.config import TINY
from hw.memory.axi import Axi4, Response
from hw.memory.offchip import OffchipMemory
from hw.memory.share import AxiShare
from tests.hw.memory.models import read_burst, write_burst
from tests.support import simulate

VECTOR, SIZE, HALF = TINY.vector, 3, 256


class Shared(Elaboratable):
    """Two managers and the transaction-level memory, which answers out of order between ids."""

    def __init__(self):
        self.share  = AxiShare(Axi4(data_width=64, address_width=TINY.offchip_address_width))
        self.memory = OffchipMemory(config=TINY, depth=2 * HALF, storage="memory", id_width=2)

    def elaborate(self, platform):
        m = Module()
        m.submodules.share, m.submodules.memory = self.share, self.memory
        connect(m, self.share.memory, self.memory.axi)
        return m


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_each_manager_gets_its_own_data(stall):
    dut = Shared()

    def manager(number):
        axi, rng = dut.share.managers[number], random.Random(number)
        content  = [0] * HALF

        async def drive(ctx):
            for _ in range(30):
                beats = rng.choice((1, 2, 5, 32))
                start = rng.randrange(HALF - beats)
                words = [rng.getrandbits(64) for _ in range(beats)]
                at    = (number * HALF + start) * VECTOR
                assert await write_burst(ctx, axi, at, words, size=SIZE, stall=stall,
                                         ident=rng.randrange(2)) == Response.OKAY
                content[start:start + beats] = words
                start = rng.randrange(HALF - beats)
                at    = (number * HALF + start) * VECTOR
                answer = await read_burst(ctx, axi, at, beats, size=SIZE, stall=stall,
                                          ident=rng.randrange(2))
                assert answer == [(word, Response.OKAY) for word in content[start:start + beats]]
        return drive

    simulate(dut, manager(0), manager(1))


def test_neither_waits_for_more_than_one_burst_of_the_other():
    dut, taken = Shared(), []

    async def drive(ctx):
        for axi in dut.share.managers:
            ctx.set(axi.arsize, SIZE)
            ctx.set(axi.arvalid, 1)
            ctx.set(axi.rready, 1)
        while len(taken) < 20:
            _, _, first, second = await ctx.tick().sample(dut.share.managers[0].arready,
                                                          dut.share.managers[1].arready)
            assert not (first and second)
            if first or second:
                taken.append(second)
        assert taken == [taken[0], 1 - taken[0]] * 10

    simulate(dut, drive)
