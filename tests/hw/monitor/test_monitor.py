# amaranth: UnusedElaboratable=no
import random
from collections import Counter
from dataclasses import replace

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from hw.config import TINY
from hw.memory.banked import BankedMemory
from hw.monitor.monitor import QUEUE, AttentionMonitor
from tests.hw.models import reader

WATCH_ALL = {"enable": 1, "layer": 5, "x0": 0, "y0": 0, "width": 2047, "height": 4095,
             "decimate_log2": 0}


class Bench:
    """A monitor on a memory of random bytes. ``script`` is a list of things to do in turn:
    a dictionary changes settings, a tuple announces (layer, row, base, width), a number waits.
    ``moves`` counts cycles by what moved: a byte, a byte that was refused, a read that was."""

    def __init__(self, *, vector=8, stall=0.0, read_stall=0.0, seed=0):
        chance = random.Random(seed)
        self.config = replace(TINY, vector=vector, onchip_bytes=4096)
        self.dut    = AttentionMonitor(self.config)
        self.words  = [chance.randbytes(vector) for _ in range(self.config.onchip_words)]
        self.rows   = []           # (layer, row, bytes) as received
        self.moves  = Counter()
        self.idle   = 0            # cycles since anything moved
        self.chance, self.stall, self.read_stall = chance, stall, read_stall

    def pixels(self, base, width):
        return b"".join(self.words[base:base + -(-width // self.config.vector)])[:width]

    def run(self, script, *, settle=3000):
        dut = self.dut

        async def drive(ctx):
            for step in script:
                if isinstance(step, dict):
                    for name, value in step.items():
                        ctx.set(getattr(dut.settings, name), value)
                elif isinstance(step, tuple):
                    ctx.set(dut.alpha_row.p, dict(zip(("layer", "row", "base", "width"), step,
                                                      strict=True)))
                    ctx.set(dut.alpha_row.valid, 1)
                    await ctx.tick()
                    ctx.set(dut.alpha_row.valid, 0)
                    ctx.set(dut.alpha_row.p, {"layer": 5, "row": 77, "base": 77, "width": 77})
                else:
                    await ctx.tick().repeat(step)
            self.idle = 0
            for _ in range(settle):
                await ctx.tick()
                if self.idle > 12:
                    break
            self.sent, self.dropped = ctx.get(dut.rows_sent), ctx.get(dut.rows_dropped)

        async def take(ctx):
            row, offered = [], None
            while True:
                ready = self.chance.random() >= self.stall
                ctx.set(dut.o.tready, ready)
                valid, byte, last, user = (await ctx.tick().sample(
                    dut.o.tvalid, dut.o.tdata, dut.o.tlast, dut.o.tuser))[2:]
                if offered is not None:
                    assert valid and (byte, last, user) == offered, "a byte was altered"
                offered = (byte, last, user) if valid and not ready else None
                if valid and ready:
                    row.append(byte)
                    if last:
                        self.rows.append((user.layer, user.row, bytes(row)))
                        row = []

        async def note(ctx):
            while True:
                valid, ready, asks, answered = (await ctx.tick().sample(
                    dut.o.tvalid, dut.o.tready, dut.read.address.valid, dut.read.address.ready))[2:]
                if valid:
                    self.moves["sent" if ready else "refused"] += 1
                if asks and not answered:
                    self.moves["conflict"] += 1
                self.idle = 0 if valid or asks else self.idle + 1

        sim = Simulator(dut)
        sim.add_clock(1e-8)
        sim.add_testbench(drive)
        for process in (take, note, reader(dut.read, self.words, stall=self.read_stall)):
            sim.add_testbench(process, background=True)
        sim.run()
        assert self.sent == len(self.rows)


def test_a_whole_row():
    bench = Bench()
    bench.run([WATCH_ALL, (5, 3, 10, 20)])
    assert bench.rows == [(5, 3, bench.pixels(10, 20))]
    assert (bench.sent, bench.dropped) == (1, 0)
    assert bench.moves == {"sent": 20}


@pytest.mark.parametrize("decimate_log2", range(4))
def test_region_and_decimation(decimate_log2):
    bench  = Bench(vector=16)
    region = {"x0": 5, "y0": 2, "width": 21, "height": 9, "decimate_log2": decimate_log2}
    script = [WATCH_ALL, region]
    for row in range(14):
        script += [(5, row, 4 * row, 40), 120]
    bench.run(script)
    step = 1 << decimate_log2
    assert bench.rows == [(5, row, bench.pixels(4 * row, 40)[5:26:step])
                          for row in range(2, 11, step)]


def test_a_region_is_cut_off_at_the_end_of_the_row():
    bench = Bench()
    bench.run([WATCH_ALL, {"x0": 6, "width": 2047}, (5, 0, 0, 9), 40, (5, 1, 8, 6), 40,
               {"x0": 0, "width": 0}, (5, 2, 16, 9), 40, {"height": 0}, (5, 3, 16, 9), 40])
    assert bench.rows == [(5, 0, bench.pixels(0, 9)[6:])]
    assert (bench.sent, bench.dropped) == (1, 0), "a row without pixels is not selected"


def test_other_layers_and_disabled():
    bench = Bench()
    bench.run([WATCH_ALL, (4, 0, 0, 8), (6, 0, 0, 8), {"enable": 0}, (5, 0, 0, 8), 40])
    assert (bench.rows, bench.sent, bench.dropped) == ([], 0, 0)


def test_settings_change_at_the_next_row():
    bench = Bench(stall=0.5, seed=1)
    bench.run([WATCH_ALL, (5, 0, 0, 24), {"x0": 8, "width": 8}, (5, 1, 3, 24),
               {"layer": 9, "decimate_log2": 2}, 7, (5, 2, 6, 24), (9, 4, 6, 24), 3,
               {"enable": 0}, (9, 8, 9, 24)])
    assert bench.rows == [(5, 0, bench.pixels(0, 24)), (5, 1, bench.pixels(3, 24)[8:16]),
                          (9, 4, bench.pixels(6, 24)[8:16:4])]


def test_rows_beyond_the_queue_are_dropped_and_counted():
    bench = Bench(stall=1.0)
    rows  = [(5, row, row, 8) for row in range(10)]

    bench.run([WATCH_ALL, *rows, 200], settle=0)
    assert (bench.sent, bench.dropped) == (0, 10 - 1 - QUEUE)
    assert bench.moves["refused"] > 150
    assert not bench.rows


def test_after_dropping_it_goes_on():
    bench = Bench(stall=0.9, seed=2)
    rows  = [(5, row, row, 8) for row in range(10)]
    bench.run([WATCH_ALL, *rows, 1500, (5, 20, 40, 8)])
    assert bench.rows == [(5, row, bench.pixels(row, 8)) for row in range(1 + QUEUE)] + [
        (5, 20, bench.pixels(40, 8))]
    assert (bench.sent, bench.dropped) == (6, 5)


@pytest.mark.parametrize("seed", range(6))
def test_random_rows(seed):
    chance = random.Random(seed)
    bench  = Bench(vector=chance.choice([8, 16]), stall=chance.choice([0, 0.4]),
                   read_stall=chance.choice([0, 0.8]), seed=seed)
    script, wanted = [], []
    for _ in range(8):
        settings = {"enable": chance.random() < 0.9, "layer": chance.choice([5, 6]),
                    "x0": chance.randrange(30), "y0": chance.randrange(8),
                    "width": chance.randrange(60), "height": chance.randrange(20),
                    "decimate_log2": chance.randrange(4)}
        layer, row, base, width = (chance.choice([5, 6]), chance.randrange(20),
                                   chance.randrange(200), chance.randrange(1, 50))
        script += [settings, (layer, row, base, width), 400]
        rows    = range(settings["y0"], settings["y0"] + settings["height"],
                        1 << settings["decimate_log2"])
        sent    = bench.pixels(base, width)[settings["x0"]:settings["x0"] + settings["width"]][
            ::1 << settings["decimate_log2"]]
        if settings["enable"] and layer == settings["layer"] and row in rows and sent:
            wanted.append((layer, row, sent))
    bench.run(script)
    assert bench.rows == wanted
    assert bench.dropped == 0
    assert (bench.moves["conflict"] > 0) == (bench.read_stall > 0 and bool(wanted))


def test_fields_of_every_width():
    """Regions and rows anywhere in their fields, often one bit or one pixel beside each other."""
    chance = random.Random(11)
    bench  = Bench(seed=11)
    script, wanted = [], []
    for _ in range(200):
        x0, y0, layer = chance.randrange(2020), chance.randrange(4096), chance.randrange(1, 256)
        settings = {"enable": 1, "layer": layer, "x0": x0, "y0": y0,
                    "width": chance.choice([1, 2, 9, chance.randrange(2048)]),
                    "height": chance.choice([1, 2, 9, chance.randrange(4096)]),
                    "decimate_log2": chance.choice([0, 0, 0, 1, 2, 3])}
        row   = min(4095, y0 + chance.choice([0, 0, 1, 8, settings["height"] - 1,
                                              settings["height"]]))
        row  ^= chance.choice([0, 0, 0, 1 << chance.randrange(12)])
        width = x0 + min(24, chance.choice([0, 1, 24, *(settings["width"] + more
                                                        for more in (-1, 0, 1))]))
        base  = chance.randrange(bench.config.onchip_words - width // bench.config.vector)
        seen  = layer ^ chance.choice([0, 0, 0, 1 << chance.randrange(8)])
        script += [settings, (seen, row, base, width), 50]
        down  = row - y0
        sent  = bench.pixels(base, width)[x0:x0 + settings["width"]:1 << settings["decimate_log2"]]
        if seen == layer and 0 <= down < settings["height"] and sent and (
                down % (1 << settings["decimate_log2"]) == 0):
            wanted.append((seen, row, sent))
    bench.run(script)
    assert bench.rows == wanted
    assert len(wanted) > 30


def test_layer_0_watches_every_gate():
    bench = Bench()
    bench.run([{**WATCH_ALL, "layer": 0}, (5, 0, 10, 9), 60, (17, 3, 20, 4), 60])
    assert bench.rows == [(5, 0, bench.pixels(10, 9)), (17, 3, bench.pixels(20, 4))]


class Run(wiring.Component):
    """A monitor beside an on-chip memory that is reset with it, as in the chip."""

    def __init__(self, config):
        self.monitor = AttentionMonitor(config)
        self.memory  = BankedMemory(depth=config.onchip_words, vector=config.vector, lanes=1,
                                    banks=1, readers=1, writers=1)
        super().__init__({"clear": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.monitor = self.monitor
        m.submodules.memory  = ResetInserter(self.clear)(self.memory)
        m.d.comb += self.monitor.clear.eq(self.clear)
        wiring.connect(m, self.monitor.read, self.memory.r[0])
        return m


def test_a_row_that_began_ends_although_another_run_begins():
    """A reset in its middle took TVALID back and swallowed TLAST: rows were glued together."""
    chance = random.Random(5)
    config = replace(TINY, onchip_bytes=1024)
    words  = [chance.randbytes(config.vector) for _ in range(config.onchip_words)]
    dut    = Run(config)
    dut.memory.data[0].init = [int.from_bytes(word, "little") for word in words]
    port, rows = dut.monitor.o, []

    async def drive(ctx):
        for name, value in WATCH_ALL.items():
            ctx.set(getattr(dut.monitor.settings, name), value)
        for after in range(1, 120, 2):
            for row in range(3):
                ctx.set(dut.monitor.alpha_row.p,
                        {"layer": 5, "row": row, "base": 10 * row, "width": 20})
                ctx.set(dut.monitor.alpha_row.valid, 1)
                await ctx.tick()
            ctx.set(dut.monitor.alpha_row.valid, 0)
            await ctx.tick().repeat(after)
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            assert ctx.get(dut.monitor.rows_sent) == 0
            await ctx.tick().repeat(60)
            assert not ctx.get(port.tvalid), "rows of the run before that had not begun"
        assert {row for row, _ in rows} == {0, 1, 2}
        assert {data for _, data in rows} == {b"".join(words[base:base + 3])[:20]
                                              for base in (0, 10, 20)}

    async def take(ctx):
        row, offered = [], None
        while True:
            ready = chance.random() < 0.7
            ctx.set(port.tready, ready)
            valid, byte, last, user = (await ctx.tick().sample(
                port.tvalid, port.tdata, port.tlast, port.tuser))[2:]
            if offered is not None:
                assert valid and (byte, last, user) == offered, "a byte was taken back"
            offered = (byte, last, user) if valid and not ready else None
            if valid and ready:
                row.append(byte)
                if last:
                    rows.append((user.row, bytes(row)))
                    row = []

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(drive)
    sim.add_testbench(take, background=True)
    sim.run()
