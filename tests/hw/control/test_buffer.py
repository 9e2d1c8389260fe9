# amaranth: UnusedElaboratable=no
import random

import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator

from hw.control.buffer import InstructionBuffer
from hw.isa import Engine

ALL = (1 << len(Engine)) - 1


def simulate(bench, *, depth):
    dut = InstructionBuffer(depth=depth)

    async def run(ctx):
        await bench(ctx, dut)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(run)
    sim.run()


async def put(ctx, dut, engine, bits):
    ctx.set(dut.reserve, 1 << engine)
    await ctx.tick()
    ctx.set(dut.reserve, 0)
    ctx.set(dut.i.payload, {"engine": engine, "instruction": bits})
    ctx.set(dut.i.valid, 1)
    await ctx.tick()
    ctx.set(dut.i.valid, 0)


async def collect(ctx, dut, cycles, *, ready):
    """Who got what in which cycle; ``ready`` gets the engine and how many it has."""
    log = []
    for cycle in range(cycles):
        for engine in Engine:
            port = dut.o[engine]
            have = sum(other == engine for _, other, _ in log)
            ctx.set(port.ready, ready(engine, have))
            if ctx.get(port.valid) and ctx.get(port.ready):
                log.append((cycle, engine, ctx.get(Value.cast(port.payload))))
        await ctx.tick()
    return log


def test_two_cycles_from_write_to_offer():
    async def bench(ctx, dut):
        port = dut.o[Engine.GATE]
        ctx.set(port.ready, 1)
        await put(ctx, dut, Engine.GATE, 5)
        assert not ctx.get(port.valid)
        await ctx.tick()
        assert ctx.get(port.valid) and ctx.get(Value.cast(port.payload)) == 5
        await ctx.tick()
        assert not ctx.get(port.valid)

    simulate(bench, depth=2)


def test_room_counts_what_is_on_its_way():
    async def bench(ctx, dut):
        mine = 1 << Engine.STORE
        assert (ctx.get(dut.room), ctx.get(dut.empty)) == (ALL, ALL)
        ctx.set(dut.reserve, mine)
        await ctx.tick().repeat(2)
        ctx.set(dut.reserve, 0)
        assert (ctx.get(dut.room), ctx.get(dut.empty)) == (ALL - mine, ALL - mine)
        for bits in (1, 2):
            ctx.set(dut.i.payload, {"engine": Engine.STORE, "instruction": bits})
            ctx.set(dut.i.valid, 1)
            await ctx.tick()
        ctx.set(dut.i.valid, 0)
        assert ctx.get(dut.room) == ALL - mine
        log = await collect(ctx, dut, 8, ready=lambda engine, have: have < 1)
        assert [bits for *_, bits in log] == [1]
        assert (ctx.get(dut.room), ctx.get(dut.empty)) == (ALL, ALL - mine)
        log = await collect(ctx, dut, 8, ready=lambda engine, have: True)
        assert [bits for *_, bits in log] == [2]
        assert (ctx.get(dut.room), ctx.get(dut.empty)) == (ALL, ALL)

    simulate(bench, depth=2)


def test_receiver_that_stops_holds_nobody_up():
    async def bench(ctx, dut):
        for engine in (Engine.LOAD_ENCODER, Engine.GATE):
            for bits in range(4):
                await put(ctx, dut, engine, bits)
        log = await collect(ctx, dut, 5, ready=lambda engine, have: (
            engine == Engine.LOAD_ENCODER and have < 1))
        assert [bits for *_, bits in log] == [0]
        log = await collect(ctx, dut, 10, ready=lambda engine, have: engine == Engine.GATE)
        assert [bits for *_, bits in log] == [0, 1, 2, 3]

    simulate(bench, depth=4)


def test_receivers_take_turns_one_per_cycle():
    async def bench(ctx, dut):
        three = (Engine.LOAD_ENCODER, Engine.STORE, Engine.DECODER_CONV)
        for engine in three:
            for bits in range(4):
                await put(ctx, dut, engine, bits)
        log = await collect(ctx, dut, 20, ready=lambda engine, have: True)
        assert [cycle for cycle, *_ in log] == list(range(1, 13))
        turns = [engine for _, engine, _ in log]
        assert all(set(turns[start:start + 3]) == set(three) for start in range(0, 12, 3))

    simulate(bench, depth=4)


def test_every_engine_gets_what_it_has_room_for_whatever_it_takes():
    """One whose receiver takes back its ``ready`` keeps what is on offer."""
    rng = random.Random(3)

    async def bench(ctx, dut):
        for counts in ([4] * len(Engine), [1] * len(Engine), rng.choices(range(5), k=len(Engine))):
            for engine, count in zip(Engine, counts, strict=True):
                for bits in range(count):
                    await put(ctx, dut, engine, engine << 8 | bits)
            assert ctx.get(dut.room) == sum((count < 4) << e for e, count in enumerate(counts))
            log = await collect(ctx, dut, 300, ready=lambda engine, have: rng.random() < 0.3)
            await collect(ctx, dut, 1, ready=lambda engine, have: False)
            for engine, count in zip(Engine, counts, strict=True):
                assert [bits for _, other, bits in log if other == engine] == [
                    engine << 8 | bits for bits in range(count)]
            assert (ctx.get(dut.room), ctx.get(dut.empty)) == (ALL, ALL)

    simulate(bench, depth=4)


def test_parameters():
    with pytest.raises(ValueError, match="^Buffer depth must be a power of two, not 3$"):
        InstructionBuffer(depth=3)
