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
        bus = dut.share.memory
        while len(taken) < 20:
            _, _, valid, ready, ident = await ctx.tick().sample(bus.arvalid, bus.arready, bus.arid)
            if valid and ready:
                taken.append(ident >> 1)
        assert taken == [taken[0], 1 - taken[0]] * 10

    simulate(dut, drive)


def test_a_manager_is_not_refused_in_the_cycle_in_which_memory_refuses():
    """One address is kept for each; the next one is refused until that has gone."""
    dut = AxiShare(Axi4(data_width=64, address_width=TINY.offchip_address_width))

    async def drive(ctx):
        first = dut.managers[0]
        for channel in ("ar", "aw"):
            valid, ready = getattr(first, channel + "valid"), getattr(first, channel + "ready")
            address, offered = (getattr(bus, channel + "addr") for bus in (first, dut.memory))
            go = getattr(dut.memory, channel + "ready")
            ctx.set(valid, 1)
            ctx.set(address, 8)
            assert ctx.get(ready)
            await ctx.tick()
            ctx.set(address, 16)
            for _ in range(3):
                assert (ctx.get(ready), ctx.get(offered)) == (0, 8)
                await ctx.tick()
            ctx.set(go, 1)
            assert (ctx.get(ready), ctx.get(offered)) == (0, 8)
            await ctx.tick()
            assert (ctx.get(ready), ctx.get(offered)) == (1, 16)
            ctx.set(valid, 0)
            await ctx.tick()

    simulate(dut, drive)
