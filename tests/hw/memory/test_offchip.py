# amaranth: UnusedElaboratable=no
import random
from dataclasses import replace

import pytest

from hw.config import EDGE, TINY, DramTiming
from hw.memory.axi import BurstType, Response
from hw.memory.offchip import OffchipMemory
from tests.hw.memory.models import read_burst, write_burst
from tests.support import simulate

VECTOR = TINY.vector
SIZE   = 3
# Hand-countable: hit 3, closed bank 3 + 4, other row 3 + 4 + 5, turnaround 6; rows of 4 beats,
# 2 banks; no refresh in the short tests.
TIMING = DramTiming(bus_bytes_per_cycle=VECTOR, banks=2, row_bytes=4 * VECTOR, row_hit=3,
                    activate=4, precharge=5, turnaround=6, refresh_interval=4000, refresh_busy=20)


def memory(*, depth=64, timing=TIMING, **parameters):
    return OffchipMemory(config=TINY, depth=depth, storage="memory", timing=timing, **parameters)


async def timed_read(ctx, dut, word, beats=1):
    """Cycles from the address to each beat, and the data."""
    axi = dut.axi
    ctx.set(axi.araddr, word * VECTOR)
    ctx.set(axi.arlen, beats - 1)
    ctx.set(axi.arsize, SIZE)
    ctx.set(axi.arvalid, 1)
    ctx.set(axi.rready, 1)
    await ctx.tick().until(axi.arready)
    ctx.set(axi.arvalid, 0)
    times, words, cycle = [], [], 0
    while len(times) < beats:
        cycle += 1
        _, _, valid, data = await ctx.tick().sample(axi.rvalid, axi.rdata)
        if valid:
            times.append(cycle)
            words.append(data)
    ctx.set(axi.rready, 0)
    return times, words


def test_reads_back_what_was_written():
    dut = memory()

    async def drive(ctx):
        assert await write_burst(ctx, dut.axi, 3 * VECTOR, [11, 12, 13], size=SIZE,
                                 ident=1) == Response.OKAY
        assert await read_burst(ctx, dut.axi, 3 * VECTOR, 3, size=SIZE, ident=1) == [
            (11, Response.OKAY), (12, Response.OKAY), (13, Response.OKAY)]
        assert ctx.get(dut.read_bytes) == ctx.get(dut.written_bytes) == 3 * VECTOR

    simulate(dut, drive)


def test_strobes_keep_the_other_bytes():
    dut = memory()

    async def drive(ctx):
        ctx.set(dut.data[5], 0x1122334455667788)
        await write_burst(ctx, dut.axi, 5 * VECTOR, [0xAABBCCDDEEFF0011], size=SIZE,
                          strobes=[0b10000001])
        assert ctx.get(dut.data[5]) == 0xAA22334455667711

    simulate(dut, drive)


def test_latency_of_closed_row_hit_and_conflict():
    dut = memory()
    overhead = OffchipMemory.OVERHEAD

    async def drive(ctx):
        assert (await timed_read(ctx, dut, 0))[0] == [overhead + 7]      # bank 0 closed
        assert (await timed_read(ctx, dut, 2))[0] == [overhead + 3]      # same row
        assert (await timed_read(ctx, dut, 4))[0] == [overhead + 7]      # bank 1 closed
        assert (await timed_read(ctx, dut, 8))[0] == [overhead + 12]     # bank 0, other row
        assert (await timed_read(ctx, dut, 5))[0] == [overhead + 3]      # bank 1 still open
        assert ctx.get(dut.row_hits) == 2
        assert ctx.get(dut.row_misses) == 3

    simulate(dut, drive)


def test_next_bank_opens_while_data_moves():
    dut = memory()
    start = OffchipMemory.OVERHEAD + 7

    async def drive(ctx):
        # Word 4 is in the other bank: its row opens while words 0 to 3 move.
        times, _ = await timed_read(ctx, dut, 0, beats=8)
        assert times[:4] == [start + k for k in range(4)]
        # Prepared from the cycle in which beat 0 moves, on offer 1 + 7 - 1 cycles later.
        assert times[4:] == [start + 7 + k for k in range(4)]
        # Both rows are open now: eight beats without a gap.
        times, _ = await timed_read(ctx, dut, 0, beats=8)
        assert times == [OffchipMemory.OVERHEAD + 3 + k for k in range(8)]

    simulate(dut, drive)


def test_same_bank_opens_only_after_the_data():
    dut = memory()
    cycles = []

    async def drive(ctx):
        axi = dut.axi
        await timed_read(ctx, dut, 0)
        ctx.set(axi.arsize, SIZE)
        ctx.set(axi.arvalid, 1)
        for word in (0, 8):
            ctx.set(axi.araddr, word * VECTOR)
            await ctx.tick().until(axi.arready)
        ctx.set(axi.arvalid, 0)
        ctx.set(axi.rready, 1)
        for cycle in range(40):
            _, _, valid = await ctx.tick().sample(axi.rvalid)
            if valid:
                cycles.append(cycle)
        assert cycles[1] - cycles[0] == 1 + 12

    simulate(dut, drive)


def test_turnaround_between_write_and_read():
    dut = memory()

    async def drive(ctx):
        await timed_read(ctx, dut, 0)
        await write_burst(ctx, dut.axi, 0, [1], size=SIZE)
        assert (await timed_read(ctx, dut, 0)) == ([OffchipMemory.OVERHEAD + 3 + 6], [1])
        assert (await timed_read(ctx, dut, 1))[0] == [OffchipMemory.OVERHEAD + 3]

    simulate(dut, drive)


@pytest.mark.parametrize(("bus", "gaps"), [(8, [1] * 7), (2, [4] * 7), (100, [1] * 7),
                                           (6, [1, 1, 2, 1, 1, 2, 1])])
def test_pins_limit_the_rate(bus, gaps):
    dut = memory(timing=replace(TIMING, bus_bytes_per_cycle=bus, row_bytes=8 * VECTOR))
    first = {8: 1, 2: 4, 100: 1, 6: 2}[bus]

    async def drive(ctx):
        times, _ = await timed_read(ctx, dut, 0, beats=8)
        assert times[0] == OffchipMemory.OVERHEAD + 7 + first - 1
        assert [b - a for a, b in zip(times, times[1:], strict=False)] == gaps

    simulate(dut, drive)


def test_refresh_closes_rows_and_takes_its_time():
    dut = memory(timing=replace(TIMING, refresh_interval=100, refresh_busy=20))

    async def drive(ctx):
        await timed_read(ctx, dut, 0)
        await ctx.tick().repeat(150)
        assert ctx.get(dut.refresh_cycles) == 20
        assert (await timed_read(ctx, dut, 0))[0] == [OffchipMemory.OVERHEAD + 7]
        assert ctx.get(dut.row_misses) == 2
        await ctx.tick().repeat(10_000)
        assert 20 * 100 <= ctx.get(dut.refresh_cycles) <= 20 * 103

    simulate(dut, drive)


def test_data_survives_refresh_in_the_middle_of_traffic():
    dut = memory(timing=replace(TIMING, refresh_interval=37, refresh_busy=11))

    async def drive(ctx):
        words = [random.getrandbits(64) for _ in range(64)]
        assert await write_burst(ctx, dut.axi, 0, words, size=SIZE) == Response.OKAY
        for _ in range(4):
            answer = await read_burst(ctx, dut.axi, 0, 64, size=SIZE)
            assert [data for data, _ in answer] == words

    simulate(dut, drive)


def test_beyond_the_memory_is_decerr():
    dut = memory(depth=64)

    async def drive(ctx):
        answer = await read_burst(ctx, dut.axi, 62 * VECTOR, 3, size=SIZE)
        assert [resp for _, resp in answer] == [Response.DECERR] * 3
        answer = await read_burst(ctx, dut.axi, 61 * VECTOR, 3, size=SIZE)
        assert [resp for _, resp in answer] == [Response.OKAY] * 3
        assert await write_burst(ctx, dut.axi, 63 * VECTOR, [9, 9], size=SIZE) == Response.DECERR
        assert ctx.get(dut.data[63]) == 0
        assert ctx.get(dut.data[0]) == 0

    simulate(dut, drive)


def test_a_write_without_data_does_not_hold_the_bus():
    dut = memory()

    async def drive(ctx):
        ctx.set(dut.axi.awsize, SIZE)
        ctx.set(dut.axi.awlen, 1)
        ctx.set(dut.axi.awvalid, 1)
        await ctx.tick()
        ctx.set(dut.axi.awvalid, 0)
        ctx.set(dut.axi.wvalid, 1)      # the first of two beats
        await ctx.tick()
        ctx.set(dut.axi.wvalid, 0)
        await ctx.tick().repeat(40)
        assert (await timed_read(ctx, dut, 0))[0] == [OffchipMemory.OVERHEAD + 7]

    simulate(dut, drive)


def test_acknowledgements_that_nobody_takes_are_not_lost():
    dut, bursts = memory(queue=2), 12

    async def drive(ctx):
        axi = dut.axi
        ctx.set(axi.awsize, SIZE)
        ctx.set(axi.wlast, 1)
        ctx.set(axi.awvalid, 1)
        ctx.set(axi.wvalid, 1)
        addresses = words = acknowledged = 0
        for cycle in range(600):
            ctx.set(axi.awvalid, addresses < bursts)
            ctx.set(axi.wvalid, words < bursts)
            ctx.set(axi.bready, cycle > 300)
            _, _, awready, wready, bvalid = await ctx.tick().sample(
                axi.awready, axi.wready, axi.bvalid)
            addresses    += awready and addresses < bursts
            words        += wready and words < bursts
            acknowledged += bvalid and cycle > 300
        assert (addresses, words, acknowledged) == (bursts, bursts, bursts)

    simulate(dut, drive)


def test_narrow_and_fixed_bursts_are_slverr():
    dut = memory()

    async def drive(ctx):
        assert (await read_burst(ctx, dut.axi, 0, 1, size=2))[0][1] == Response.SLVERR
        answer = await read_burst(ctx, dut.axi, 0, 2, size=SIZE, burst=BurstType.FIXED)
        assert [resp for _, resp in answer] == [Response.SLVERR] * 2

    simulate(dut, drive)


def test_injected_errors():
    dut = memory()

    async def drive(ctx):
        ctx.set(dut.inject_error, 0b01)
        assert (await read_burst(ctx, dut.axi, 0, 1, size=SIZE))[0][1] == Response.SLVERR
        assert await write_burst(ctx, dut.axi, 0, [1], size=SIZE) == Response.OKAY
        ctx.set(dut.inject_error, 0b10)
        assert (await read_burst(ctx, dut.axi, 0, 1, size=SIZE))[0][1] == Response.OKAY
        assert await write_burst(ctx, dut.axi, 0, [1], size=SIZE) == Response.SLVERR

    simulate(dut, drive)


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("timing", [TIMING, EDGE.timing,
                                    replace(TIMING, refresh_interval=61, refresh_busy=9)])
def test_random_reads_and_writes_at_once(stall, timing):
    """A reader and a writer work side by side in halves that they swap; every beat is checked."""
    depth, half = 512, 256
    dut   = memory(depth=depth, timing=timing)
    model = [0] * depth
    turn  = {"reader": 0, "writer": 0}

    async def one_side(ctx, name, work):
        rng = random.Random(f"{stall} {timing} {name}")
        for round_ in range(4):
            base = half * ((round_ + (name == "writer")) % 2)
            for _ in range(6):
                start = rng.randrange(half)
                beats = rng.randint(1, min(40, half - start))
                await work(ctx, rng, base + start, beats)
            turn[name] = round_ + 1
            while min(turn.values()) < round_ + 1:
                await ctx.tick()

    async def write(ctx, rng, start, beats):
        words = [rng.getrandbits(64) for _ in range(beats)]
        assert await write_burst(ctx, dut.axi, start * VECTOR, words, size=SIZE,
                                 stall=stall) == Response.OKAY
        model[start:start + beats] = words

    async def read(ctx, rng, start, beats):
        answer = await read_burst(ctx, dut.axi, start * VECTOR, beats, size=SIZE, stall=stall)
        assert [data for data, _ in answer] == model[start:start + beats]

    async def reader(ctx):
        await one_side(ctx, "reader", read)

    async def writer(ctx):
        await one_side(ctx, "writer", write)

    random.seed(1)
    simulate(dut, reader, writer)


def test_several_reads_wait_in_the_queue():
    dut = memory(queue=4)

    async def drive(ctx):
        axi = dut.axi
        ctx.set(axi.arsize, SIZE)
        ctx.set(axi.arlen, 3)
        ctx.set(axi.arvalid, 1)
        taken = 0
        for _ in range(60):      # nobody takes data: the queue, its cutter and the bus fill up
            _, _, ready = await ctx.tick().sample(axi.arready)
            taken += ready
        assert taken == 4 + 3

    simulate(dut, drive)


@pytest.mark.parametrize(("parameters", "message"), [
    ({"depth": 1}, r"^Off-chip depth must be at least 2, not 1$"),
    ({"depth": 1 << 20},
     r"^Off-chip depth \(1048576\) must not exceed the 524288 words of configuration 'tiny'$"),
    ({"storage": "disk"}, r"^Storage must be 'array' or 'memory', not 'disk'$"),
    ({"queue": 0}, r"^Queue must be positive, not 0$"),
])
def test_wrong_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        OffchipMemory(**{"config": TINY, **parameters})
