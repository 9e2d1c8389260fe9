# amaranth: UnusedElaboratable=no
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from hw.attention.alpha_store import AlphaStore
from hw.attention.gate import GateEngine
from hw.config import TINY, UnitConfig
from hw.isa import Cause, Error, LoadTarget, Requant
from tests.hw.models import RowModel, reader, sink, watch

KIB = 1024


def machine(*, vector=8, lanes=2, pixels=2, outputs=4, pipelined=False):
    decoder = UnitConfig(pixels=pixels, outputs=outputs, drain=outputs, row_words=256,
                         weight_words=4, params=4)
    return replace(TINY, vector=vector, gate_lanes=lanes, gate_param_words=64, alpha_words=16,
                   onchip_bytes=4 * KIB, decoder=decoder, pipelined=pipelined)


def requantise(value, requant, zero, low, high):
    """The arithmetic contract, from its text."""
    total = (value + requant["bias"] + 2**31) % 2**32 - 2**31
    total = (total * requant["multiplier"] + 2**(requant["shift"] - 1)) >> requant["shift"]
    return min(max(total + zero, low), high)


class Bench:
    """Gate engine and alpha store, with random skips, alphas and parameters."""

    def __init__(self, config, *, seed=0, stall=0.0):
        rng = np.random.default_rng(seed)
        self.config = config
        self.gate   = GateEngine(config)
        self.store  = AlphaStore(config)
        self.skip   = [rng.bytes(config.vector) for _ in range(config.onchip_words)]
        self.alpha  = rng.integers(0, 256, config.alpha_words * config.vector).tolist()
        self.requants = [{"bias": int(rng.integers(-20_000, 20_000)),
                          "multiplier": int(rng.integers(-2**15, 2**15)),
                          "shift": int(rng.integers(15, 24))}
                         for _ in range(config.gate_param_words * config.gate_lanes)]
        self.row    = RowModel(banks=config.decoder.banks, depth=config.decoder.row_words,
                               vector=config.vector,
                               lanes=config.vector // config.decoder.outputs)
        self.causes = Counter()
        self.taps, self.requests = [], []
        self.stall, self.seed = stall, seed

    def run(self, instructions):
        gate, store, config = self.gate, self.store, self.config
        error = None
        m = Module()
        m.submodules.gate, m.submodules.store = gate, store
        connect(m, gate.read_alpha, store.read)

        async def drive(ctx):
            nonlocal error
            ctx.set(store.write.w.valid, 1)
            for word in range(config.alpha_words):
                row = bytes(self.alpha[word * config.vector:(word + 1) * config.vector])
                ctx.set(store.write.w.p, {"address": word, "mask": 1,
                                          "data": int.from_bytes(row, "little")})
                await ctx.tick()
            ctx.set(store.write.w.valid, 0)

            # Two loads, between beats that are not for the gate and one that is beyond the end.
            words = max(i["param_base"] + i["vectors"] * config.vector // config.gate_lanes
                        for i in instructions)
            half  = words // 2 * config.gate_lanes
            ctx.set(gate.load.valid, 1)
            for start, end in ((0, half), (half, words * config.gate_lanes)):
                for index, requant in enumerate(self.requants[start:end]):
                    beat = {"base": start // config.gate_lanes, "index": index}
                    ctx.set(gate.load.p, {**beat, "target": LoadTarget.GATE_PARAMS,
                                          "data": Requant.const(requant).as_bits()})
                    assert ctx.get(gate.load.ready)
                    await ctx.tick()
                    ctx.set(gate.load.p, {**beat, "target": LoadTarget.PARAMS, "data": 0})
                    await ctx.tick()
            beyond = {"base": config.gate_param_words, "target": LoadTarget.GATE_PARAMS}
            ctx.set(gate.load.p, {**beyond, "index": 0, "data": 0})
            await ctx.tick()
            ctx.set(gate.load.valid, 0)

            for fields in instructions:
                ctx.set(gate.engine.i.p.gate, {"layer": 3, "row": 9, **fields})
                ctx.set(gate.engine.i.valid, 1)
                *_, error = await ctx.tick().sample(gate.engine.error).until(
                    gate.engine.i.ready | (gate.engine.error != Error.NONE))
            if error != Error.NONE:
                await ctx.tick().repeat(30)
                assert ctx.get(gate.engine.error) == error, "an error must stay"

        def note(valid, cause, tap_valid, tap):
            if valid:
                self.causes[Cause(cause)] += 1
            if tap_valid:
                self.taps.append(tap)

        async def watchdog(ctx):
            await ctx.tick().repeat(20_000)
            raise TimeoutError("the gate engine hangs")

        sim = Simulator(m)
        sim.add_clock(1e-8)
        sim.add_testbench(drive)
        for process in (reader(gate.read_skip, self.skip, latency=config.read_latency,
                               stall=self.stall, seed=self.seed, requests=self.requests),
                        sink(gate.write, self.row.write, stall=self.stall, seed=self.seed + 1),
                        watch([gate.engine.i.valid, gate.engine.cause, gate.tap.valid,
                               gate.tap.p], note),
                        watchdog):
            sim.add_testbench(process, background=True)
        sim.run()
        return error

    def check(self, fields):
        """The row memory holds exactly this row, and the tap showed it."""
        vector, banks = self.config.vector, self.config.decoder.banks
        vectors  = fields["vectors"]
        channels = vectors * vector
        wanted, shown = {}, {}
        for x in range(fields["width"]):
            k = x if fields["same"] else x // 2
            for c in range(channels):
                if fields["wide"]:
                    alpha = self.skip[fields["alpha_base"] + k * vectors + c // vector][c % vector]
                else:
                    alpha = self.alpha[fields["alpha_base"] * vector + k]
                word  = self.skip[fields["skip_base"] + x * fields["vectors"] + c // vector]
                value = requantise(
                    (alpha - fields["zero_alpha"]) * (word[c % vector] - fields["zero_skip"]),
                    self.requants[fields["param_base"] * self.config.gate_lanes + c],
                    fields["zero_out"], fields["low"], fields["high"])
                address = (fields["dst_base"] + x // banks * fields["dst_stride"]
                           + fields["dst_vector"] + c // vector)
                wanted[x % banks, address, c % vector] = value
                shown[x, c] = value
        assert self.row.words == wanted

        seen = {}
        for tap in self.taps:
            assert (tap.layer, tap.row, tap.count) == (3, 9, vector)
            for k, value in enumerate(tap.data.to_bytes(vector, "little")):
                assert (tap.column, tap.channel + k) not in seen
                seen[tap.column, tap.channel + k] = value
        assert seen == shown
        assert self.causes[Cause.ISSUE] == fields["width"] * channels // self.config.gate_lanes


def instruction(**fields):
    return {"skip_base": 20, "alpha_base": 1, "width": 6, "vectors": 2, "param_base": 0,
            "dst_base": 3, "dst_stride": 4, "dst_vector": 2, "zero_out": 5, "low": 2, "high": 251,
            "zero_alpha": 0, "zero_skip": 0, "same": 0, "wide": 0, **fields}


def test_one_vector_by_hand():
    bench = Bench(machine())
    bench.alpha[8] = 200
    bench.skip[20] = bytes([0, 1, 10, 100, 255, 3, 4, 5])
    bench.requants[:8] = [{"bias": 0, "multiplier": 1 << 14, "shift": 22}] * 8   # / 256
    bench.requants[3] = {"bias": -200, "multiplier": 1 << 14, "shift": 22}
    assert bench.run([instruction(width=1, vectors=1)]) == Error.NONE
    values = [bench.row.words[0, 5, k] for k in range(8)]
    # 200 * 1 / 256 = 0.78; 7.8; (20000 - 200) / 256 = 77.3; 199.2; 2.3; 3.1; 3.9; then + 5.
    assert values == [5, 6, 13, 82, 204, 7, 8, 9]


def test_extreme_zero_points_are_exact():
    bench = Bench(machine())
    bench.alpha[8:10] = [0, 255]
    bench.skip[20], bench.skip[21] = bytes([0, 255] * 4), bytes([0, 255] * 4)
    bench.requants[:8] = [{"bias": 0, "multiplier": 1 << 14, "shift": 24}] * 8   # / 1024
    fields = instruction(width=2, vectors=1, same=1, zero_alpha=255, zero_skip=255, zero_out=100)
    assert bench.run([fields]) == Error.NONE
    # (0 - 255) * (0 - 255) / 1024 = 63.5, a half, rounds up; all others are 0.
    assert [bench.row.words[0, 5, k] for k in range(8)] == [164, 100] * 4
    assert [bench.row.words[1, 5, k] for k in range(8)] == [100] * 8


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("vector, lanes", [(8, 1), (8, 2), (8, 4), (8, 8), (16, 4), (16, 2)])
def test_one_vector_takes_vector_by_lanes_cycles(vector, lanes, pipelined):
    bench  = Bench(machine(vector=vector, lanes=lanes, pipelined=pipelined))
    fields = instruction(width=20, vectors=3 if lanes > 1 else 2)
    assert bench.run([fields]) == Error.NONE
    bench.check(fields)
    assert set(bench.causes) == {Cause.ISSUE, Cause.FILL_DRAIN}
    assert bench.causes[Cause.FILL_DRAIN] == 17 + 2 * pipelined


@pytest.mark.parametrize("vector, lanes, cycles", [(8, 1, 8), (8, 4, 2), (8, 8, 2), (16, 2, 8)])
def test_wide_alpha_shares_the_port(vector, lanes, cycles):
    bench  = Bench(machine(vector=vector, lanes=lanes))
    fields = instruction(width=20, vectors=2, wide=1, alpha_base=100)
    assert bench.run([fields]) == Error.NONE
    bench.check(fields)
    assert bench.requests[:8] == [100, 20, 101, 21, 100, 22, 101, 23]
    assert len(bench.requests) == 2 * 20 * 2
    assert bench.causes.total() == 40 * cycles + 18 - (lanes == vector)


@pytest.mark.parametrize("seed", range(32))
def test_random_rows_with_stalls(seed):
    rng    = np.random.default_rng(seed)
    vector = int(rng.choice([8, 16]))
    lanes  = int(rng.choice([1, 2, 4, 8]))
    config = machine(vector=vector, lanes=lanes, pixels=int(rng.choice([1, 2, 4])),
                     outputs=int(rng.choice([1, 4, 8])), pipelined=seed % 3 == 0)
    bench  = Bench(config, seed=seed, stall=float(rng.choice([0, 0.3, 0.8])))
    dst_vector, vectors, spare = (int(n) for n in rng.integers([0, 1, 0], [3, 4, 3]))
    low, high = sorted(int(n) for n in rng.integers(0, 256, 2))
    fields = instruction(
        skip_base=int(rng.integers(90)), alpha_base=int(rng.integers(14 if seed % 2 else 90)),
        wide=1 - seed % 2, same=int(rng.integers(2)), zero_alpha=int(rng.integers(256)),
        zero_skip=int(rng.integers(256)),
        width=int(rng.integers(1, 17)), vectors=vectors, dst_base=int(rng.integers(30)),
        param_base=int(rng.integers(65 - vectors * vector // lanes)), dst_vector=dst_vector,
        dst_stride=dst_vector + vectors + spare, zero_out=int(rng.integers(256)), low=low,
        high=high) if vectors * vector // lanes <= 64 else instruction()
    assert bench.run([fields]) == Error.NONE
    bench.check(fields)
    if bench.stall > 0.5 and bench.causes[Cause.ISSUE] > 40:
        assert bench.causes[Cause.CONFLICT] and bench.causes[Cause.BACKPRESSURE]


def test_instructions_back_to_back():
    fields = [instruction(width=3 + k, vectors=1 + k % 2, skip_base=11 * k, dst_base=40 * k,
                          param_base=4 * k, zero_out=k, layer=0, wide=k // 2 % 2, same=k % 2)
              for k in range(5)]
    bench = Bench(machine(), stall=0.5)
    assert bench.run(fields) == Error.NONE
    assert not bench.taps, "layer 0 must not be tapped"
    for one in fields:
        alone = Bench(machine())
        alone.run([one])
        assert alone.row.words.items() <= bench.row.words.items()


EDGES = {                                      # what just fits, and what does not
    "skip":       (dict(skip_base=512 - 12), dict(skip_base=512 - 11)),
    "alpha":      (dict(alpha_base=14, width=32), dict(alpha_base=14, width=33)),
    "alpha base": (dict(alpha_base=15), dict(alpha_base=16)),
    "alpha same": (dict(alpha_base=14, width=16, same=1), dict(alpha_base=14, width=17, same=1)),
    "wide":       (dict(alpha_base=512 - 6, wide=1), dict(alpha_base=512 - 5, wide=1)),
    "wide odd":   (dict(alpha_base=512 - 8, wide=1, width=7),
                   dict(alpha_base=512 - 7, wide=1, width=7)),
    "wide same":  (dict(alpha_base=512 - 12, wide=1, same=1),
                   dict(alpha_base=512 - 11, wide=1, same=1)),
    "parameters": (dict(param_base=64 - 8), dict(param_base=64 - 7)),
    "row memory": (dict(dst_base=256 - 8), dict(dst_base=256 - 7)),
    "dst vector": (dict(dst_base=256 - 11, dst_vector=5), dict(dst_base=256 - 11, dst_vector=6)),
    "no pixels":  (dict(width=1), dict(width=0)),
    "no vectors": (dict(vectors=1), dict(vectors=0)),
}


@pytest.mark.parametrize("edge", EDGES)
def test_edges_of_memory(edge):
    good, bad = (instruction(**fields) for fields in EDGES[edge])
    bench = Bench(machine())
    assert bench.run([good]) == Error.NONE
    bench.check(good)

    bench = Bench(machine())
    assert bench.run([bad]) == Error.BAD_ADDRESS
    assert not bench.row.words and not bench.requests
