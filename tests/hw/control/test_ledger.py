# amaranth: UnusedElaboratable=no
import random

import pytest
from amaranth.sim import Simulator

from hw.control.counters import LEDGER_ENGINES, Counter, LayerField, counter_index
from hw.control.layers import KNOWN_ROWS, LayerLedger
from hw.control.ledger import Ledger
from hw.isa import Cause, Engine, Traffic


def simulate(dut, *benches):
    sim = Simulator(dut)
    sim.add_clock(1e-8)
    for bench in benches:
        sim.add_testbench(bench)
    sim.run()


async def look(ctx, dut, number):
    ctx.set(dut.select, number)
    ctx.set(dut.sample, 1)
    await ctx.tick()
    ctx.set(dut.sample, 0)
    ctx.set(dut.select, 0)
    for _ in range(100):
        if ctx.get(dut.sampled):
            return ctx.get(dut.value)
        await ctx.tick()
    raise TimeoutError(f"counter {number:#x}")


async def clear(ctx, dut):
    ctx.set(dut.clear, 1)
    await ctx.tick()
    ctx.set(dut.clear, 0)


def records(activity, layer):
    """What :class:`LayerLedger` must say about ``(offered, issued, retiring, layer)`` cycles."""
    busy = issued = spent = done = 0
    first = last = begun = None
    for now, (offered, issue, retiring, which) in enumerate(activity):
        if not offered:
            continue
        begun  = now if begun is None else begun
        spent += 1
        done  += issue
        if retiring:
            if which == layer:
                busy, issued, last = busy + spent, issued + done, now
                first = begun if first is None else first
            spent, done, begun = 0, 0, None
    return busy, issued, first or 0, last or 0


USED  = (1, 2, 127, 128, 255)
NEAR  = sorted({*USED, *(layer ^ 1 << bit for layer in USED for bit in range(8))})
"""Layers, and those whose numbers are a bit away, so that none passes for another."""


def offers(rng, cycles, pace):
    """``(offered, issued, retiring, layer)`` of every cycle, as a front end may have them: it takes
    instructions two cycles apart at least, and one retires no later than the next is taken.
    The higher the ``pace``, the more are as fast as can be."""
    activity = []
    taken = 0
    while len(activity) < cycles:
        layer    = rng.choice([1, 1, *USED])
        retiring = max(taken + 1, len(activity))
        retiring += 0 if rng.random() < pace else rng.randrange(8)
        activity += [(0, 1, rng.randrange(2), 1)] * (taken + 1 - len(activity))
        while len(activity) <= retiring:
            activity.append((1, rng.random() < 0.5, len(activity) == retiring, layer))
        taken = max(taken + 2, retiring) + (0 if rng.random() < pace else rng.randrange(3))
    return activity[:cycles]


def test_offers_have_the_worst_case():
    """Two that retire one behind the other, and the next two cycles later."""
    activity = offers(random.Random(0), 1000, 0.6)
    retired  = [now for now, (offered, _, retiring, _) in enumerate(activity)
                if offered and retiring]
    gaps     = list(zip(retired, retired[1:], retired[2:], strict=False))
    assert min(c - a for a, _, c in gaps) == 3
    assert any((b - a, c - b) == (1, 2) for a, b, c in gaps)


@pytest.mark.parametrize("pace", [1, 0.9, 0.6, 0.2])
def test_layer_records(pace):
    activity = offers(random.Random(str(pace)), 400, pace)
    dut = LayerLedger()

    async def read(ctx, layer):
        record = []
        for field in LayerField:
            ctx.set(dut.read, 1)
            ctx.set(dut.read_layer, layer)
            ctx.set(dut.read_field, field)
            await ctx.tick().until(dut.read_done)
            ctx.set(dut.read, 0)
            ctx.set(dut.read_layer, 5)
            record.append(ctx.get(dut.value))
        return tuple(record)

    async def bench(ctx):
        # What a layer had in an earlier run must not come back where one near it has a record.
        for run, other in enumerate((0, 1 << 4, 1)):
            await clear(ctx, dut)
            for layer in NEAR:
                assert await read(ctx, layer) == (0, 0, 0, 0)
            part = [(*rest, layer ^ other)
                    for *rest, layer in activity[:len(activity) // (run + 1)]]
            for now, (offered, issued, retiring, layer) in enumerate(part):
                ctx.set(dut.now, now)
                ctx.set(dut.offered, offered)
                ctx.set(dut.issued, issued)
                ctx.set(dut.retiring, retiring)
                ctx.set(dut.layer, layer)
                await ctx.tick()
            ctx.set(dut.offered, 0)
            for layer in NEAR:
                assert await read(ctx, layer) == records(part, layer)

    simulate(dut, bench)


def test_layer_record_read_while_it_changes():
    dut = LayerLedger()

    async def bench(ctx):
        ctx.set(dut.now, 9)
        ctx.set(dut.offered, 1)
        ctx.set(dut.retiring, 1)
        ctx.set(dut.layer, 7)
        ctx.set(dut.read, 1)
        ctx.set(dut.read_layer, 7)
        ctx.set(dut.read_field, LayerField.LAST)
        await ctx.tick()
        ctx.set(dut.offered, 0)
        for _ in range(3):
            assert not ctx.get(dut.read_done)
            await ctx.tick()
        assert ctx.get(dut.read_done)
        await ctx.tick()
        assert ctx.get(dut.value) == 9

    simulate(dut, bench)


def test_every_counter():
    dut    = Ledger(onchip_readers=3, onchip_writers=2)
    rng    = random.Random(1)
    cycles = 150
    log    = {engine: [] for engine in Engine}
    work   = {engine: offers(rng, cycles + 20, 0.5) for engine in Engine}
    pulses = {"reads": [0] * 3, "writes": [0] * 2}
    frames = {"frame_started": [], "frame_ended": []}

    async def bench(ctx):
        await clear(ctx, dut)
        await ctx.tick().repeat(KNOWN_ROWS)
        for now in range(cycles + 20):
            running = now < cycles
            ctx.set(dut.running, running)
            for engine in Engine:
                offered, _, retiring, layer = work[engine][now]
                entry = (rng.choice(list(Cause)), retiring, offered, layer)
                port = dut.activity[engine]
                ctx.set(port, dict(zip(("cause", "retiring", "offered", "layer"), entry,
                                       strict=True)))
                if running:
                    log[engine].append(entry)
            for name, counts in pulses.items():
                for index in range(len(counts)):
                    pulse = rng.random() < 0.5
                    ctx.set(getattr(dut, f"onchip_{name}")[index], pulse)
                    counts[index] += pulse and running
            for name, stamps in frames.items():
                pulse = rng.random() < 0.6
                ctx.set(getattr(dut, name), pulse)
                if pulse and running:
                    stamps.append(now)
            await ctx.tick()
        for index in range(len(Traffic)):
            ctx.set(dut.read_bytes[index], 100 + index)
            ctx.set(dut.written_bytes[index], 200 + index)
        for engine in Engine:
            ctx.set(dut.retired[engine], 1000 + engine)
        ctx.set(dut.read_bursts, 0x1_0000_0000)
        ctx.set(dut.written_bursts, 8)

        async def value(*which):
            return await look(ctx, dut, counter_index(*which))

        assert await value(Counter.CYCLES) == cycles == ctx.get(dut.cycles)
        for engine in Engine:
            found = [await value(Counter.CAUSE, engine, cause) for cause in Cause]
            assert found == [sum(e[0] is cause for e in log[engine]) for cause in Cause]
            assert sum(found) == cycles
            assert await value(Counter.RETIRED, engine) == 1000 + engine
        for engine in LEDGER_ENGINES:
            activity = [(offered, cause is Cause.ISSUE, retiring, layer)
                        for cause, retiring, offered, layer in log[engine]]
            for layer in (0, 1, 2, 3, 127, 128, 255):
                found = [await value(Counter.LAYER, engine, layer, field) for field in LayerField]
                assert tuple(found) == records(activity, layer)
        for index in range(3):
            assert await value(Counter.ONCHIP_READS, index) == pulses["reads"][index]
        for index in range(2):
            assert await value(Counter.ONCHIP_WRITES, index) == pulses["writes"][index]
        assert await value(Counter.ONCHIP_WRITES, 2) == 0
        for group, which, name in ((Counter.FRAME_STARTED, 0, "frame_started"),
                                   (Counter.FRAME_ENDED, 1, "frame_ended")):
            assert len(frames[name]) > 64
            assert await value(Counter.FRAMES, which) == len(frames[name])
            assert [await value(group, frame) for frame in (0, 1, 62, 63)] == [
                frames[name][frame] for frame in (0, 1, 62, 63)]
        for traffic in Traffic:
            assert await value(Counter.READ_BYTES, traffic) == 100 + traffic.value
            assert await value(Counter.WRITTEN_BYTES, traffic) == 200 + traffic.value
        assert await value(Counter.BURSTS, 0) == 1 << 32
        assert await value(Counter.BURSTS, 1) == 8
        for number in (0x0001, 0x1007, 0x4040, 0xF000, 0xFFFF):
            assert await look(ctx, dut, number) == 0

        await clear(ctx, dut)
        await ctx.tick()
        for which in ((Counter.CYCLES,), (Counter.CAUSE, 0, Cause.ISSUE),
                      (Counter.LAYER, Engine.GATE, 1, LayerField.BUSY), (Counter.FRAMES, 0),
                      (Counter.FRAME_STARTED, 0), (Counter.ONCHIP_READS, 0)):
            assert await value(*which) == 0

    simulate(dut, bench)


def test_sample_takes_four_cycles_or_five():
    dut = Ledger(onchip_readers=0, onchip_writers=0)

    async def bench(ctx):
        await ctx.tick().repeat(KNOWN_ROWS)
        for number, cycles in ((counter_index(Counter.CYCLES), 4),
                               (counter_index(Counter.LAYER, Engine.GATE, 1, LayerField.LAST), 4),
                               (counter_index(Counter.CAUSE, Engine.GATE, Cause.ISSUE), 5)):
            ctx.set(dut.select, number)
            ctx.set(dut.sample, 1)
            await ctx.tick()
            ctx.set(dut.sample, 0)
            assert [(await ctx.tick().sample(dut.sampled))[-1] for _ in range(5)] == [
                cycle == cycles for cycle in range(1, 6)]

    simulate(dut, bench)


def test_ports_are_limited():
    with pytest.raises(ValueError, match="^On-chip readers must be 0 to 16, not 17$"):
        Ledger(onchip_readers=17, onchip_writers=1)
    with pytest.raises(ValueError, match="^On-chip writers must be 0 to 16, not -1$"):
        Ledger(onchip_readers=1, onchip_writers=-1)
