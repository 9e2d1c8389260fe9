# amaranth: UnusedElaboratable=no
import random
from collections import Counter
from dataclasses import replace

import pytest
from amaranth.sim import Simulator

from hw.config import TINY
from hw.isa import (
    FORMS,
    INSTRUCTION_BYTES,
    LOADS,
    Cause,
    Error,
    LoadTarget,
    Opcode,
    Traffic,
)
from hw.memory.load import LoadEngines
from tests.hw.memory.models import AxiMemory

V       = TINY.vector
ENCODER = 0
ATTENTION, DECODER = 1, 2


def load(**fields):
    return FORMS[Opcode.LOAD].const({
        "opcode": Opcode.LOAD, "traffic": Traffic.WEIGHTS, "target": LoadTarget.ONCHIP, **fields})


def word_of(address):
    """Contents of the off-chip memory at beat ``address``."""
    return random.Random(address).getrandbits(8 * V)


class Bench:
    """Everything around the engines: memory, sinks with stalls, and a log of what happened."""

    def __init__(self, *, stall=0.0, latency=5, fails=(), window=8, outstanding=2,
                 pipelined=False):
        self.dut     = LoadEngines(config=replace(TINY, pipelined=pipelined), window=window,
                                   outstanding=outstanding)
        self.memory  = AxiMemory(vector=V, stall=stall, latency=latency, fails=fails,
                                 words={k: word_of(k) for k in range(4096)})
        self.stall   = stall
        self.onchip  = {}
        self.order   = []
        self.units   = [[] for _ in LOADS]
        self.answers = []
        self.causes  = [Counter() for _ in LOADS]
        self.started = 0
        self.retired = [0 for _ in LOADS]

    async def program(self, ctx, number, instructions):
        port = self.dut.engines[number]
        for instruction in instructions:
            ctx.set(port.i.p.load, instruction)
            ctx.set(port.i.valid, 1)
            while True:
                _, _, ready, cause = await ctx.tick().sample(port.i.ready, port.cause)
                self.causes[number][Cause(cause)] += 1
                if ready:
                    break
            self.retired[number] += 1
            ctx.set(port.i.valid, 0)
            while random.random() < self.stall:
                await ctx.tick()

    async def fetch(self, ctx, addresses):
        for address in addresses:
            ctx.set(self.dut.requests.p, address)
            ctx.set(self.dut.requests.valid, 1)
            await ctx.tick().until(self.dut.requests.ready)
            ctx.set(self.dut.requests.valid, 0)
            while random.random() < self.stall:
                await ctx.tick()

    async def take_answers(self, ctx):
        held = None
        while True:
            ready = random.random() >= self.stall
            ctx.set(self.dut.answers.ready, ready)
            _, _, valid, data, error = await ctx.tick().sample(
                self.dut.answers.valid, self.dut.answers.p.data, self.dut.answers.p.error)
            if held is not None:
                assert valid and held == (data, error)
            held = (data, error) if valid and not ready else None
            if valid and ready:
                self.answers.append("error" if error else data)

    async def take_writes(self, ctx):
        w, held = self.dut.w.w, None
        while True:
            ready = random.random() >= self.stall
            ctx.set(w.ready, ready)
            _, _, valid, address, data, mask, started, abort = await ctx.tick().sample(
                w.valid, w.p.address, w.p.data, w.p.mask, self.dut.frame_started, self.dut.abort)
            self.started += started
            if held is not None and not abort:
                assert valid and held == (address, data)
            held = (address, data) if valid and not ready else None
            if valid and ready:
                assert mask == (1 << TINY.onchip_lanes) - 1
                self.onchip[address] = data
                self.order.append(address)

    async def take_unit(self, ctx, number):
        o, held = self.dut.units[number], None
        while True:
            ready = random.random() >= self.stall
            ctx.set(o.ready, ready)
            _, _, valid, target, base, index, data = await ctx.tick().sample(
                o.valid, o.p.target, o.p.base, o.p.index, o.p.data)
            now = (LoadTarget(target), base, index, data) if valid else None
            if held is not None:
                assert now == held
            held = now if valid and not ready else None
            if valid and ready:
                self.units[number].append(now)

    def run(self, programs=None, *, fetches=(), then=None, deadline=1e-4, drain=True):
        """Run ``programs`` (by channel) and ``fetches``, then the testbench ``then``."""
        programs = programs or {}
        done = Counter()
        async def watchdog(ctx):
            await ctx.delay(deadline)
            raise TimeoutError("the engines did not finish")

        def program(number):
            async def testbench(ctx):
                await self.program(ctx, number, programs[number])
                done[number] += 1
            return testbench

        async def fetch(ctx):
            await self.fetch(ctx, fetches)
            while len(self.answers) < len(fetches):
                await ctx.tick()

        def unit(number):
            async def testbench(ctx):
                await self.take_unit(ctx, number)
            return testbench

        async def memory(ctx):
            await self.memory.read_side(ctx, self.dut.axi)

        sim = Simulator(self.dut)
        sim.add_clock(1e-8)
        for number in programs:
            sim.add_testbench(program(number), background=not drain)
        sim.add_testbench(fetch)
        if then is not None:
            sim.add_testbench(then)
        for number in range(len(LOADS)):
            sim.add_testbench(unit(number), background=True)
        for testbench in (self.take_answers, self.take_writes, memory, watchdog):
            sim.add_testbench(testbench, background=True)
        sim.run()


def instruction_at(address):
    return sum(word_of(address // V + k) << 8 * V * k for k in range(INSTRUCTION_BYTES // V))


def test_copies_to_onchip_memory():
    bench = Bench()
    bench.run({ENCODER: [load(offchip=5 * V, beats=20, base=100, frame_start=1,
                              traffic=Traffic.FRAME)]})
    assert bench.onchip == {100 + k: word_of(5 + k) for k in range(20)}
    assert bench.memory.reads == [(5 * V, 3), (8 * V, 8), (16 * V, 8), (24 * V, 1)]
    assert bench.started == 1


def test_expand_makes_a_vector_of_every_four_bytes():
    bench = Bench()
    bench.run({DECODER: [load(offchip=0, beats=3, base=7, expand=1)]})
    assert bench.onchip == {7 + 2 * k + j: word_of(k) >> 32 * j & 0xFFFFFFFF
                            for k in range(3) for j in range(2)}
    assert bench.order == sorted(bench.order)
    assert bench.causes[DECODER][Cause.ISSUE] == 6


@pytest.mark.parametrize(("number", "target"), [
    (ENCODER, LoadTarget.WEIGHTS), (ATTENTION, LoadTarget.GATE_PARAMS),
    (DECODER, LoadTarget.PARAMS), (ATTENTION, LoadTarget.TABLE)])
def test_streams_to_the_unit(number, target):
    bench = Bench()
    bench.run({number: [load(offchip=64 * V, beats=11, base=3, target=target)]})
    assert bench.units[number] == [(target, 3, k, word_of(64 + k)) for k in range(11)]
    assert not bench.onchip


def test_one_beat_per_cycle_and_causes_add_up():
    """32 beats in four bursts: the second is on its way before the first ends."""
    bench = Bench(latency=5)
    bench.run({ENCODER: [load(offchip=0, beats=32, base=0)]})
    causes = bench.causes[ENCODER]
    assert causes[Cause.ISSUE] == 32
    assert causes[Cause.FILL_DRAIN] == 3      # idle, check, retire
    # Burst on offer, address register, the memory's 5 + 1, beat register: then no gap.
    assert causes[Cause.OFFCHIP] == 8
    assert bench.memory.most_outstanding == 2


def test_refused_writes_are_conflicts_and_refused_beats_backpressure():
    bench = Bench(stall=0.5)
    random.seed(3)
    bench.run({ENCODER: [load(offchip=0, beats=32, base=0)],
               DECODER: [load(offchip=0, beats=32, base=0, target=LoadTarget.WEIGHTS)]})
    assert bench.causes[ENCODER][Cause.CONFLICT] > 0
    assert bench.causes[ENCODER][Cause.BACKPRESSURE] == 0
    assert bench.causes[DECODER][Cause.BACKPRESSURE] > 0
    assert bench.causes[DECODER][Cause.CONFLICT] == 0
    assert bench.causes[ENCODER][Cause.ISSUE] == bench.causes[DECODER][Cause.ISSUE] == 32


@pytest.mark.parametrize("retired", [1, 2, 3])
def test_words_have_landed_when_their_instruction_retires(retired):
    """In a pipelined machine a refused word waits behind the channel, which is done with it."""
    random.seed(retired)
    bench = Bench(stall=0.7, pipelined=True)
    loads = [load(offchip=10 * k * V, beats=3, base=10 * k) for k in range(retired)]

    async def look(ctx):
        while bench.retired[ENCODER] < retired:
            await ctx.tick()
        assert len(bench.onchip) == 3 * retired

    bench.run({ENCODER: loads}, then=look)
    assert bench.causes[ENCODER][Cause.FILL_DRAIN] > 3 * retired


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("outstanding", [1, 2, 3])
@pytest.mark.parametrize("stall", [0.0, 0.2, 0.6])
def test_random_programs_side_by_side(stall, outstanding, pipelined):
    random.seed(17)
    bench    = Bench(stall=stall, outstanding=outstanding, pipelined=pipelined)
    programs, expected, units, beats = {}, {}, {}, Counter()
    for number in range(3):
        programs[number], units[number], free = [], [], 1000 * number
        for _ in range(12):
            source, count = random.randrange(2000), random.randint(1, 40)
            traffic = random.choice([Traffic.WEIGHTS, Traffic.FRAME, Traffic.SPILL])
            beats[traffic] += count
            if random.random() < 0.5:
                expand = random.random() < 0.3
                programs[number].append(load(offchip=source * V, beats=count, base=free,
                                             expand=expand, traffic=traffic))
                for k in range(count):
                    if expand:
                        expected[free + 2 * k]     = word_of(source + k) & 0xFFFFFFFF
                        expected[free + 2 * k + 1] = word_of(source + k) >> 32
                    else:
                        expected[free + k] = word_of(source + k)
                free += count * (2 if expand else 1)
            else:
                target = random.choice([LoadTarget.WEIGHTS, LoadTarget.PARAMS])
                base   = random.randrange(8)
                programs[number].append(load(offchip=source * V, beats=count, base=base,
                                             target=target, traffic=traffic))
                units[number] += [(target, base, k, word_of(source + k)) for k in range(count)]
    fetches = [INSTRUCTION_BYTES * random.randrange(200) for _ in range(40)]
    seen = {}

    async def read_counters(ctx):
        while not all(bench.retired[k] == 12 for k in range(3)) or len(bench.answers) < 40:
            await ctx.tick()
        await ctx.tick().repeat(4)
        seen.update({kind: ctx.get(bench.dut.bytes[kind.value]) for kind in Traffic})
        seen["bursts"] = ctx.get(bench.dut.bursts)
        assert ctx.get(bench.dut.idle)

    bench.run(programs, fetches=fetches, then=read_counters, deadline=1e-3)
    assert bench.onchip == expected
    assert bench.units == [units[k] for k in range(3)]
    assert bench.answers == [instruction_at(address) for address in fetches]
    assert seen["bursts"] == len(bench.memory.reads)
    beats[Traffic.PROGRAM] = 40 * INSTRUCTION_BYTES // V
    assert {kind: seen[kind] for kind in Traffic} == {kind: beats[kind] * V for kind in Traffic}


def test_bad_fetches_are_answered_in_order_without_access():
    bench = Bench(stall=0.3, fails=[8])
    random.seed(5)
    bench.run(fetches=[32, 4, 64, TINY.offchip_bytes, 96, 1 << 31, 0])
    assert bench.answers == [instruction_at(32), "error", "error", "error", instruction_at(96),
                             "error", instruction_at(0)]
    assert [address for address, _ in bench.memory.reads] == [32, 64, 96, 0]


LAST = TINY.offchip_words - 1


@pytest.mark.parametrize(("number", "fields"), [
    (ENCODER, {"beats": 0}),
    (ENCODER, {"beats": 1, "offchip": 4}),
    (ENCODER, {"beats": 2, "offchip": LAST * V}),
    (ENCODER, {"beats": 1, "offchip": TINY.offchip_bytes}),
    (ENCODER, {"beats": 1, "offchip": 0xFFFFFFF8}),
    (ENCODER, {"beats": 2, "base": TINY.onchip_words - 1}),
    (ENCODER, {"beats": 2, "base": TINY.onchip_words - 3, "expand": 1}),
    (ENCODER, {"beats": 1, "target": LoadTarget.WEIGHTS, "expand": 1}),
    (ENCODER, {"beats": 3, "target": LoadTarget.WEIGHTS, "base": 1023}),
    (DECODER, {"beats": 5, "target": LoadTarget.PARAMS, "base": 31}),
    (ATTENTION, {"beats": 33, "target": LoadTarget.TABLE}),
    (ATTENTION, {"beats": 3, "target": LoadTarget.GATE_PARAMS, "base": 31}),
    (ENCODER, {"beats": 1, "target": LoadTarget.GATE_PARAMS}),
    (DECODER, {"beats": 1, "target": LoadTarget.GATE_PARAMS}),
])
def test_bad_address_stops_before_any_access(number, fields):
    bench = Bench()

    async def watch(ctx):
        await ctx.tick().repeat(30)
        assert ctx.get(bench.dut.engines[number].error) == Error.BAD_ADDRESS

    bench.run({number: [load(**fields)]}, then=watch, drain=False)
    assert bench.memory.reads == []
    assert bench.retired[number] == 0


@pytest.mark.parametrize(("number", "fields"), [
    (ENCODER, {"beats": 1, "offchip": LAST * V}),
    (ENCODER, {"beats": 2, "base": TINY.onchip_words - 2}),
    (ENCODER, {"beats": 2, "base": TINY.onchip_words - 4, "expand": 1}),
    (ENCODER, {"beats": 2, "target": LoadTarget.WEIGHTS, "base": 1023}),
    (DECODER, {"beats": 4, "target": LoadTarget.PARAMS, "base": 31}),
    (ATTENTION, {"beats": 32, "target": LoadTarget.TABLE}),
    (ATTENTION, {"beats": 2, "target": LoadTarget.GATE_PARAMS, "base": 31}),
])
def test_last_legal_address(number, fields):
    bench = Bench()
    bench.run({number: [load(**fields)]})
    assert bench.retired[number] == 1


def test_read_error_stops_its_channel_alone():
    bench = Bench(fails=[10])

    async def watch(ctx):
        while bench.retired[DECODER] < 2:
            await ctx.tick()
        assert ctx.get(bench.dut.engines[ENCODER].error) == Error.AXI_READ
        assert ctx.get(bench.dut.engines[DECODER].error) == Error.NONE

    bench.run({ENCODER: [load(offchip=0, beats=40, base=0)],
               DECODER: [load(offchip=100 * V, beats=40, base=100),
                         load(offchip=100 * V, beats=40, base=200)]}, then=watch, drain=False)
    assert sorted(k for k in bench.onchip if k < 100) == list(range(10))
    assert max(address for address, _ in bench.memory.reads if address < 100 * V) <= 24 * V
    assert bench.onchip[239] == word_of(139)
    assert bench.retired[ENCODER] == 0


@pytest.mark.parametrize("when", range(2, 60, 5))
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_abort_drains_the_bus(stall, when):
    random.seed(when)
    bench = Bench(stall=stall, outstanding=3)

    async def abort(ctx):
        await ctx.tick().repeat(when)
        ctx.set(bench.dut.abort, 1)
        await ctx.tick()
        asked, written = len(bench.memory.reads), len(bench.order)
        assert not ctx.get(bench.dut.w.w.valid)
        await ctx.tick().until(bench.dut.idle)
        after = len(bench.memory.reads)
        assert after <= asked + 1      # an address on offer stays so until it is taken
        await ctx.tick().repeat(50)
        assert ctx.get(bench.dut.idle)
        assert len(bench.memory.reads) == after
        assert len(bench.order) == written

    bench.run({k: [load(offchip=0, beats=200, base=1000 * k)] for k in range(3)},
              then=abort, drain=False)


def test_an_aborted_fetch_is_not_answered():
    bench = Bench()

    async def abort(ctx):
        ctx.set(bench.dut.abort, 1)
        ctx.set(bench.dut.requests.p, 4)
        ctx.set(bench.dut.requests.valid, 1)
        for _ in range(5):
            await ctx.tick()
            assert not ctx.get(bench.dut.requests.ready)
            assert not ctx.get(bench.dut.answers.valid)

    bench.run(then=abort)


def test_a_fetch_under_way_is_not_answered_after_an_abort():
    bench = Bench()

    async def abort(ctx):
        ctx.set(bench.dut.requests.p, 32)
        ctx.set(bench.dut.requests.valid, 1)
        await ctx.tick().until(bench.dut.requests.ready)
        ctx.set(bench.dut.requests.valid, 0)
        ctx.set(bench.dut.abort, 1)
        await ctx.tick()
        assert not ctx.get(bench.dut.idle)
        for _ in range(30):
            await ctx.tick()
            assert not ctx.get(bench.dut.answers.valid)
        assert ctx.get(bench.dut.idle)

    bench.run(then=abort)


@pytest.mark.parametrize(("parameters", "message"), [
    ({"window": 3}, r"^Window must be a power of two of at least 2, not 3$"),
    ({"window": 512}, r"^Window of 512 beats of 8 bytes must not exceed 256 beats or 4096 bytes$"),
    ({"outstanding": 0}, r"^Outstanding bursts must be positive, not 0$"),
])
def test_wrong_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        LoadEngines(config=TINY, **parameters)

