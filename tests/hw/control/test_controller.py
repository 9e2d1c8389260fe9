# amaranth: UnusedElaboratable=no
import random
import re

import pytest
from amaranth.sim import Simulator

from hw.config import TINY
from hw.control.controller import CentralController
from hw.control.counters import Counter, LayerField, counter_index
from hw.control.regmap import Register, Status
from hw.isa import CONVS, Cause, Engine, Error, Opcode
from tests.hw.control.bench import Bus, World, instruction, opcode, program, sync, waits

BASE = 0x1000


class Host:
    """The driver's side of a run."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut, self.bus = ctx, dut, Bus(ctx, dut.bus)

    async def start(self):
        await self.bus.write(Register.PROGRAM_BASE, BASE)
        await self.bus.write(Register.IRQ_ENABLE, 1)
        await self.bus.write(Register.CONTROL, 1)

    async def finish(self):
        await self.ctx.tick().until(self.dut.irq)
        await self.bus.write(Register.IRQ_STATUS, 3)
        return Status.from_bits(await self.bus.read(Register.STATUS))

    async def run(self):
        await self.start()
        return await self.finish()

    async def counter(self, *which):
        await self.bus.write(Register.COUNTER_SELECT, counter_index(*which))
        low = await self.bus.read(Register.COUNTER_LO)
        return low | await self.bus.read(Register.COUNTER_HI) << 32


def simulate(dut, world, bench, *, deadline=3e-4):
    async def watchdog(ctx):
        await ctx.delay(deadline)
        raise TimeoutError("controller did not finish")

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(world.run, background=True)
    sim.add_testbench(bench)
    sim.add_testbench(watchdog, background=True)
    sim.run()


def quick(engine, bits):
    return [Cause.FILL_DRAIN, Cause.ISSUE]


def random_program(rng, length):
    """Streams that a sequential order of emission makes free of deadlock."""
    streams = {engine: [] for engine in Engine}
    for _ in range(length):
        engine = rng.choice(list(Engine))
        others = rng.sample(list(Engine), rng.randrange(4))
        needed = [(other, rng.randint(max(0, len(streams[other]) - 2), len(streams[other])))
                  for other in others]
        if rng.random() < 0.15:
            bits = sync(*needed)
        else:
            bits = instruction(engine, layer=rng.randrange(1, 4), waits=needed,
                               row=len(streams[engine]))
        streams[engine].append(bits)
    return streams


def check_order(world, streams):
    """Every instruction ran once, in order, and after all that it waits for."""
    for engine in Engine:
        expected = [bits for bits in streams[engine] if opcode(bits) != Opcode.SYNC.value]
        assert [bits for _, other, bits in world.started if other == engine] == expected

    ends = {engine: iter([cycle for cycle, other, _ in world.retired if other == engine])
            for engine in Engine}
    known = {}      # (engine, count): earliest cycle by which `count` can have retired

    def end(engine, count):
        if count == 0:
            return 0
        if (engine, count) not in known:
            bits    = streams[engine][count - 1]
            earlier = end(engine, count - 1)
            if opcode(bits) == Opcode.SYNC.value:
                cycle = max([earlier, *(end(Engine(e), n) for e, n in waits(bits))])
            else:
                cycle = next(ends[engine])
            known[engine, count] = cycle
        return known[engine, count]

    starts = {engine: iter([cycle for cycle, other, _ in world.started if other == engine])
              for engine in Engine}
    for engine in Engine:
        for index, bits in enumerate(streams[engine]):
            if opcode(bits) == Opcode.SYNC.value:
                continue
            start = next(starts[engine])
            assert start >= end(engine, index)
            for other, count in waits(bits):
                assert start >= end(Engine(other), count)


@pytest.mark.parametrize("seed", range(4))
def test_random_programs_in_order_and_every_cycle_charged(seed):
    rng     = random.Random(seed)
    slow    = seed % 2
    dut     = CentralController(TINY, onchip_readers=2, onchip_writers=1)
    streams = random_program(rng, 90)
    kinds   = [Cause.ISSUE, Cause.ISSUE, Cause.CONFLICT, Cause.BACKPRESSURE, Cause.FILL_DRAIN]
    world   = World(dut, program(streams, BASE),
                    work=lambda engine, bits: rng.choices(kinds, k=rng.choice([1, 2, 9])),
                    latency=lambda: rng.randrange(30) if slow else 0)

    async def bench(ctx):
        host = Host(ctx, dut)
        status = await host.run()
        assert (status.done, status.busy, status.error) == (1, 0, Error.NONE)
        check_order(world, streams)
        total = await host.counter(Counter.CYCLES)
        for engine in Engine:
            found = [await host.counter(Counter.CAUSE, engine, cause) for cause in Cause]
            assert sum(found) == total, engine
            for cause in (Cause.ISSUE, Cause.CONFLICT, Cause.BACKPRESSURE):
                assert found[cause.value] == world.causes[engine][cause.value], (engine, cause)
            assert found[Cause.NO_WORK.value] > 0
            assert await host.counter(Counter.RETIRED, engine) == len(streams[engine])
        for engine in (*CONVS, Engine.GATE):
            for layer in range(1, 4):
                mine = [(start, end) for (start, _, bits), (end, _, _) in zip(
                            [s for s in world.started if s[1] == engine],
                            [r for r in world.retired if r[1] == engine])
                        if bits >> 4 & 0xFF == layer]
                if mine:
                    found = [await host.counter(Counter.LAYER, engine, layer, field)
                             for field in LayerField]
                    assert found[LayerField.BUSY] == sum(end - start for start, end in mine)
                    assert (found[LayerField.LAST] - found[LayerField.FIRST]
                            == mine[-1][1] - 1 - mine[0][0])

    simulate(dut, world, bench)


STREAMS = {
    Engine.LOAD_ENCODER: [instruction(Engine.LOAD_ENCODER, row=row) for row in range(2)],
    Engine.ENCODER_FILL: [instruction(Engine.ENCODER_FILL, row=row,
                                      waits=[(Engine.LOAD_ENCODER, row + 1)])
                          for row in range(2)],
}


def raising(error):
    def work(engine, bits):
        if engine == Engine.ENCODER_FILL and bits >> 12 & 0xFFF == 1:
            return [Cause.ISSUE, error]
        return [Cause.ISSUE] * 3
    return work


def spoiled(address, change):
    words = program(STREAMS, BASE)
    words[address] = change(words[address])
    return words


FILL = Engine.ENCODER_FILL.value
HEADER = BASE + 32 * FILL
FIRST_INSTRUCTION = BASE + 32 * len(Engine)
SECOND_FILL = FIRST_INSTRUCTION + 32 * 3
HANGS = {"work": lambda engine, bits: [Cause.FILL_DRAIN] * 100_000}

FAILURES = {
    "engine":      (Error.AXI_WRITE, FILL, {"work": raising(Error.AXI_WRITE)}, {}),
    "address":     (Error.BAD_ADDRESS, FILL, {"work": raising(Error.BAD_ADDRESS)}, {}),
    "magic":       (Error.BAD_PROGRAM, FILL, {"words": spoiled(HEADER, lambda w: w ^ 1)}, {}),
    "header":      (Error.BAD_PROGRAM, FILL, {"words": spoiled(HEADER, lambda w: w ^ 1 << 32)},
                    {}),
    "misaligned":  (Error.BAD_PROGRAM, FILL, {"words": spoiled(HEADER, lambda w: w ^ 1 << 54)},
                    {}),
    "beyond":      (Error.BAD_PROGRAM, FILL, {"words": spoiled(HEADER, lambda w: w | 1 << 85)},
                    {}),
    "too long":    (Error.BAD_PROGRAM, FILL, {"words": spoiled(HEADER, lambda w: w | 1 << 53)},
                    {}),
    "base":        (Error.BAD_PROGRAM, 0, {}, {Register.PROGRAM_BASE: BASE + 4}),
    "base beyond": (Error.BAD_PROGRAM, 0, {}, {Register.PROGRAM_BASE: TINY.offchip_bytes - 32}),
    "opcode":      (Error.BAD_OPCODE, FILL,
                    {"words": spoiled(SECOND_FILL, lambda w: w ^ 0xF)}, {}),
    "other's":     (Error.BAD_OPCODE, FILL,
                    {"words": spoiled(SECOND_FILL, lambda w: w ^ 6 ^ 5)}, {}),
    "wait":        (Error.BAD_PROGRAM, FILL,
                    {"words": spoiled(SECOND_FILL, lambda w: w | 15 << 24)}, {}),
    "read header": (Error.AXI_READ, FILL, {"broken": [HEADER]}, {}),
    "read":        (Error.AXI_READ, FILL, {"broken": [SECOND_FILL]}, {}),
    "stall":       (Error.STALLED, 0, HANGS, {Register.STALL_LIMIT: 80}),
    "limit":       (Error.CYCLE_LIMIT, 0, HANGS, {Register.CYCLE_LIMIT_LO: 90}),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failure_is_reported_and_the_next_run_is_good(name):
    error, engine, trouble, settings = FAILURES[name]
    dut   = CentralController(TINY)
    good  = program(STREAMS, BASE)
    world = World(dut, trouble.get("words", good), work=trouble.get("work", quick),
                  broken=trouble.get("broken", ()), latency=lambda: 12)

    async def bench(ctx):
        host = Host(ctx, dut)
        await host.bus.write(Register.PROGRAM_BASE, BASE)
        await host.bus.write(Register.IRQ_ENABLE, 2)
        for register, value in settings.items():
            await host.bus.write(register, value)
        await host.bus.write(Register.CONTROL, 1)
        status = await host.finish()
        assert (status.done, status.busy, status.stopped) == (1, 0, 0)
        assert (status.error, status.engine) == (error, engine)
        assert ctx.get(dut.abort) == 1
        total = await host.counter(Counter.CYCLES)
        assert total > 0
        for other in Engine:
            assert sum([await host.counter(Counter.CAUSE, other, c) for c in Cause]) == total
        if error == Error.CYCLE_LIMIT:
            assert 90 <= total < 95

        world.words, world.work, world.broken = good, quick, set()
        for register in settings:
            await host.bus.write(register, 0)
        status = await host.run()
        assert (status.done, status.error, status.engine) == (1, Error.NONE, 0)
        assert ctx.get(dut.abort) == 0
        assert [(e, bits >> 12 & 0xFFF) for _, e, bits in world.started] == [
            (Engine.LOAD_ENCODER, 0), (Engine.LOAD_ENCODER, 1),
            (Engine.ENCODER_FILL, 0), (Engine.ENCODER_FILL, 1)]
        assert await host.counter(Counter.RETIRED, Engine.ENCODER_FILL) == 2

    simulate(dut, world, bench)
