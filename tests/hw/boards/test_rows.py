"""Rows of the attention monitor in a ring: whole and in order, or not at all."""

import random

import pytest
from amaranth.sim import Simulator

from hw.boards.rows import ROW_WORDS, MonitorRows, row_head


def words_of(layer, row, pixels):
    """Numbers that a row becomes."""
    padded = bytes(pixels) + bytes(-len(pixels) % 8)
    return [row_head.const({"layer": layer, "row": row, "bytes": len(pixels)}).as_bits(), *(
        int.from_bytes(padded[at:at + 8], "little") for at in range(0, len(padded), 8))]


def run(rows, *, reads, seed):
    """Send ``rows``, and read with probability ``reads`` in a cycle; the words that were read."""
    dut, rng = MonitorRows(), random.Random(seed)
    got, sent = [], []

    async def send(ctx):
        for layer, row, pixels in rows:
            for place, pixel in enumerate(pixels):
                while rng.random() < 0.3:
                    ctx.set(dut.i.tvalid, 0)
                    await ctx.tick()
                ctx.set(dut.i.tvalid, 1)
                ctx.set(dut.i.tdata, pixel)
                ctx.set(dut.i.tlast, place == len(pixels) - 1)
                ctx.set(dut.i.tuser, {"layer": layer, "row": row})
                await ctx.tick().until(dut.i.tready)
        ctx.set(dut.i.tvalid, 0)
        await ctx.tick().repeat(4)
        sent.append(True)

    async def read(ctx):
        at = 0
        while not sent or at != ctx.get(dut.level):
            await ctx.tick()
            if (sent or rng.random() < reads) and at != ctx.get(dut.level):
                ctx.set(dut.address, at % ROW_WORDS)
                await ctx.tick()
                got.append(ctx.get(dut.word))
                at = (at + 1) % (1 << 16)
                ctx.set(dut.done, at)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(send)
    sim.add_testbench(read)
    sim.run()
    return got


def random_rows(rng, count):
    return [(rng.randrange(256), rng.randrange(1 << 12), rng.randbytes(rng.choice(
        [1, 7, 8, 9, rng.randint(1, 64)]))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_rows_come_whole_and_in_order(seed):
    """More of them than the ring holds, to a reader who is fast enough."""
    rows = random_rows(random.Random(seed), 250)
    want = [word for row in rows for word in words_of(*row)]
    assert len(want) > 2 * ROW_WORDS
    assert run(rows, reads=1, seed=seed) == want


def test_a_row_without_room_is_dropped_as_a_whole():
    rows  = random_rows(random.Random(5), 200)
    got   = run(rows, reads=0.01, seed=5)
    found = []
    for row in rows:
        words = words_of(*row)
        if got[:len(words)] == words:
            found.append(row)
            got = got[len(words):]
    assert got == []
    assert 20 < len(found) < len(rows)


def test_a_ring_that_nobody_reads_fills_to_its_last_word():
    rows = [(1, row, bytes(8 * 31)) for row in range(9)]        # 32 words each
    assert run(rows, reads=0, seed=0) == [word for row in rows[:8] for word in words_of(*row)]
