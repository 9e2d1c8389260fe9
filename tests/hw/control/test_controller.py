# amaranth: UnusedElaboratable=no
import random

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
                            [r for r in world.retired if r[1] == engine], strict=True)
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


async def check_good_run(ctx, host, world):
    status = await host.run()
    assert (status.done, status.busy, status.stopped) == (1, 0, 0)
    assert (status.error, status.engine) == (Error.NONE, 0)
    assert ctx.get(host.dut.abort) == 0
    assert [(engine, bits >> 12 & 0xFFF) for _, engine, bits in world.started] == [
        (Engine.LOAD_ENCODER, 0), (Engine.LOAD_ENCODER, 1),
        (Engine.ENCODER_FILL, 0), (Engine.ENCODER_FILL, 1)]
    assert await host.counter(Counter.RETIRED, Engine.ENCODER_FILL) == 2


def test_every_failure_is_reported_and_the_next_run_is_good():
    dut   = CentralController(TINY)
    good  = program(STREAMS, BASE)
    world = World(dut, good, work=quick, latency=lambda: 12)

    async def bench(ctx):
        host = Host(ctx, dut)
        for name, (error, engine, trouble, settings) in FAILURES.items():
            world.words, world.work, world.broken = (trouble.get("words", good),
                                                     trouble.get("work", quick),
                                                     trouble.get("broken", ()))
            await host.bus.write(Register.PROGRAM_BASE, BASE)
            await host.bus.write(Register.IRQ_ENABLE, 2)
            for register, value in settings.items():
                await host.bus.write(register, value)
            await host.bus.write(Register.CONTROL, 1)
            status = await host.finish()
            assert (status.done, status.busy, status.stopped) == (1, 0, 0), name
            assert (status.error, status.engine) == (error, engine), name
            assert ctx.get(dut.abort) == 1
            assert not world.busy, name

            # The ledger stays, and is complete.
            total = await host.counter(Counter.CYCLES)
            assert total > 0
            for other in (Engine.LOAD_ENCODER, Engine.ENCODER_FILL, Engine.GATE):
                causes = [await host.counter(Counter.CAUSE, other, cause) for cause in Cause]
                assert sum(causes) == total, name
            if error == Error.CYCLE_LIMIT:
                assert 90 <= total < 95

            world.words, world.work, world.broken = good, quick, ()
            for register in settings:
                await host.bus.write(register, 0)
            await check_good_run(ctx, host, world)

    simulate(dut, world, bench, deadline=1e-3)


def test_lowest_engine_is_blamed():
    dut   = CentralController(TINY)
    words = program({engine: [instruction(engine)] for engine in Engine}, BASE)
    world = World(dut, words, work=None, latency=lambda: 0)

    async def bench(ctx):
        host = Host(ctx, dut)
        for guilty in ((Engine.GATE, Engine.DECODER_FILL), (Engine.STORE,), tuple(Engine)):
            # All in the same cycle
            world.work = lambda engine, bits, guilty=guilty: (
                [Cause.ISSUE] * (120 - world.cycle)
                + [Error.BAD_ADDRESS if engine in guilty else Cause.ISSUE] * 99)
            status = await host.run()
            assert (status.error, status.engine) == (Error.BAD_ADDRESS, guilty[0])

    simulate(dut, world, bench)


def test_watchdog_looks_for_progress_only():
    dut   = CentralController(TINY)
    words = program({Engine.STORE: [sync()] + [instruction(Engine.STORE)] * 2}, BASE)
    world = World(dut, words, work=lambda engine, bits: (
        [Cause.OFFCHIP] * 35 + [Cause.ISSUE] + [Cause.BACKPRESSURE] * 35))

    async def bench(ctx):
        host = Host(ctx, dut)
        await host.bus.write(Register.STALL_LIMIT, 60)
        status = await host.run()
        assert status.error == Error.NONE
        assert await host.counter(Counter.CYCLES) > 140
        await host.bus.write(Register.STALL_LIMIT, 30)
        status = await host.run()
        assert (status.error, status.engine) == (Error.STALLED, Engine.STORE)

    simulate(dut, world, bench)


def test_host_stops_a_run_while_the_program_is_being_fetched():
    dut   = CentralController(TINY)
    world = World(dut, program(STREAMS, BASE), work=quick, latency=lambda: 25)

    async def bench(ctx):
        host = Host(ctx, dut)
        for wait in (0, 9, 30, 60):
            await host.start()
            await host.bus.write(Register.CONTROL, 1)          # does nothing: already started
            for _ in range(wait):
                await ctx.tick()
            busy = Status.from_bits(await host.bus.read(Register.STATUS))
            assert (busy.busy, busy.done) == (1, 0)
            await host.bus.write(Register.CONTROL, 2)
            status = await host.finish()
            assert (status.done, status.busy, status.stopped) == (1, 0, 1)
            assert status.error == Error.NONE
            assert not world.busy
        await host.bus.write(Register.CONTROL, 2)              # does nothing: not started
        await check_good_run(ctx, host, world)

    simulate(dut, world, bench)


def test_a_stop_right_after_the_start_is_not_lost():
    dut   = CentralController(TINY)
    world = World(dut, program(STREAMS, BASE), work=quick)

    async def bench(ctx):
        host = Host(ctx, dut)
        await host.bus.write(Register.PROGRAM_BASE, BASE)
        await host.bus.write(Register.IRQ_ENABLE, 1)
        for gap in (None, 0, 1, 2, 3):
            await host.bus.write(Register.CONTROL, 3 if gap is None else 1)
            if gap is not None:
                for _ in range(gap):
                    await ctx.tick()
                await host.bus.write(Register.CONTROL, 2)
            status = await host.finish()
            assert (status.done, status.busy, status.stopped) == (1, 0, 1), gap
            assert status.error == Error.NONE
            assert not world.retired
        await check_good_run(ctx, host, world)

    simulate(dut, world, bench)


STALL = 80


async def hang(host, world):
    """A run on a bus that stops answering in the middle; its status."""
    await host.bus.write(Register.STALL_LIMIT, STALL)
    await host.start()
    while not world.retired:
        await host.ctx.tick()
    world.dead = True
    return await host.finish()


def test_memory_that_never_answers_ends_the_run_and_refuses_the_next():
    dut   = CentralController(TINY)
    world = World(dut, program({**STREAMS, Engine.GATE: [instruction(Engine.GATE)] * 20}, BASE),
                  work=quick)

    async def bench(ctx):
        host   = Host(ctx, dut)
        status = await hang(host, world)
        assert (status.done, status.busy, status.unanswered) == (1, 0, 1)
        assert status.error == Error.STALLED
        assert ctx.get(dut.abort)
        before = await host.counter(Counter.CYCLES)

        status = await host.run()
        assert (status.done, status.busy, status.unanswered) == (1, 0, 1)
        assert (status.error, status.engine) == (Error.NO_ANSWER, 0)
        assert await host.counter(Counter.CYCLES) == before, "nothing was reset"

        await host.start()
        await host.bus.write(Register.CONTROL, 2)
        status = await host.finish()
        assert (status.stopped, status.error) == (1, Error.NONE)

        # The next start waits for answers that come late.
        await host.start()
        await ctx.tick().repeat(STALL // 2)
        world.dead, world.words = False, program(STREAMS, BASE)
        status = await host.finish()
        assert (status.done, status.error, status.unanswered) == (1, Error.NONE, 0)
        await check_good_run(ctx, host, world)

    simulate(dut, world, bench)


def test_the_first_error_stays_although_memory_never_answers():
    gates = [instruction(Engine.GATE)] * 22
    gates[1] = instruction(Engine.GATE, waits=[(Engine.STORE, 1)]) | 15 << 24      # no such engine
    dut   = CentralController(TINY)
    world = World(dut, program({Engine.GATE: gates}, BASE), work=quick)

    async def bench(ctx):
        host = Host(ctx, dut)
        await host.bus.write(Register.STALL_LIMIT, STALL)
        await host.start()
        while not world.started:
            await ctx.tick()
        world.dead = True
        status = await host.finish()
        assert (status.error, status.engine) == (Error.BAD_PROGRAM, Engine.GATE)
        assert status.unanswered
        await host.start()
        await ctx.tick().repeat(20)
        status = Status.from_bits(await host.bus.read(Register.STATUS))
        assert (status.busy, status.unanswered) == (1, 0), "it may still answer"

    simulate(dut, world, bench)


def test_a_limit_of_one_cycle_more_is_one_cycle_more():
    dut   = CentralController(TINY)
    world = World(dut, program(STREAMS, BASE), latency=lambda: 12, **HANGS)

    async def bench(ctx):
        host, totals = Host(ctx, dut), []
        for limit in range(90, 94):
            await host.bus.write(Register.CYCLE_LIMIT_LO, limit)
            assert (await host.run()).error == Error.CYCLE_LIMIT
            totals.append(await host.counter(Counter.CYCLES))
        assert totals == [totals[0] + more for more in range(4)]

    simulate(dut, world, bench)


def test_a_stop_ends_although_memory_never_answers():
    dut   = CentralController(TINY)
    world = World(dut, program(STREAMS, BASE), work=quick)
    world.dead = True

    async def bench(ctx):
        host = Host(ctx, dut)
        await host.bus.write(Register.STALL_LIMIT, STALL)
        await host.start()
        await ctx.tick().repeat(20)
        await host.bus.write(Register.CONTROL, 2)
        status = await host.finish()
        assert (status.done, status.stopped, status.unanswered) == (1, 1, 1)
        assert status.error == Error.NO_ANSWER

    simulate(dut, world, bench)


def test_reset_forgets_what_memory_owes():
    dut   = CentralController(TINY)
    world = World(dut, program(STREAMS, BASE), work=quick)

    async def bench(ctx):
        host = Host(ctx, dut)
        for when in ("hung", "waiting", "aborting", "running", "at once"):
            if when in ("hung", "waiting"):
                await hang(host, world)
            if when == "aborting":
                world.dead = True
            if when != "hung":
                await host.start()
            if when not in ("hung", "at once"):
                await ctx.tick().repeat(20)
            if when == "aborting":
                await host.bus.write(Register.CONTROL, 2)
            world.forgetful = True
            await host.bus.write(Register.CONTROL, 4)
            await ctx.tick().repeat(4)
            world.forgetful = world.dead = False
            assert await host.bus.read(Register.STATUS) == 0, when
            assert ctx.get(dut.abort) == 0
            await host.bus.write(Register.IRQ_STATUS, 3)
            await check_good_run(ctx, host, world)

    simulate(dut, world, bench)


def test_run_is_not_done_before_the_transfers_are():
    dut   = CentralController(TINY)
    world = World(dut, program(STREAMS, BASE), work=quick)
    world.linger = 50

    async def bench(ctx):
        host = Host(ctx, dut)
        await host.run()
        assert await host.counter(Counter.CYCLES) >= world.retired[-1][0] + 45

    simulate(dut, world, bench)


async def live(ctx, dut):
    """The host of a stream of which only the first frame is there, with little patience."""
    host = Host(ctx, dut)
    await host.bus.write(Register.STALL_LIMIT, 60)
    await host.bus.write(Register.FRAMES_READY, 1)
    return host


def test_frames_that_come_while_it_runs():
    """The load of a frame waits until the host tells of it, longer than the stall limit; loads of
    other things do not. Each mask raises an interrupt of its own."""
    loads   = [instruction(Engine.LOAD_ENCODER, frame_start=first) for first in (1, 0, 1, 0, 1)]
    streams = {**STREAMS, Engine.LOAD_ENCODER: loads, Engine.LOAD_ATTENTION: [
        instruction(Engine.LOAD_ATTENTION)] * 3}
    dut     = CentralController(TINY)
    world   = World(dut, program(streams, BASE), work=quick)

    async def bench(ctx):
        host = await live(ctx, dut)
        await host.start()
        for frames in (1, 2):
            await ctx.tick().repeat(400)
            begun = [bits for _, engine, bits in world.started if engine is Engine.LOAD_ENCODER]
            assert len(begun) == 2 * frames
            assert Status.from_bits(await host.bus.read(Register.STATUS)).busy
            await host.bus.write(Register.IRQ_ENABLE, 0b101)
            ctx.set(dut.frame_ended, 1)
            await ctx.tick()
            ctx.set(dut.frame_ended, 0)
            await ctx.tick()
            assert ctx.get(dut.irq)
            assert await host.bus.read(Register.IRQ_STATUS) == 0b100
            await host.bus.write(Register.IRQ_STATUS, 0b100)
            assert not ctx.get(dut.irq)
            await host.bus.write(Register.FRAMES_READY, frames + 1)
        status = await host.finish()
        assert status.error == Error.NONE
        assert len([engine for _, engine, _ in world.started
                    if engine is Engine.LOAD_ENCODER]) == 5
        # The next run begins with frame 0 again; with 0 nothing is held.
        await host.bus.write(Register.FRAMES_READY, 0)
        assert (await host.run()).error == Error.NONE

    simulate(dut, world, bench)


def test_a_machine_that_stands_still_is_stalled_though_frames_come():
    streams = {Engine.LOAD_ENCODER: [instruction(Engine.LOAD_ENCODER, frame_start=1)],
               Engine.STORE: [instruction(Engine.STORE, waits=[(Engine.GATE, 1)])]}
    dut     = CentralController(TINY)
    world   = World(dut, program(streams, BASE), work=quick)

    async def bench(ctx):
        host = await live(ctx, dut)
        status = await host.run()
        assert (status.error, status.engine) == (Error.STALLED, Engine.STORE)

    simulate(dut, world, bench)


def test_counters_pass_through():
    dut   = CentralController(TINY, onchip_readers=2, onchip_writers=1)
    world = World(dut, program(STREAMS, BASE), work=quick)

    async def bench(ctx):
        host = Host(ctx, dut)
        ctx.set(dut.read_bytes[2], 1234)
        ctx.set(dut.written_bytes[5], 4321)
        ctx.set(dut.read_bursts, 12)
        ctx.set(dut.written_bursts, 13)
        ctx.set(dut.onchip_reads[1], 1)
        ctx.set(dut.frame_ended, 1)
        ctx.set(dut.monitor_dropped, 7)
        await host.bus.write(Register.MONITOR_X0, 99)
        assert ctx.get(dut.monitor.x0) == 99
        await host.bus.write(Register.WRITE_LIMIT, 0x1230)
        assert ctx.get(dut.writable.limit) == 0x1230
        assert await host.bus.read(Register.MONITOR_DROPPED) == 7
        await host.run()
        total = await host.counter(Counter.CYCLES)
        assert await host.counter(Counter.READ_BYTES, 2) == 1234
        assert await host.counter(Counter.WRITTEN_BYTES, 5) == 4321
        assert await host.counter(Counter.BURSTS, 0) == 12
        assert await host.counter(Counter.BURSTS, 1) == 13
        assert await host.counter(Counter.ONCHIP_READS, 0) == 0
        assert await host.counter(Counter.ONCHIP_READS, 1) == total
        assert await host.counter(Counter.FRAMES, 0) == 0
        assert await host.counter(Counter.FRAMES, 1) == total
        assert await host.counter(Counter.FRAME_ENDED, 5) == 5

    simulate(dut, world, bench)


def test_config_must_be_one():
    with pytest.raises(ValueError, match="^Controller config must be a Config, not 'tiny'$"):
        CentralController("tiny")
