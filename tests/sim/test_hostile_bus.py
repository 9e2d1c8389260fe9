# amaranth: UnusedElaboratable=no
"""The hostile bus itself: it loses and changes nothing, and does what it is asked to do wrong."""

import pytest
from amaranth import *
from amaranth.lib.wiring import Component, In, connect, flipped

from hw.config import TINY
from hw.memory.axi import AxiLite, Response
from hw.memory.offchip import OffchipMemory
from sim.hostile_bus import HOSTILITY, ErrorOn, HostileBus, Order
from tests.hw.memory.models import read_burst, write_burst
from tests.support import simulate

SIZE   = 3
VECTOR = TINY.vector
ROUGH  = {"seed": 5, "garbage": 1, "reorder": 1,
          **{f"{channel}_{part}": value for channel in ("aw", "w", "b", "ar", "r")
             for part, value in (("odds", 120), ("span", 3))}}


class Bench(Component):
    """A hostile bus with a memory behind it; a test is the manager."""

    def __init__(self):
        self.memory = OffchipMemory(config=TINY, depth=64, storage="memory")
        self.bus    = HostileBus(self.memory.axi.signature.flip())
        super().__init__({"axi": In(self.memory.axi.signature.flip())})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = self.memory
        m.submodules.bus    = self.bus
        connect(m, flipped(self.axi), self.bus.manager)
        connect(m, self.bus.memory, self.memory.axi)
        return m

    def set(self, ctx, **hostility):
        ctx.set(self.bus.control, hostility)


async def restart(ctx, dut, **hostility):
    dut.set(ctx, **hostility)
    ctx.set(dut.bus.restart, 1)
    await ctx.tick()
    ctx.set(dut.bus.restart, 0)


@pytest.mark.parametrize("hostility", [{}, ROUGH])
def test_every_word_arrives(hostility):
    dut = Bench()

    async def drive(ctx):
        await restart(ctx, dut, **hostility)
        for start, beats in ((0, 1), (3, 20), (40, 24)):
            words = [1000 * start + k for k in range(beats)]
            assert await write_burst(ctx, dut.axi, start * VECTOR, words, size=SIZE,
                                     ident=start & 1) == Response.OKAY
            assert await read_burst(ctx, dut.axi, start * VECTOR, beats, size=SIZE,
                                    stall=0.3) == [(word, Response.OKAY) for word in words]

    simulate(dut, drive)


@pytest.mark.parametrize("order", list(Order)[1:])
def test_addresses_and_data_wait_for_each_other(order):
    """Cycle by cycle, which of the two is taken while the other is held back."""
    dut = Bench()

    async def taken(ctx, ready):
        for _ in range(20):
            if ctx.get(ready):
                return True
            await ctx.tick()
        return False

    async def drive(ctx):
        axi = dut.axi
        await restart(ctx, dut, order=order)
        ctx.set(axi.awsize, SIZE)
        ctx.set(axi.awlen, 1)
        ctx.set(axi.awvalid, 1)
        assert not ctx.get(axi.wvalid)
        # An address alone.
        assert await taken(ctx, axi.awready) == (order is Order.ADDRESS_FIRST)
        if order is Order.ADDRESS_FIRST:
            await ctx.tick()
            ctx.set(axi.awvalid, 0)
            await ctx.tick()
            assert ctx.get(axi.wready)
            return
        # With the first beat of two on offer, and then with both taken.
        ctx.set(axi.wvalid, 1)
        assert await taken(ctx, axi.awready) == (order is Order.DATA_FIRST)
        if order is Order.BURST_FIRST:
            ctx.set(axi.wlast, 1)
            assert await taken(ctx, axi.awready)

    simulate(dut, drive)


def test_data_wait_for_their_address():
    dut = Bench()

    async def drive(ctx):
        await restart(ctx, dut, order=Order.ADDRESS_FIRST)
        ctx.set(dut.axi.wvalid, 1)
        for _ in range(20):
            await ctx.tick()
            assert not ctx.get(dut.axi.wready)

    simulate(dut, drive)


def test_one_beat_is_an_error():
    dut = Bench()

    async def drive(ctx):
        await restart(ctx, dut, error_on=ErrorOn.READ, error_at=5, errors=2,
                      response=Response.DECERR)
        await read_burst(ctx, dut.axi, 0, 3, size=SIZE)
        assert not ctx.get(dut.bus.hit)
        beats = await read_burst(ctx, dut.axi, 8 * VECTOR, 6, size=SIZE)
        assert [response for _, response in beats] == [
            Response.OKAY, Response.OKAY, Response.DECERR, Response.DECERR, Response.OKAY,
            Response.OKAY]
        assert [data != 0 for data, _ in beats] == [False, False, True, True, False, False]
        assert ctx.get(dut.bus.hit_address) == 10 * VECTOR
        assert ctx.get(dut.bus.read_beats) == 9

    simulate(dut, drive)


def test_one_response_is_an_error():
    dut = Bench()

    async def drive(ctx):
        await restart(ctx, dut, error_on=ErrorOn.WRITE, error_at=1, errors=1,
                      response=Response.SLVERR)
        answers = [await write_burst(ctx, dut.axi, 0, [1], size=SIZE, ident=ident)
                   for ident in (0, 1, 0)]
        assert answers == [Response.OKAY, Response.SLVERR, Response.OKAY]
        assert ctx.get(dut.bus.hit) and ctx.get(dut.bus.hit_id) == 1

    simulate(dut, drive)


def test_a_frozen_bus_goes_on_where_it_stopped():
    dut = Bench()

    async def drive(ctx):
        axi = dut.axi
        await restart(ctx, dut, freeze=1)
        ctx.set(axi.arsize, SIZE)
        ctx.set(axi.arvalid, 1)
        for _ in range(30):
            await ctx.tick()
            assert not ctx.get(axi.arready)
            assert not ctx.get(axi.rvalid)
        dut.set(ctx)
        await ctx.tick().until(axi.arready)
        ctx.set(axi.arvalid, 0)
        await ctx.tick().until(axi.rvalid)

    simulate(dut, drive)


def test_responses_overtake_each_other():
    """Two writes of different ids, both done before a response may go: both orders are seen."""
    seen = set()
    for seed in range(8):
        dut = Bench()

        async def drive(ctx, dut=dut, seed=seed):
            axi = dut.axi
            await restart(ctx, dut, seed=seed, reorder=1)
            ctx.set(axi.awsize, SIZE)
            for ident in (0, 1):
                ctx.set(axi.awid, ident)
                ctx.set(axi.awvalid, 1)
                await ctx.tick().until(axi.awready)
                ctx.set(axi.awvalid, 0)
                ctx.set(axi.wvalid, 1)
                ctx.set(axi.wlast, 1)
                await ctx.tick().until(axi.wready)
                ctx.set(axi.wvalid, 0)
            dut.set(ctx, freeze=1)
            await ctx.tick().repeat(60)
            dut.set(ctx, seed=seed, reorder=1)
            ctx.set(axi.bready, 1)
            order = []
            while len(order) < 2:
                _, _, valid, ident = await ctx.tick().sample(axi.bvalid, axi.bid)
                order += [ident] if valid else []
            seen.add(tuple(order))

        simulate(dut, drive)
    assert seen == {(0, 1), (1, 0)}


def test_payloads_are_noise_without_valid():
    dut = Bench()

    async def drive(ctx):
        await restart(ctx, dut, seed=3, garbage=1)
        noise = set()
        for _ in range(10):
            noise.add(ctx.get(dut.axi.rdata))
            assert not ctx.get(dut.axi.rvalid)
            await ctx.tick()
        assert len(noise) == 10

    simulate(dut, drive)


def test_channels_stop_as_often_as_asked():
    dut = Bench()

    async def drive(ctx):
        await restart(ctx, dut, seed=9, ar_odds=64, ar_span=0)
        await ctx.tick().repeat(3)
        ready = 0
        for _ in range(2000):
            ready += ctx.get(dut.axi.arready)
            await ctx.tick()
        assert 0.70 < ready / 2000 < 0.80       # 1 - 64 / 256

    simulate(dut, drive)


def test_another_bus_is_refused():
    signature = AxiLite(address_width=12)
    with pytest.raises(ValueError) as refused:
        HostileBus(signature)
    assert str(refused.value) == f"Hostile bus must be of AXI4, not {signature!r}"


def test_all_hostility_off_is_zero():
    assert HOSTILITY.const({}).as_bits() == 0
