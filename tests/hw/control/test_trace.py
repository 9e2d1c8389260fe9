# amaranth: UnusedElaboratable=no
import random

import pytest
from amaranth.sim import Simulator

from hw.config import TINY
from hw.control.controller import CentralController
from hw.control.counters import Counter
from hw.control.trace import EventTrace
from hw.isa import FORMS, Cause, Engine, Opcode, Traffic
from tests.hw.control.bench import World, instruction, opcode, program, sync
from tests.hw.control.test_controller import BASE, Host, random_program

CONV = Engine.ENCODER_CONV


def show(cycles):
    """Events of the encoder's array, cycle by cycle; ``cycles`` are what its front end shows."""
    dut, seen = EventTrace(ports=2), []

    async def bench(ctx):
        ctx.set(dut.running, 1)
        for fields in cycles:
            ctx.set(dut.activity[CONV], fields)
            event = dut.o.events[CONV]
            kind  = ("start" if ctx.get(event.start) else "") + (
                "retire" if ctx.get(event.retire) else "")
            if kind:
                seen.append((ctx.get(dut.o.cycle), kind, ctx.get(event.number),
                             ctx.get(event.opcode), ctx.get(event.layer), ctx.get(event.row)))
            await ctx.tick()

    run(dut, bench)
    return seen


def run(dut, bench):
    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()


def held(number, *, layer=3, row=7, retiring=0):
    return {"offered": 1, "retiring": retiring, "cause": Cause.ISSUE, "number": number,
            "opcode": Opcode.CONV, "layer": layer, "row": row}


def nothing(**fields):
    return {"offered": 0, "retiring": 0, "cause": Cause.DEPENDENCY, "number": 0,
            "opcode": Opcode.CONV, "layer": 9, "row": 9, **fields}


def test_an_instruction_starts_once_and_retires_once():
    assert show([nothing(), held(0), held(0), held(0, retiring=1), nothing()]) == [
        (1, "start", 0, Opcode.CONV, 3, 7), (3, "retire", 0, Opcode.CONV, 3, 7)]


def test_instructions_follow_each_other_without_a_gap():
    assert show([held(0), held(0, retiring=1), held(1, row=8), held(1, row=8, retiring=1)]) == [
        (0, "start", 0, Opcode.CONV, 3, 7), (1, "retire", 0, Opcode.CONV, 3, 7),
        (2, "start", 1, Opcode.CONV, 3, 8), (3, "retire", 1, Opcode.CONV, 3, 8)]


def test_an_instruction_of_one_cycle_is_one_event():
    assert show([held(0, retiring=1), held(1, retiring=1)]) == [
        (0, "startretire", 0, Opcode.CONV, 3, 7), (1, "startretire", 1, Opcode.CONV, 3, 7)]


def test_a_sync_has_no_layer():
    assert show([nothing(retiring=1, number=4)]) == [(0, "startretire", 4, Opcode.SYNC, 0, 0)]


def test_nothing_is_shown_unless_the_machine_runs():
    dut, seen = EventTrace(ports=1), []

    async def bench(ctx):
        ctx.set(dut.activity[CONV], held(0, retiring=1))
        ctx.set(dut.frame_started, 1)
        ctx.set(dut.moves[0], 1)
        for _ in range(3):
            event = dut.o.events[CONV]
            seen.append((ctx.get(event.start), ctx.get(event.retire),
                         ctx.get(dut.o.frame_started), ctx.get(dut.o.cycle),
                         ctx.get(dut.o.onchip_vectors)))
            await ctx.tick()

    run(dut, bench)
    assert seen == [(0, 0, 0, 0, 0)] * 3


def test_vectors_of_all_ports_are_counted_until_clear():
    dut, seen = EventTrace(ports=3), []

    async def bench(ctx):
        ctx.set(dut.running, 1)
        for moves in ((1, 1, 1), (0, 1, 0), (0, 0, 0), (1, 0, 1)):
            for port, value in zip(dut.moves, moves, strict=True):
                ctx.set(port, value)
            await ctx.tick()
        ctx.set(dut.clear, 1)
        seen.append((ctx.get(dut.o.cycle), ctx.get(dut.o.onchip_vectors)))
        await ctx.tick()
        seen.append((ctx.get(dut.o.cycle), ctx.get(dut.o.onchip_vectors)))

    run(dut, bench)
    assert seen == [(4, 6), (0, 0)]


def test_bytes_of_the_ledger_pass_through():
    dut = EventTrace(ports=1)

    async def bench(ctx):
        ctx.set(dut.read_bytes[Traffic.SPILL.value], 48)
        ctx.set(dut.written_bytes[Traffic.MASK.value], 16)
        assert ctx.get(dut.o.read_bytes[Traffic.SPILL.value]) == 48
        assert ctx.get(dut.o.written_bytes[Traffic.MASK.value]) == 16

    run(dut, bench)


def test_ports_must_be_positive():
    with pytest.raises(ValueError, match="^Number of on-chip ports must be positive, not 0$"):
        EventTrace(ports=0)


def test_only_a_traced_controller_has_events():
    assert "trace" not in CentralController(TINY).signature.members
    assert "trace" in CentralController(TINY, trace=True).signature.members


def test_events_of_a_program_are_what_its_engines_did():
    rng     = random.Random(5)
    dut     = CentralController(TINY, onchip_readers=2, onchip_writers=1, trace=True)
    streams = random_program(rng, 50)
    streams[CONV] += [sync(), instruction(CONV, layer=2, row=5)]
    world   = World(dut, program(streams, BASE), latency=lambda: rng.randrange(4),
                    work=lambda engine, bits: [Cause.ISSUE] * rng.choice([1, 1, 2, 9]))
    events  = {engine: [] for engine in Engine}
    spent   = {engine: [0] * len(Cause) for engine in Engine}
    offset  = []        # from the trace's cycles to those of `world`

    async def watch(ctx):
        while True:
            if ctx.get(dut.trace.running):
                for engine, event in zip(Engine, dut.trace.events, strict=True):
                    spent[engine][ctx.get(event.cause).value] += 1
                    if ctx.get(event.start):
                        events[engine].append([ctx.get(event.number), ctx.get(event.opcode).value,
                                               ctx.get(event.layer), ctx.get(event.row),
                                               ctx.get(dut.trace.cycle), None])
                    if ctx.get(event.retire):
                        events[engine][-1][-1] = ctx.get(dut.trace.cycle)
                if not offset:
                    offset.append(world.cycle - ctx.get(dut.trace.cycle))
            await ctx.tick()

    async def bench(ctx):
        host = Host(ctx, dut)
        await host.run()
        total = await host.counter(Counter.CYCLES)
        assert ctx.get(dut.trace.cycle) == total
        for engine in Engine:
            assert await host.counter(Counter.RETIRED, engine) == len(events[engine])
            found = [await host.counter(Counter.CAUSE, engine, cause) for cause in Cause]
            assert found == spent[engine]

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(world.run, background=True)
    sim.add_testbench(watch, background=True)
    sim.add_testbench(bench)
    sim.run()

    for engine in Engine:
        starts = [cycle for cycle, other, _ in world.started if other == engine]
        ends   = [cycle - 1 for cycle, other, _ in world.retired if other == engine]
        ran    = [event for event in events[engine] if event[1] != Opcode.SYNC.value]
        assert [event[0] for event in events[engine]] == list(range(len(streams[engine])))
        assert [event[4] + offset[0] for event in ran] == starts
        assert [event[5] + offset[0] for event in ran] == ends
        for bits, event in zip(streams[engine], events[engine], strict=True):
            header = FORMS[Opcode.SYNC].from_bits(bits)
            if opcode(bits) == Opcode.SYNC.value:
                assert event[1:4] == [Opcode.SYNC.value, 0, 0] and event[4] == event[5]
            else:
                assert event[1:4] == [opcode(bits), header.layer, header.row]
