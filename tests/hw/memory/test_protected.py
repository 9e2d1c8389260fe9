"""Memories and queues with check bits: every flip of one bit, every flip of two."""

# amaranth: UnusedElaboratable=no
import random
from itertools import combinations

import pytest
from amaranth import *
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.sim import Simulator

from hw.memory.protected import (
    ProtectedMemory,
    ProtectedQueue,
    check_bits,
    columns,
    decode,
    encode,
    errors,
    memory,
    queue,
)


def simulate(design, bench, *, clocked=False):
    simulator = Simulator(design)
    if clocked:
        simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def codec(kind, width):
    """A module with a word and its decoding, and the encoder's function."""
    m = Module()
    value, check = Signal(width), Signal(check_bits(kind, width))
    right, corrected, uncorrectable, made = Signal(width), Signal(), Signal(), Signal.like(check)
    found = decode(m, kind, value, check)
    m.d.comb += [made.eq(encode(kind, value)), right.eq(found[0]), corrected.eq(found[1]),
                 uncorrectable.eq(found[2])]
    return m, value, check, right, corrected, uncorrectable, made


@pytest.mark.parametrize("width, bits", [(4, 4), (8, 5), (11, 5), (16, 6), (64, 8), (128, 9),
                                         (256, 10)])
def test_check_bits(width, bits):
    """As many as any code that corrects one flip and notices two can do with."""
    assert check_bits("secded", width) == bits
    assert check_bits("parity", width) == 1
    assert len(set(columns(width))) == width
    assert all(column.bit_count() % 2 and column.bit_count() > 1 for column in columns(width))


@pytest.mark.parametrize("kind, width", [("secded", 1), ("secded", 4), ("secded", 5),
                                         ("secded", 8), ("parity", 4), ("parity", 8)])
def test_every_flip_of_one_and_two_bits(kind, width):
    m, value, check, right, corrected, uncorrectable, made = codec(kind, width)
    total = width + len(check)
    flips = [(), *combinations(range(total), 1), *combinations(range(total), 2)]
    words = range(1 << width) if width < 8 else (0, 1, 0x80, 0x5A, 0xFF, 0x37)

    async def bench(ctx):
        for word in words:
            ctx.set(value, word)
            good = word | ctx.get(made) << width
            assert word or good == 0                # a row of zeros is right
            for flip in flips:
                bad = good ^ sum(1 << bit for bit in flip)
                ctx.set(value, bad & (1 << width) - 1)
                ctx.set(check, bad >> width)
                seen = (ctx.get(corrected), ctx.get(uncorrectable))
                if kind == "parity":
                    assert seen == (0, len(flip) % 2), (word, flip)
                else:
                    assert seen == (len(flip) == 1, len(flip) == 2), (word, flip)
                if len(flip) < (1 if kind == "parity" else 2):
                    assert ctx.get(right) == word, (word, flip)

    simulate(m, bench)


@pytest.mark.parametrize("width", [64, 86])
def test_wide_words(width):
    m, value, check, right, corrected, uncorrectable, made = codec("secded", width)
    word  = 0x1234_5678_9ABC_DEF0_0F0F_5 & (1 << width) - 1
    total = width + len(check)

    async def bench(ctx):
        ctx.set(value, word)
        good = word | ctx.get(made) << width
        for bit in range(total):
            for other in (bit, (bit + 7) % total):
                bad = good ^ 1 << bit ^ (1 << other if other != bit else 0)
                ctx.set(value, bad & (1 << width) - 1)
                ctx.set(check, bad >> width)
                assert (ctx.get(corrected), ctx.get(uncorrectable)) == (other == bit, other != bit)
                assert other != bit or ctx.get(right) == word

    simulate(m, bench)


@pytest.mark.parametrize("kind", ["parity", "secded"])
@pytest.mark.parametrize("domain", ["sync", "comb"])
def test_ports_are_those_of_a_memory(kind, domain):
    """Beside a plain memory, with random writes to parts of a row: the same data in every cycle."""
    drawn = random.Random(3)
    m = Module()
    guarded = ProtectedMemory(kind=kind, shape=32, depth=8, parts=2)
    plain   = Memory(shape=32, depth=8, init=[])
    m.submodules.guarded, m.submodules.plain = guarded, plain
    ports = []
    for one in (guarded, plain):
        ports.append((one.write_port(granularity=16),
                      one.read_port(domain=domain)))
    (write, read), (plain_write, plain_read) = ports
    m.d.comb += [plain_write.addr.eq(write.addr), plain_write.en.eq(write.en),
                 Value.cast(plain_write.data).eq(write.data), plain_read.addr.eq(read.addr)]
    if domain == "sync":
        m.d.comb += plain_read.en.eq(read.en)

    async def bench(ctx):
        for _ in range(300):
            ctx.set(write.addr, drawn.randrange(8))
            ctx.set(write.en, drawn.randrange(4))
            ctx.set(Value.cast(write.data), drawn.getrandbits(32))
            ctx.set(read.addr, drawn.randrange(8))
            if domain == "sync":
                ctx.set(read.en, drawn.randrange(2))
            await ctx.tick()
            assert ctx.get(Value.cast(read.data)) == ctx.get(Value.cast(plain_read.data))
            assert not ctx.get(guarded.corrected) and not ctx.get(guarded.uncorrectable)

    simulate(m, bench, clocked=True)


@pytest.mark.parametrize("kind, flips, seen, right", [
    ("secded", [], (0, 0), True), ("secded", [3], (1, 0), True), ("secded", [9], (1, 0), True),
    ("secded", [3, 5], (0, 1), False), ("secded", [3, 16], (1, 0), True),
    ("parity", [3], (0, 1), False), ("parity", [3, 10], (0, 1), False),
    ("parity", [3, 5], (0, 0), False),
])
def test_what_is_stored_is_checked_once_a_read(kind, flips, seen, right):
    """Two parts of 8 bits, each with check bits of its own: 13 bits with secded, 9 with parity."""
    store = ProtectedMemory(kind=kind, shape=16, depth=4, parts=2)
    write, read = store.write_port(granularity=8), store.read_port()

    async def bench(ctx):
        ctx.set(write.addr, 2)
        ctx.set(write.data, 0xBEEF)
        ctx.set(write.en, 3)
        ctx.set(read.en, 0)
        await ctx.tick()
        ctx.set(write.en, 0)
        row = ctx.get(store.rows.data[2])
        ctx.set(store.rows.data[2], row ^ sum(1 << bit for bit in flips))
        ctx.set(read.addr, 2)
        assert (ctx.get(store.corrected), ctx.get(store.uncorrectable)) == (0, 0)
        ctx.set(read.en, 1)
        await ctx.tick()
        ctx.set(read.en, 0)
        assert (ctx.get(store.corrected), ctx.get(store.uncorrectable)) == seen
        assert (ctx.get(read.data) == 0xBEEF) is right
        await ctx.tick()
        assert (ctx.get(store.corrected), ctx.get(store.uncorrectable)) == (0, 0)
        assert (ctx.get(read.data) == 0xBEEF) is right

    simulate(store, bench, clocked=True)


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("kind", ["parity", "secded"])
def test_a_queue_is_one(kind, buffered):
    dut   = queue(kind, width=12, depth=4, buffered=buffered)
    drawn = random.Random(1)
    sent, got = [], []

    async def bench(ctx):
        for _ in range(200):
            word = drawn.getrandbits(12)
            ctx.set(dut.w_data, word)
            ctx.set(dut.w_en, drawn.randrange(2))
            ctx.set(dut.r_en, drawn.randrange(2))
            if ctx.get(dut.w_en & dut.w_rdy):
                sent.append(word)
            if ctx.get(dut.r_en & dut.r_rdy):
                got.append(ctx.get(dut.r_data))
            assert not ctx.get(dut.corrected) and not ctx.get(dut.uncorrectable)
            await ctx.tick()

    simulate(dut, bench, clocked=True)
    assert len(got) > 50
    assert got == sent[:len(got)]


def test_plain_where_nothing_is_asked():
    assert isinstance(memory("none", shape=8, depth=4, parts=2), Memory)
    assert isinstance(queue("none", width=8, depth=4), SyncFIFO)
    assert isinstance(queue("none", width=8, depth=4, buffered=True), SyncFIFOBuffered)


def test_errors_by_memory():
    parts = [("rows", ProtectedMemory(kind="parity", shape=8, depth=4)) for _ in range(2)]
    parts += [("onchip", memory("none", shape=8, depth=4)),
              ("queues", ProtectedQueue(kind="parity", width=8, depth=4))]
    m = Module()
    for number, (_, part) in enumerate(parts):
        m.submodules[f"part_{number}"] = part
    corrected, uncorrectable = errors(parts, ("onchip", "rows", "queues"))
    assert len(corrected) == len(uncorrectable) == 3


@pytest.mark.parametrize("options, message", [
    ({"kind": "none", "shape": 8}, "^Protection must be parity or secded, not 'none'$"),
    ({"kind": "secded", "shape": 8, "parts": 3},
     r"^Memory parts \(3\) must divide its width \(8\)$"),
])
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        ProtectedMemory(depth=4, **options)


def test_granularity_is_that_of_the_parts():
    with pytest.raises(ValueError, match="^Write granularity must be 4, not 8$"):
        ProtectedMemory(kind="parity", shape=16, depth=4, parts=4).write_port(granularity=8)
