# amaranth: UnusedElaboratable=no
import random
from collections import Counter
from dataclasses import replace

import pytest
from amaranth.sim import Simulator

from hw.config import TINY
from hw.isa import FORMS, Cause, Error, Opcode, Traffic
from hw.memory.store import StoreEngine
from tests.hw.memory.models import AxiMemory

V    = TINY.vector
LAST = TINY.offchip_words - 1


def store(**fields):
    return FORMS[Opcode.STORE].const({"opcode": Opcode.STORE, "traffic": Traffic.SPILL, **fields})


def word_of(address):
    """Contents of on-chip memory at ``address``."""
    return random.Random(~address).getrandbits(8 * V)


class Bench:
    """Everything around the engine: on-chip memory and AXI with stalls, and a log."""

    def __init__(self, *, stall=0.0, conflicts=0.0, latency=5, fails=(), window=8, outstanding=4,
                 buffer=8, pipelined=False):
        self.config    = replace(TINY, pipelined=pipelined)
        self.dut       = StoreEngine(config=self.config, window=window, outstanding=outstanding,
                                     buffer=buffer)
        self.memory    = AxiMemory(vector=V, stall=stall, latency=latency, fails=fails)
        self.conflicts = conflicts
        self.others    = []        # more testbenches, beside these
        self.causes    = Counter()
        self.retired   = 0
        self.ended     = 0
        self.reads     = 0

    async def program(self, ctx, instructions):
        port = self.dut.engine
        for instruction in instructions:
            ctx.set(port.i.p.store, instruction)
            ctx.set(port.i.valid, 1)
            while True:
                _, _, ready, cause, ended = await ctx.tick().sample(
                    port.i.ready, port.cause, self.dut.frame_ended)
                self.causes[Cause(cause)] += 1
                self.ended += ended
                assert not ended or ready
                if ready:
                    break
            self.retired += 1
            ctx.set(port.i.valid, 0)
            for _ in range(random.randrange(3)):
                await ctx.tick()

    async def onchip(self, ctx):
        r, pipe = self.dut.r, [None] * self.config.read_latency
        while True:
            ready = random.random() >= self.conflicts
            ctx.set(r.address.ready, ready)
            ctx.set(r.data_valid, pipe[-1] is not None)
            ctx.set(r.data, 0xBAD if pipe[-1] is None else word_of(pipe[-1]))
            _, _, valid, address = await ctx.tick().sample(r.address.valid, r.address.p)
            accepted = valid and ready
            self.reads += accepted
            pipe = [address if accepted else None, *pipe[:-1]]

    def run(self, instructions, *, then=None, deadline=1e-4, drain=True):
        async def program(ctx):
            await self.program(ctx, instructions)

        async def memory(ctx):
            await self.memory.write_side(ctx, self.dut.axi)

        async def watchdog(ctx):
            await ctx.delay(deadline)
            raise TimeoutError("the engine did not finish")

        sim = Simulator(self.dut)
        sim.add_clock(1e-8)
        sim.add_testbench(program, background=not drain)
        if then is not None:
            sim.add_testbench(then)
        for testbench in (self.onchip, memory, watchdog, *self.others):
            sim.add_testbench(testbench, background=True)
        sim.run()


def test_copies_from_onchip_memory():
    bench = Bench()
    bench.run([store(offchip=5 * V, beats=20, base=100, frame_end=1), store(offchip=0, beats=1)])
    assert bench.memory.words == {**{5 + k: word_of(100 + k) for k in range(20)}, 0: word_of(0)}
    assert bench.memory.writes == [(5 * V, 3), (8 * V, 8), (16 * V, 8), (24 * V, 1), (0, 1)]
    assert bench.ended == 1


@pytest.mark.parametrize("pipelined", [False, True])
def test_one_beat_per_cycle_and_causes_add_up(pipelined):
    bench = Bench(latency=3, pipelined=pipelined)
    bench.run([store(offchip=0, beats=32)])
    assert bench.causes[Cause.ISSUE] == 32
    assert bench.causes[Cause.CONFLICT] == 0
    # Idle, check, three (or five) from the first request to its data, one more in the buffer; and
    # retire.
    assert bench.causes[Cause.FILL_DRAIN] == 7 + 2 * pipelined
    # The model answers 3 + 1 cycles after the last beat, and one more sees all acknowledged.
    assert bench.causes[Cause.BACKPRESSURE] == 5


def test_refused_reads_are_conflicts():
    random.seed(2)
    bench = Bench(conflicts=0.7)
    bench.run([store(offchip=0, beats=64)])
    assert bench.causes[Cause.CONFLICT] > 64
    assert bench.causes[Cause.ISSUE] == 64


def test_refused_data_is_backpressure():
    random.seed(2)
    bench = Bench(stall=0.7)
    bench.run([store(offchip=0, beats=64)])
    assert bench.causes[Cause.BACKPRESSURE] > 64
    assert bench.causes[Cause.CONFLICT] == 0


@pytest.mark.parametrize("buffer", [4, 8])
@pytest.mark.parametrize("conflicts", [0.0, 0.5])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_random_programs(stall, conflicts, buffer):
    random.seed(11)
    bench    = Bench(stall=stall, conflicts=conflicts, buffer=buffer)
    expected = {}
    beats    = Counter()
    program  = []
    seen     = {}
    for _ in range(20):
        start, count, base = random.randrange(500), random.randint(1, 40), random.randrange(1000)
        traffic = random.choice([Traffic.SPILL, Traffic.MASK, Traffic.ALPHA])
        beats[traffic] += count
        program.append(store(offchip=start * V, beats=count, base=base, traffic=traffic))
        expected.update({start + k: word_of(base + k) for k in range(count)})

    async def read_counters(ctx):
        while bench.retired < len(program):
            await ctx.tick()
        await ctx.tick().repeat(3)
        seen.update({kind: ctx.get(bench.dut.bytes[kind.value]) for kind in Traffic})
        assert ctx.get(bench.dut.bursts) == len(bench.memory.writes)
        assert ctx.get(bench.dut.idle)

    bench.run(program, then=read_counters, deadline=1e-3)
    assert bench.memory.words == expected
    assert seen == {kind: beats[kind] * V for kind in Traffic}
    assert bench.causes[Cause.ISSUE] == beats.total() == bench.reads


@pytest.mark.parametrize("outstanding", [1, 2])
def test_no_more_bursts_than_allowed(outstanding):
    bench = Bench(latency=40, outstanding=outstanding)
    bench.run([store(offchip=0, beats=64)])
    assert bench.memory.most_outstanding == outstanding


@pytest.mark.parametrize("fields", [
    {"beats": 0},
    {"beats": 1, "offchip": 4},
    {"beats": 2, "offchip": LAST * V},
    {"beats": 1, "offchip": TINY.offchip_bytes},
    {"beats": 1, "offchip": 0xFFFFFFF8},
    {"beats": 2, "base": TINY.onchip_words - 1},
])
def test_bad_address_stops_before_any_access(fields):
    bench = Bench()

    async def watch(ctx):
        await ctx.tick().repeat(30)
        assert ctx.get(bench.dut.engine.error) == Error.BAD_ADDRESS

    bench.run([store(**fields)], then=watch, drain=False)
    assert bench.memory.writes == []
    assert bench.reads == bench.retired == 0


@pytest.mark.parametrize("fields", [
    {"beats": 1, "offchip": LAST * V}, {"beats": 2, "base": TINY.onchip_words - 2}])
def test_last_legal_address(fields):
    bench = Bench()
    bench.run([store(**fields)])
    assert bench.retired == 1


WINDOW = {"base": 64 * V, "limit": 96 * V}


@pytest.mark.parametrize(("fields", "window"), [
    ({"beats": 1, "offchip": 63 * V}, WINDOW),
    ({"beats": 1, "offchip": 96 * V}, WINDOW),
    ({"beats": 33, "offchip": 64 * V}, WINDOW),
    ({"beats": 2, "offchip": 95 * V}, WINDOW),
    ({"beats": 34, "offchip": 63 * V}, WINDOW),
    ({"beats": 1, "offchip": 64 * V}, {"base": 64 * V + 1, "limit": 0}),
    ({"beats": 1, "offchip": 64 * V}, {"base": 0, "limit": 65 * V - 1}),
    ({"beats": 1, "offchip": 0}, {"base": 0xFFFF_FFFF, "limit": 1}),
    ({"beats": 1, "offchip": 64 * V}, {"base": 64 * V, "limit": 64 * V}),
])
def test_nothing_outside_the_window_is_written(fields, window):
    bench = Bench()

    async def watch(ctx):
        ctx.set(bench.dut.writable, window)
        await ctx.tick().repeat(30)
        assert ctx.get(bench.dut.engine.error) == Error.WRITE_PROTECTED
        assert ctx.get(bench.dut.idle)

    bench.run([store(**fields)], then=watch, drain=False)
    assert bench.memory.writes == []
    assert bench.reads == bench.retired == 0


@pytest.mark.parametrize(("fields", "window"), [
    ({"beats": 32, "offchip": 64 * V}, WINDOW),
    ({"beats": 1, "offchip": 64 * V}, WINDOW),
    ({"beats": 1, "offchip": 95 * V}, WINDOW),
    ({"beats": 1, "offchip": LAST * V}, {"base": LAST * V, "limit": 0}),
    ({"beats": 1, "offchip": LAST * V}, {"base": 1, "limit": TINY.offchip_bytes}),
    ({"beats": 1, "offchip": 64 * V}, {"base": 64 * V, "limit": 66 * V - 1}),
])
def test_everything_inside_the_window_is(fields, window):
    bench = Bench()

    async def watch(ctx):
        ctx.set(bench.dut.writable, window)
        while not bench.retired:
            await ctx.tick()

    bench.run([store(**fields)], then=watch)
    first = fields["offchip"] // V
    assert bench.memory.words == {first + k: word_of(k) for k in range(fields["beats"])}


def test_an_address_outside_memory_is_no_matter_of_the_window():
    bench = Bench()

    async def watch(ctx):
        ctx.set(bench.dut.writable, WINDOW)
        await ctx.tick().repeat(30)
        assert ctx.get(bench.dut.engine.error) == Error.BAD_ADDRESS

    bench.run([store(beats=2, offchip=LAST * V)], then=watch, drain=False)


def test_write_error_never_retires():
    bench = Bench(fails=[10])

    async def watch(ctx):
        await ctx.tick().repeat(200)
        assert ctx.get(bench.dut.engine.error) == Error.AXI_WRITE

    bench.run([store(offchip=0, beats=16)], then=watch, drain=False)
    assert bench.retired == 0


@pytest.mark.parametrize("when", range(1, 60, 3))
@pytest.mark.parametrize(("stall", "outstanding"), [(0.0, 4), (0.5, 4), (0.0, 1)])
def test_abort_completes_what_was_announced(stall, outstanding, when):
    """The model checks that no beat on offer changes; nothing but the program's data is written."""
    random.seed(when)
    bench = Bench(stall=stall, conflicts=0.3, outstanding=outstanding, latency=0)

    async def abort(ctx):
        await ctx.tick().repeat(when)
        ctx.set(bench.dut.abort, 1)
        await ctx.tick()
        announced, asked = len(bench.memory.writes), bench.reads
        while not ctx.get(bench.dut.idle):
            await ctx.tick()
        assert bench.reads == asked
        assert len(bench.memory.writes) <= announced + 1
        for _ in range(30):
            _, _, idle, answered = await ctx.tick().sample(bench.dut.idle, bench.dut.r.data_valid)
            assert idle
            assert not answered

    bench.run([store(offchip=0, beats=400)], then=abort, drain=False)
    assert bench.memory.words == {k: word_of(k) for k in range(len(bench.memory.words))}
    assert bench.retired == 0


@pytest.mark.parametrize("when", range(6, 14))
def test_abort_with_an_empty_buffer_and_reads_on_their_way(when):
    """Beats without data must not change while memory refuses them, whatever still arrives."""
    bench = Bench()
    bench.memory.refuses_data = True

    async def abort(ctx):
        await ctx.tick().repeat(when)
        ctx.set(bench.dut.abort, 1)
        await ctx.tick().repeat(12)
        bench.memory.refuses_data = False
        while not ctx.get(bench.dut.idle):
            await ctx.tick()

    async def slow(ctx):
        """Reads are accepted one by one, so that the buffer is empty when most aborts come."""
        while True:
            bench.conflicts = 0.0
            await ctx.tick()
            bench.conflicts = 1.0
            await ctx.tick().repeat(4)

    bench.others = [slow]
    bench.run([store(offchip=0, beats=8)], then=abort, drain=False)
    assert bench.memory.writes == [(0, 8)]
    assert bench.retired == 0


@pytest.mark.parametrize(("parameters", "message"), [
    ({"window": 3}, r"^Window must be a power of two of at least 2, not 3$"),
    ({"window": 512}, r"^Window of 512 beats of 8 bytes must not exceed 256 beats or 4096 bytes$"),
    ({"outstanding": 0}, r"^Outstanding bursts must be positive, not 0$"),
    ({"buffer": 3}, r"^Buffer must hold at least 4 vectors, not 3$"),
])
def test_wrong_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        StoreEngine(config=TINY, **parameters)
