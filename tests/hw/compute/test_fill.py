# amaranth: UnusedElaboratable=no
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.compute.fill import FillEngine
from hw.config import TINY, UnitConfig
from hw.isa import FORMS, Cause, Error, FillMode, Opcode, Source
from tests.hw.models import RowModel, reader, sink, watch

KIB = 1024
HEADER = {"layer": 7, "row": 5}


def machine(vector=8, pipelined=False):
    return replace(TINY, vector=vector, onchip_bytes=4 * KIB, feedback_bytes=2 * KIB,
                   pipelined=pipelined)


def expected(words, vector, instruction):
    """Output row as an array of pixel, byte."""
    size = instruction["width"] * instruction["vectors"]

    def row(base):
        flat = np.array([list(words[base + k]) for k in range(size)], dtype=np.uint8)
        return flat.reshape(instruction["width"], instruction["vectors"] * vector)

    source = row(instruction["src_base"])
    if instruction["mode"] == FillMode.COPY:
        return source
    if instruction["mode"] == FillMode.UP:
        return source.repeat(2, axis=0)
    both = np.maximum(source, row(instruction["src_base2"]))
    return both.reshape(len(both) // 2, 2, -1).max(axis=1)


class Bench:
    """A fill engine between two memories of random bytes and a row memory."""

    def __init__(self, *, vector=8, pixels=2, outputs=2, has_feedback=True, pipelined=False,
                 stall=0.0, seed=0):
        self.config = machine(vector, pipelined)
        self.unit   = UnitConfig(pixels=pixels, outputs=outputs, drain=outputs, row_words=256,
                                 weight_words=4, params=4)
        self.dut    = FillEngine(self.config, self.unit, has_feedback)
        self.rng    = np.random.default_rng(seed)
        self.onchip   = [self.rng.bytes(vector) for _ in range(self.config.onchip_words)]
        self.feedback = [self.rng.bytes(vector) for _ in range(self.config.feedback_words)]
        self.row      = RowModel(banks=self.unit.banks, depth=256, vector=vector,
                                 lanes=vector // outputs)
        self.causes   = Counter()
        self.taps     = []
        self.requests = []
        self.stall, self.seed = stall, seed

    def run(self, instructions):
        """Runs them back to back; the error code of the last one."""
        dut, error = self.dut, None

        async def drive(ctx):
            nonlocal error
            for fields in instructions:
                ctx.set(dut.engine.i.p.fill, {**HEADER, **fields})
                ctx.set(dut.engine.i.valid, 1)
                *_, error = await ctx.tick().sample(dut.engine.error).until(
                    dut.engine.i.ready | (dut.engine.error != Error.NONE))
            if error != Error.NONE:
                await ctx.tick().repeat(20)
                assert ctx.get(dut.engine.error) == error, "an error must stay"
            ctx.set(dut.engine.i.valid, 0)

        def note(valid, cause, tap_valid, tap):
            if valid:
                self.causes[Cause(cause)] += 1
            if tap_valid:
                self.taps.append(tap)

        async def watchdog(ctx):
            await ctx.tick().repeat(20_000)
            raise TimeoutError("the fill engine hangs")

        sim = Simulator(dut)
        sim.add_clock(1e-8)
        sim.add_testbench(drive)
        ports = [(dut.read_onchip, self.onchip)]
        if dut.has_feedback:
            ports.append((dut.read_feedback, self.feedback))
        for index, (port, words) in enumerate(ports):
            sim.add_testbench(reader(port, words, latency=self.config.read_latency,
                                     stall=self.stall, seed=self.seed + index,
                                     requests=self.requests), background=True)
        sim.add_testbench(sink(dut.write, self.row.write, stall=self.stall, seed=self.seed + 9),
                          background=True)
        sim.add_testbench(watch([dut.engine.i.valid, dut.engine.cause, dut.tap.valid, dut.tap.p],
                                note), background=True)
        sim.add_testbench(watchdog, background=True)
        sim.run()
        return error

    def check(self, instruction):
        """Row memory and tap hold exactly the rows of ``instruction``, and nothing else."""
        words  = self.feedback if instruction["source"] == Source.FEEDBACK else self.onchip
        vector = self.config.vector
        row    = expected(words, vector, instruction)
        wanted = {}
        for x, pixel in enumerate(row):
            for byte, value in enumerate(pixel):
                address = (instruction["dst_base"] + instruction["dst_vector"] + byte // vector
                           + x // self.unit.banks * instruction["dst_stride"])
                wanted[x % self.unit.banks, address, byte % vector] = value
        assert self.row.words == wanted
        assert self.causes[Cause.ISSUE] == row.size // vector

        seen = np.full(row.shape, -1)
        for tap in self.taps:
            assert (tap.layer, tap.row, tap.count) == (HEADER["layer"], HEADER["row"], vector)
            place = np.s_[tap.column, tap.channel:tap.channel + vector]
            assert (seen[place] == -1).all()
            seen[place] = list(tap.data.to_bytes(vector, "little"))
        if instruction["mode"] == FillMode.COPY:
            assert not self.taps
        else:
            assert (seen == row).all()


def instruction(**fields):
    return {"source": Source.ONCHIP, "mode": FillMode.COPY, "src_base": 10, "src_base2": 200,
            "width": 5, "vectors": 3, "dst_base": 4, "dst_stride": 3, "dst_vector": 0, **fields}


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("mode, reads_per_write", [(FillMode.COPY, 1), (FillMode.UP, 0.5),
                                                   (FillMode.POOL, 4)])
def test_speed_and_order(mode, reads_per_write, pipelined):
    bench = Bench(pipelined=pipelined)
    fill  = instruction(mode=mode, width=16, vectors=2, dst_stride=2)
    assert bench.run([fill]) == Error.NONE
    bench.check(fill)

    writes = len(bench.row.words) // 8
    assert len(bench.requests) == writes * reads_per_write
    # Take, check (2 bits and the verdict), request to data 2 or 4, queue, output register, retire.
    assert sum(bench.causes.values()) == max(writes, writes * reads_per_write) + 9 + 2 * pipelined
    assert set(bench.causes) == {Cause.ISSUE, Cause.FILL_DRAIN}
    if mode == FillMode.COPY:
        assert bench.requests == list(range(10, 42))


@pytest.mark.parametrize("seed", range(24))
def test_random_rows_with_stalls(seed):
    rng    = np.random.default_rng(seed)
    pixels = int(rng.choice([1, 2, 4]))
    bench  = Bench(vector=int(rng.choice([8, 16])), pixels=pixels, outputs=int(rng.choice([1, 8])),
                   has_feedback=seed % 4 != 0, pipelined=seed % 3 == 0,
                   stall=float(rng.choice([0, 0.3, 0.7])), seed=seed)
    source = Source.FEEDBACK if bench.dut.has_feedback and rng.random() < 0.5 else Source.ONCHIP
    mode   = FillMode(int(rng.integers(3)))
    width  = int(rng.integers(1, 9)) * (2 if mode == FillMode.POOL else 1)
    dst_vector, vectors, spare = (int(n) for n in rng.integers([0, 1, 0], [3, 4, 3]))
    fill = instruction(source=source, mode=mode, width=width, vectors=vectors,
                       src_base=int(rng.integers(50)), src_base2=int(rng.integers(50)),
                       dst_vector=dst_vector, dst_stride=dst_vector + vectors + spare,
                       dst_base=int(rng.integers(30)))
    assert bench.run([fill]) == Error.NONE
    bench.check(fill)
    if not bench.stall:
        assert Cause.CONFLICT not in bench.causes
    elif bench.causes[Cause.ISSUE] > 20:
        assert Cause.CONFLICT in bench.causes


def test_instructions_back_to_back():
    bench = Bench(stall=0.4, pixels=4)
    fills = [instruction(mode=FillMode(k % 3), width=6, vectors=1 + k % 2, src_base=17 * k,
                         dst_base=20 * k, layer=0) for k in range(9)]
    assert bench.run(fills) == Error.NONE
    both = bench.row.words
    for fill in fills:
        alone = Bench(pixels=4)
        alone.run([fill])
        assert alone.row.words.items() <= both.items()
    assert not bench.taps, "layer 0 must not be tapped"


EDGES = {                                      # the last one that fits, four banks
    "source":      (dict(src_base=512 - 15), dict(src_base=512 - 14)),
    "feedback":    (dict(source=Source.FEEDBACK, src_base=256 - 15),
                    dict(source=Source.FEEDBACK, src_base=256 - 14)),
    "second row":  (dict(mode=FillMode.POOL, width=4, src_base2=512 - 12),
                    dict(mode=FillMode.POOL, width=4, src_base2=512 - 11)),
    "row memory":  (dict(dst_base=256 - 6), dict(dst_base=256 - 5)),
    "dst vector":  (dict(dst_base=256 - 9, dst_vector=3), dict(dst_base=256 - 9, dst_vector=4)),
    "doubled row": (dict(mode=FillMode.UP, dst_base=256 - 9),
                    dict(mode=FillMode.UP, dst_base=256 - 8)),
    "stride":      (dict(dst_stride=100, dst_base=153), dict(dst_stride=100, dst_base=154)),
    "no pixels":   (dict(width=1), dict(width=0)),
    "no vectors":  (dict(vectors=1), dict(vectors=0)),
    "odd pool":    (dict(mode=FillMode.POOL, width=6), dict(mode=FillMode.POOL, width=7)),
    "pool of one": (dict(mode=FillMode.POOL, width=2), dict(mode=FillMode.POOL, width=1)),
}


@pytest.mark.parametrize("edge", EDGES)
def test_edges_of_memory(edge):
    good, bad = (instruction(**fields) for fields in EDGES[edge])
    bench = Bench()
    assert bench.run([good]) == Error.NONE
    bench.check(good)

    bench = Bench()
    assert bench.run([bad]) == Error.BAD_ADDRESS
    assert not bench.row.words and not bench.requests


def test_feedback_needs_a_port():
    bench = Bench(has_feedback=False)
    assert bench.run([instruction(source=Source.FEEDBACK)]) == Error.BAD_ADDRESS


def test_unknown_mode():
    bench = Bench()
    form  = FORMS[Opcode.FILL]
    bits  = form.const(instruction()).as_bits() | 3 << form["mode"].offset

    async def drive(ctx):
        ctx.set(bench.dut.engine.i.p.as_value(), bits)
        ctx.set(bench.dut.engine.i.valid, 1)
        *_, error = await ctx.tick().sample(bench.dut.engine.error).until(
            bench.dut.engine.error != Error.NONE)
        assert error == Error.BAD_ADDRESS

    sim = Simulator(bench.dut)
    sim.add_clock(1e-8)
    sim.add_testbench(drive)
    sim.run_until(1e-6)
