# amaranth: UnusedElaboratable=no
import random
import re

import pytest
from amaranth.sim import Simulator

from hw.compute.drain import LATENCY, Drain
from hw.config import UnitConfig
from tests.support import simulate

DELAY = 3


def make(*, pixels=1, outputs=2, drain=2, vector=8, params=64, delay=DELAY, transform=False):
    unit = UnitConfig(pixels=pixels, outputs=outputs, drain=drain, row_words=4, weight_words=4,
                      params=params, transform=transform)
    return Drain(unit=unit, vector=vector, delay=delay)


def serve(dut, sums, *, depthwise=False, transformed=False, take=1.0, seed=0):
    """Issue ``sums`` as early as ``room`` allows. Returns the cycles of their reservations, and
    those in which bytes came out, which must be the right ones.

    Channel ``c`` of pixel ``p`` of sum ``n`` is ``n + 10 * p + c``, plus the bias of its channel,
    which is that channel's number, counted from the first parameter.
    """
    unit, reserved, got = dut.unit, [], []
    chance   = random.Random(seed)
    channels = dut.vector if depthwise else unit.outputs
    size     = unit.drain if depthwise else unit.outputs
    first    = 2 * channels                       # channel of the first parameter
    pixels   = unit.pixels * (1 + transformed)
    words    = unit.params * unit.outputs // unit.drain

    async def params(ctx):
        """The parameter memory."""
        while True:
            enable, address = (await ctx.tick().sample(dut.params.enable, dut.params.address))[2:]
            if enable:
                assert address < words
                for lane, port in enumerate(dut.params.data):
                    ctx.set(port, {"multiplier": 2, "shift": 1,
                                   "bias": address * unit.drain + lane})

    async def bench(ctx):
        ctx.set(dut.layer, {"low": 0, "high": 255, "depthwise": depthwise,
                            "transformed": transformed})
        ctx.set(dut.conv, {"groups": 2, "param_base": first // unit.outputs})
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        cycle = 0
        while len(got) < sums * pixels * channels // size and cycle < 10_000:
            issue = ctx.get(dut.room) and len(reserved) < sums
            ctx.set(dut.reserve, issue)
            done = cycle - DELAY in reserved
            ctx.set(dut.done, done)
            if issue:
                reserved.append(cycle)
            if done:
                number = reserved.index(cycle - DELAY)
                rows = dut.depthwise_acc if depthwise else dut.acc
                if transformed:
                    rows = [row for pair in zip(dut.acc, dut.odd_acc, strict=True) for row in pair]
                for p, row in enumerate(rows):
                    for c, acc in enumerate(row):
                        ctx.set(acc, number + 10 * p + c)
            ctx.set(dut.o.ready, chance.random() < take)
            if ctx.get(dut.o.valid) and ctx.get(dut.o.ready):
                got.append((cycle, list(ctx.get(dut.o.p))[:size]))
            await ctx.tick()
            cycle += 1

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.add_testbench(params, background=True)
    sim.run()
    wanted = [[n + 10 * p + c + first + n % 2 * channels + c for c in range(start, start + size)]
              for n in range(sums) for p in range(pixels)
              for start in range(0, channels, size)]
    assert [y for _, y in got] == wanted
    return reserved, [cycle for cycle, _ in got]


SHAPES = [(1, 2, 2, 8), (2, 2, 4, 8), (4, 2, 8, 8), (1, 4, 16, 16)]    # drain up to the vector


@pytest.mark.parametrize("pixels, outputs, drain, vector", SHAPES)
def test_one_pixel_per_cycle(pixels, outputs, drain, vector):
    dut = make(pixels=pixels, outputs=outputs, drain=drain, vector=vector)
    reserved, got = serve(dut, 30)
    assert reserved == list(range(0, 30 * pixels, pixels))
    assert got == list(range(DELAY + LATENCY, DELAY + LATENCY + 30 * pixels))


@pytest.mark.parametrize("pixels, outputs, drain, vector", SHAPES)
def test_depthwise_takes_a_piece_per_cycle(pixels, outputs, drain, vector):
    dut = make(pixels=pixels, outputs=outputs, drain=drain, vector=vector)
    pieces = dut.depthwise_pieces
    assert pieces == pixels * vector // drain
    reserved, got = serve(dut, 12, depthwise=True)
    assert reserved == list(range(0, 12 * pieces, pieces))
    assert got == list(range(DELAY + LATENCY, DELAY + LATENCY + 12 * pieces))


@pytest.mark.parametrize("pixels, outputs, drain, vector", SHAPES)
def test_transformed_sums_have_two_pixels_a_lane(pixels, outputs, drain, vector):
    dut = make(pixels=pixels, outputs=outputs, drain=drain, vector=vector, transform=True)
    reserved, got = serve(dut, 12, transformed=True)
    pieces = 2 * pixels
    assert reserved == list(range(0, 12 * pieces, pieces))
    assert got == list(range(DELAY + LATENCY, DELAY + LATENCY + 12 * pieces))


@pytest.mark.parametrize("pixels, outputs, drain, vector", SHAPES)
@pytest.mark.parametrize("depthwise", [False, True])
def test_a_drain_for_the_transform_runs_other_layers_too(pixels, outputs, drain, vector, depthwise):
    dut = make(pixels=pixels, outputs=outputs, drain=drain, vector=vector, transform=True)
    pieces = dut.depthwise_pieces if depthwise else pixels
    assert serve(dut, 12, depthwise=depthwise)[0] == list(range(0, 12 * pieces, pieces))


@pytest.mark.parametrize("take", [0.1, 0.4])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("pixels", [1, 4])
def test_a_slow_consumer_holds_back_reservations(pixels, depthwise, take):
    dut = make(pixels=pixels)
    reserved, _ = serve(dut, 40, take=take, seed=pixels, depthwise=depthwise)
    pieces = dut.depthwise_pieces if depthwise else pixels
    assert reserved[-1] > 2 * 39 * pieces - dut.queue_depth * 2


def test_table_replaces_every_byte():
    dut = make()

    async def bench(ctx):
        ctx.set(dut.layer, {"high": 255, "table": 1})
        for lane, acc in enumerate(dut.acc[0]):
            ctx.set(dut.params.data[lane], {"multiplier": 2, "shift": 1})
            ctx.set(acc, 77 + lane)
        ctx.set(dut.done, 1)
        await ctx.tick()
        ctx.set(dut.done, 0)
        for _ in range(LATENCY):
            addresses = [ctx.get(address) for address in dut.table.address]
            await ctx.tick()
            for address, byte in zip(addresses, dut.table.data, strict=True):
                ctx.set(byte, 2 * address if address in (77, 78) else 0)
        assert ctx.get(dut.o.valid)
        assert list(ctx.get(dut.o.p)) == [154, 156]

    simulate(dut, bench)


def test_delay_must_be_positive():
    with pytest.raises(ValueError, match="^Drain delay must be positive, not 0$"):
        make(delay=0)


def test_lanes_must_not_exceed_the_vector():
    with pytest.raises(ValueError, match="^" + re.escape(
            "Drain lanes (16) must not exceed the vector (8)") + "$"):
        make(drain=16)
