# amaranth: UnusedElaboratable=no
"""The SDRAM's controller and its pins: bytes, data sheet, bandwidth."""

import random
from dataclasses import replace

import pytest

from golden.errors import InputError
from hw.config import EDGE, TINY, preset
from hw.memory.axi import BurstType, Response
from hw.memory.pinned import PinnedMemory
from hw.memory.sdram import SdramController
from hw.memory.sdram_device import Rule
from tests.hw.memory.models import read_burst, write_burst
from tests.support import simulate

VECTOR, SIZE = EDGE.vector, 3
DEPTH    = 2048                 # beats: four rows in each of four banks
DEADLINE = 1e-2                 # a million cycles
SLOW     = replace(EDGE.dram, power_up_ns=2000)
# Every wait is longer than what a burst takes anyway, and each is another number of clocks.
FAST     = replace(SLOW, bytes_per_second=200_000_000, cas=3, activate_ns=30, precharge_ns=20,
                   row_active_ns=80, row_cycle_ns=120, row_to_row_ns=60, write_recovery_ns=40,
                   refresh_busy_ns=75, refresh_interval_ns=2500)
DRAMS    = {"slow": SLOW, "fast": FAST}


def memory(dram=SLOW, *, demands=None, depth=DEPTH):
    """``demands`` is what the memory wants, if not what its controller was told."""
    config = replace(EDGE, dram=dram, clock_mhz=dram.pins_mhz)
    return PinnedMemory(config=config, depth=depth, storage="memory", dram=demands, id_width=2)


def broken(ctx, dut):
    bits = ctx.get(dut.broken)
    return {rule for rule in Rule if bits >> rule & 1}


def traffic(dut, *, bursts, stall, seed, span=DEPTH, found=None):
    """Testbenches of a reader and a writer at once, in no order; what is read must be what was
    there, or one of the values of a write under way. ``found`` becomes the rules broken; without
    it, none may be."""
    rng     = random.Random(seed)
    content = [0] * span
    moving  = {}                # word -> values that it may have until the write is acknowledged
    done    = []

    def place():
        """Mostly few rows of one bank or of neighbours, short and long."""
        beats = rng.choice((1, 1, 2, 3, 8, rng.randint(1, 40)))
        start = rng.randrange(span)
        return min(start, span - beats), beats

    async def writer(ctx):
        await ctx.tick().until(dut.ready)
        for index in range(bursts):
            start, beats = place()
            words   = [rng.getrandbits(64) for _ in range(beats)]
            strobes = [rng.choice((255, 255, rng.randrange(256))) for _ in range(beats)]
            for word, value, strobe in zip(range(start, start + beats), words, strobes,
                                           strict=True):
                mask = sum(0xFF << 8 * k for k in range(VECTOR) if strobe >> k & 1)
                moving[word] = (content[word], content[word] & ~mask | value & mask)
            assert await write_burst(ctx, dut.axi, start * VECTOR, words, size=SIZE,
                                     strobes=strobes, stall=stall,
                                     ident=index % 4) == Response.OKAY
            for word in range(start, start + beats):
                content[word] = moving.pop(word)[1]
            for _ in range(rng.randrange(3) * 20):
                await ctx.tick()
        done.append("writer")

    async def reader(ctx):
        await ctx.tick().until(dut.ready)
        for index in range(bursts):
            start, beats = place()
            before  = content[start:start + beats]
            old     = dict(moving)
            answer  = await read_burst(ctx, dut.axi, start * VECTOR, beats, size=SIZE, stall=stall,
                                       ident=index % 4)
            for word, (data, response), was in zip(range(start, start + beats), answer, before,
                                                   strict=True):
                legal = {was, content[word], *old.get(word, ()), *moving.get(word, ())}
                assert response == Response.OKAY
                if found is None:
                    assert data in legal, f"word {word}"
        done.append("reader")

    async def end(ctx):
        while len(done) < 2:
            await ctx.tick().repeat(20)
        if found is None:
            assert broken(ctx, dut) == set()
            for word in range(0, span, 5):
                row = sum(ctx.get(dut.device.data[4 * word + k]) << 16 * k for k in range(4))
                assert row == content[word], f"word {word}"
        else:
            found.update(broken(ctx, dut))

    return writer, reader, end


@pytest.mark.parametrize("name", DRAMS)
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_random_traffic_keeps_the_data_sheet(name, stall):
    dut = memory(DRAMS[name])
    simulate(dut, *traffic(dut, bursts=16, stall=stall, seed=f"{name}{stall}"), deadline=DEADLINE)


# Clocks are 10 ns; the controller itself takes a few more after power-up.
ONE_CLOCK_MORE = {
    Rule.POWER_UP: {"power_up_ns": 2050},
    Rule.MODE:     {"cas": 3},
    Rule.TRCD:     {"activate_ns": 40},
    Rule.TRP:      {"precharge_ns": 30},
    Rule.TRAS:     {"row_active_ns": 90},
    Rule.TRC:      {"row_cycle_ns": 130},
    Rule.TRRD:     {"row_to_row_ns": 70},
    Rule.TWR:      {"write_recovery_ns": 50},
    Rule.TRFC:     {"refresh_busy_ns": 85},
    Rule.TREFI:    {"refresh_interval_ns": 2000},
}


def test_a_controller_that_is_too_early_for_its_memory_is_noticed():
    """The memory wants one clock more of everything than the controller was told, and refreshes
    more often; it notices all of that, and nothing else."""
    told  = replace(FAST, cas=2)
    wants = {name: value for change in ONE_CLOCK_MORE.values() for name, value in change.items()}
    dut   = memory(told, demands=replace(told, **wants))
    found = set()
    simulate(dut, *traffic(dut, bursts=30, stall=0.0, seed=1, found=found), deadline=DEADLINE)
    assert found == set(ONE_CLOCK_MORE)


def test_a_memory_that_is_too_small_is_noticed():
    dut = memory(FAST)
    dut.device.words //= 2
    found = set()
    simulate(dut, *traffic(dut, bursts=10, stall=0.0, seed=1, found=found), deadline=DEADLINE)
    assert found == {Rule.ADDRESS}


def test_data_arrive_in_the_clock_that_the_mode_register_says():
    """A memory a clock slower than its controller believes gives other bytes."""
    dut = memory(SLOW)
    dut.controller.timing = replace(dut.controller.timing, cas=3)

    async def drive(ctx):
        await ctx.tick().until(dut.ready)
        await write_burst(ctx, dut.axi, 0, [0x1111222233334444], size=SIZE)
        assert await read_burst(ctx, dut.axi, 0, 1, size=SIZE) == [
            (0x1111222233334444, Response.OKAY)]
        assert broken(ctx, dut) == set()        # CL 3 where 2 would do is legal

    simulate(dut, drive)


def test_errors_are_answered_and_nothing_is_written():
    dut = memory(depth=1024)

    async def drive(ctx):
        axi = dut.axi
        await ctx.tick().until(dut.ready)
        for word, expected in ((1022, [Response.DECERR] * 3), (1021, [Response.OKAY] * 3)):
            answer = await read_burst(ctx, axi, word * VECTOR, 3, size=SIZE, ident=3)
            assert [response for _, response in answer] == expected
        answer = await read_burst(ctx, axi, 0, 2, size=2)
        assert [response for _, response in answer] == [Response.SLVERR] * 2
        answer = await read_burst(ctx, axi, 0, 2, size=SIZE, burst=BurstType.FIXED)
        assert [response for _, response in answer] == [Response.SLVERR] * 2
        assert await write_burst(ctx, axi, 1023 * VECTOR, [9, 9], size=SIZE) == Response.DECERR
        assert await write_burst(ctx, axi, 1023 * VECTOR, [7], size=SIZE) == Response.OKAY
        assert await read_burst(ctx, axi, 1023 * VECTOR, 1, size=SIZE) == [(7, Response.OKAY)]
        assert await read_burst(ctx, axi, 0, 1, size=SIZE) == [(0, Response.OKAY)]
        assert broken(ctx, dut) == set()

    simulate(dut, drive)


BURSTS, BEATS = 32, 32
# Of 4,096 transfers: 97.9 and 97.3 % of the pins. A refresh takes eight clocks of 390.
CYCLES = {"read": 4185, "write": 4210}


@pytest.mark.parametrize("kind", CYCLES)
def test_long_bursts_take_so_many_cycles(kind):
    """From the first address to the last beat, or to the last response, exactly."""
    dut, cycles = memory(), 0

    async def drive(ctx):
        nonlocal cycles
        axi = dut.axi
        await ctx.tick().until(dut.ready)
        for name, value in {"rready": 1, "bready": 1, "arsize": SIZE, "awsize": SIZE,
                            "arlen": BEATS - 1, "awlen": BEATS - 1, "wstrb": 255}.items():
            ctx.set(getattr(axi, name), value)
        asked = beats = answered = 0
        a = kind[0]
        while answered < BURSTS:
            ctx.set(getattr(axi, f"a{a}addr"), asked * BEATS * VECTOR % (DEPTH * VECTOR))
            ctx.set(getattr(axi, f"a{a}valid"), asked < BURSTS)
            ctx.set(axi.wvalid, kind == "write" and beats < BURSTS * BEATS)
            ctx.set(axi.wlast, beats % BEATS == BEATS - 1)
            _, _, took, wrote, response, read, last = await ctx.tick().sample(
                getattr(axi, f"a{a}ready"), axi.wready, axi.bvalid, axi.rvalid, axi.rlast)
            cycles   += 1
            asked    += bool(took and asked < BURSTS)
            beats    += bool(kind == "write" and wrote and beats < BURSTS * BEATS)
            answered += bool(response if kind == "write" else read and last)
        assert broken(ctx, dut) == set()

    simulate(dut, drive, deadline=DEADLINE)
    assert cycles == CYCLES[kind]
    assert BURSTS * BEATS * 4 / cycles > 0.95


@pytest.mark.parametrize(("changes", "message"), [
    ({"dram": TINY.dram}, ("ddr3-1600 is no plain SDRAM, so no controller has its pins; take "
                           "DRAM=sdr-ulx3s")),
    ({"clock_mhz": 100}, ("The pins of sdr-ulx3s have 50 MHz and the machine 100 MHz, but one "
                          "clock drives both; take SET=clock_mhz=50, or change bytes_per_second "
                          "of the memory")),
])
def test_memories_without_such_pins_are_refused(changes, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        SdramController(config=replace(EDGE, **changes))


def test_memories_beyond_the_pins_are_refused():
    with pytest.raises(ValueError, match="^A memory of 67108864 bytes needs 16384 rows, and the "
                                         "pins address 8192$"):
        SdramController(config=replace(EDGE, offchip_bytes=64 << 20))
    with pytest.raises(ValueError, match="^A beat of 8 bytes must be 1, 2, 4 or 8 transfers of 128 "
                                         "bits$"):
        config = replace(EDGE)
        SdramController(config=config,
                        timing=replace(config.dram.sdram(config.clock_mhz), bits=128))


def test_half_an_sdram_is_refused():
    with pytest.raises(InputError, match=r"sdram_bits \(16\) must be 8, 16, 32 or 64, and "
                                         r"cas \(0\) 2 or 3; or both 0"):
        preset("edge", changes="dram.cas=0")
