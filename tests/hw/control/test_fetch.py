# amaranth: UnusedElaboratable=no
import random
from collections import deque

import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator

from hw.control.fetch import ProgramFetcher
from hw.isa import Engine, Error
from tests.hw.control.bench import program

BYTES = 1 << 16
BASE  = 0x400


def fetch(streams, *, cycles=2000, latency=lambda: 3, takes=lambda engine: True,
          accepts=lambda: True, words=None, base=BASE, fails=(), **parameters):
    """Run a fetcher; returns what each engine got, the requests, and the fetcher's last word."""
    dut      = ProgramFetcher(offchip_bytes=BYTES, **parameters)
    words    = program(streams, base) if words is None else words
    got      = {engine: [] for engine in Engine}
    requests = []
    verdict  = {}

    async def bench(ctx):
        queue   = deque()
        offered = dict.fromkeys(Engine)
        ctx.set(dut.base, base)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for cycle in range(cycles):
            ctx.set(dut.request.ready, accepts() and len(queue) < 6)
            answering = bool(queue) and queue[0][0] <= cycle
            ctx.set(dut.answer.valid, answering)
            if answering:
                address = queue[0][1]
                ctx.set(dut.answer.payload, {"data": words.get(address, 0),
                                             "error": address in fails})
            for engine in Engine:
                port = dut.o[engine]
                ctx.set(port.ready, takes(engine))
                if ctx.get(port.valid):
                    bits = ctx.get(Value.cast(port.payload))
                    assert offered[engine] in (None, bits), "payload changed while on offer"
                    offered[engine] = bits
                    if ctx.get(port.ready):
                        got[engine].append(bits)
                        offered[engine] = None
                else:
                    assert offered[engine] is None, "valid fell before the transfer"
            if ctx.get(dut.request.valid) and ctx.get(dut.request.ready):
                address = ctx.get(dut.request.payload)
                requests.append(address)
                queue.append((max(cycle + latency(), queue[-1][0] if queue else 0), address))
            verdict.update(exhausted=ctx.get(dut.exhausted), error=ctx.get(dut.error),
                           engine=ctx.get(dut.error_engine), at=cycle)
            if verdict["exhausted"] == (1 << len(Engine)) - 1:
                break
            await ctx.tick()
            if answering:
                queue.popleft()

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    return got, requests, verdict


def some(length, seed=1):
    rng = random.Random(seed)
    return [rng.getrandbits(256) for _ in range(length)]


@pytest.mark.parametrize("depth, outstanding", [(1, 1), (4, 8), (2, 3)])
def test_every_engine_gets_its_stream(depth, outstanding):
    rng     = random.Random(depth)
    streams = {engine: some(rng.choice([0, 1, 9]), engine) for engine in Engine}
    got, _, verdict = fetch(streams, latency=lambda: rng.randrange(12), depth=depth,
                            outstanding=outstanding, accepts=lambda: rng.random() < 0.6,
                            takes=lambda engine: rng.random() < 0.3)
    assert got == streams
    assert verdict["error"] == Error.NONE


def test_engine_that_takes_nothing_holds_nobody_up():
    streams = {engine: some(6, engine) for engine in Engine}
    got, requests, verdict = fetch(streams, takes=lambda engine: engine != Engine.GATE,
                                   cycles=300)
    for engine in Engine:
        assert got[engine] == ([] if engine == Engine.GATE else streams[engine])
    assert verdict["exhausted"] == (1 << len(Engine)) - 1 - (1 << Engine.GATE)
    assert len(requests) == len(Engine) + 6 * (len(Engine) - 1) + 4      # its own depth, no more


def test_engines_take_turns():
    streams = {engine: some(3, engine) for engine in Engine}
    _, requests, _ = fetch(streams)
    first = BASE + 32 * len(Engine)
    turns = [(address - first) // 96 for address in requests[len(Engine):]]
    for start in range(0, len(turns), len(Engine)):
        assert sorted(turns[start:start + len(Engine)]) == list(range(len(Engine)))


def test_latency_is_hidden():
    streams = {Engine.GATE: some(40)}
    _, _, verdict = fetch(streams, latency=lambda: 6, depth=8)
    assert verdict["at"] < 2 * 40 + len(Engine) + 25      # one every other cycle


def test_last_word_of_the_memory_can_be_fetched():
    words = program({}, BASE)
    last  = BASE + 32 * Engine.GATE
    for count, error in ((1, Error.NONE), (2, Error.BAD_PROGRAM)):
        spoiled = dict(words)
        spoiled[last] = words[last] & ((1 << 36) - 1) | count << 36 | (BYTES - 32) << 54
        spoiled[BYTES - 32] = 77
        got, _, verdict = fetch({}, words=spoiled, cycles=150)
        assert (verdict["error"], got[Engine.GATE]) == (error, [] if error.value else [77])


@pytest.mark.parametrize("base, good", [
    *((BASE + (1 << bit), False) for bit in range(5)), (BASE + 32, True),
    (BYTES - 32 * len(Engine), True), (BYTES - 32 * len(Engine) + 32, False),
    (BYTES, False), (1 << 31, False), ((1 << 32) - 32, False), (0, True)])
def test_a_program_lies_whole_and_aligned_in_memory(base, good):
    _, requests, verdict = fetch({}, base=base, cycles=100)
    headers = [base + 32 * engine for engine in Engine]
    assert (verdict["error"], requests) == ((Error.NONE, headers) if good else
                                            (Error.BAD_PROGRAM, []))
    assert verdict["engine"] == 0


@pytest.mark.parametrize("bit", [0, 31, 32, 35, 54, 55, 56, 57, 58])
def test_every_bit_of_a_header_is_checked(bit):
    """Its magic word, its engine, the alignment of its address; one is enough."""
    words = program({Engine.GATE: some(2)}, BASE)
    words[BASE + 32 * Engine.GATE] ^= 1 << bit
    got, _, verdict = fetch({}, words=words, cycles=150)
    assert (verdict["error"], verdict["engine"]) == (Error.BAD_PROGRAM, Engine.GATE)
    assert not got[Engine.GATE]


def test_what_memory_could_not_read_is_not_used():
    streams = {engine: some(3, engine) for engine in Engine}
    header  = BASE + 32 * Engine.GATE
    second  = BASE + 32 * (len(Engine) + 3 * Engine.GATE + 1)
    for fails, left in ((header, []), (second, [0, 2])):
        got, _, verdict = fetch(streams, fails=[fails], cycles=300)
        assert (verdict["error"], verdict["engine"]) == (Error.AXI_READ, Engine.GATE)
        assert got == {**streams, Engine.GATE: [streams[Engine.GATE][k] for k in left]}


def test_parameters():
    with pytest.raises(ValueError, match=f"^Off-chip bytes must be between {32 * len(Engine)} and "
                                         "4294967296, not 100$"):
        ProgramFetcher(offchip_bytes=100)
    with pytest.raises(ValueError, match="^Outstanding requests must be positive, not 0$"):
        ProgramFetcher(offchip_bytes=BYTES, outstanding=0)
