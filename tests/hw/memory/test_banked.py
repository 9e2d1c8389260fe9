# amaranth: UnusedElaboratable=no
import random

import pytest

from hw.memory.banked import BankedMemory
from tests.support import simulate


def memory(**parameters):
    return BankedMemory(**{"depth": 32, "vector": 8, "lanes": 4, "banks": 4, "readers": 3,
                           "writers": 2, **parameters})


async def write(ctx, port, address, word, mask=0b1111):
    ctx.set(port.w.p, {"address": address, "data": word, "mask": mask})
    ctx.set(port.w.valid, 1)
    await ctx.tick().until(port.w.ready)
    ctx.set(port.w.valid, 0)


def request(ctx, port, address):
    ctx.set(port.address.p, address)
    ctx.set(port.address.valid, 1)


def ask(ctx, rng, dut, reads, writes, idle):
    """Keep what every port asks for in ``reads`` and ``writes``; where that is None, ask for
    something at random, but for odds ``idle``."""
    for k, port in enumerate(dut.r):
        if reads[k] is None and rng.random() >= idle:
            reads[k] = rng.randrange(32)
            ctx.set(port.address.p, reads[k])
        ctx.set(port.address.valid, reads[k] is not None)
    for k, port in enumerate(dut.w):
        if writes[k] is None and rng.random() >= idle:
            writes[k] = (rng.randrange(32), rng.getrandbits(64), rng.getrandbits(4))
            ctx.set(port.w.p, dict(zip(("address", "data", "mask"), writes[k], strict=True)))
        ctx.set(port.w.valid, writes[k] is not None)


@pytest.mark.parametrize("pipelined, latency", [(False, 2), (True, 4)])
def test_data_comes_so_many_cycles_after_acceptance(pipelined, latency):
    dut = memory(pipelined=pipelined)

    async def drive(ctx):
        await write(ctx, dut.w[0], 6, 66)
        request(ctx, dut.r[1], 6)
        assert ctx.get(dut.r[1].address.ready)
        await ctx.tick()      # accepted
        ctx.set(dut.r[1].address.valid, 0)
        for _ in range(latency - 1):
            assert not ctx.get(dut.r[1].data_valid)
            await ctx.tick()
        assert ctx.get(dut.r[1].data_valid)
        assert ctx.get(dut.r[1].data) == 66
        assert not ctx.get(dut.r[0].data_valid)
        await ctx.tick()
        assert not ctx.get(dut.r[1].data_valid)

    simulate(dut, drive)


def test_mask_writes_only_its_parts():
    dut = memory()

    async def drive(ctx):
        await write(ctx, dut.w[0], 5, 0x1111_2222_3333_4444)
        await write(ctx, dut.w[1], 5, 0xAAAA_BBBB_CCCC_DDDD, mask=0b0101)
        assert ctx.get(dut.data[1][1]) == 0x1111_BBBB_3333_DDDD

    simulate(dut, drive)


def test_different_banks_never_conflict():
    dut = memory()

    async def drive(ctx):
        for k, port in enumerate(dut.r):
            request(ctx, port, 4 + k)
        for k, port in enumerate(dut.w):
            ctx.set(port.w.p.address, 8 + k)
            ctx.set(port.w.valid, 1)
        assert all(ctx.get(port.address.ready) for port in dut.r)
        assert all(ctx.get(port.w.ready) for port in dut.w)
        await ctx.tick()

    simulate(dut, drive)


def test_readers_of_one_bank_take_turns():
    dut = memory()

    async def drive(ctx):
        for k, port in enumerate(dut.r):
            request(ctx, port, 4 * k)
        turns = []
        for _ in range(6):
            turns.append([ctx.get(port.address.ready) for port in dut.r])
            await ctx.tick()
        assert turns == [[1, 0, 0], [0, 1, 0], [0, 0, 1]] * 2

    simulate(dut, drive)


def test_background_reader_gets_what_the_others_leave():
    dut = memory(background=1)

    async def drive(ctx):
        request(ctx, dut.r[0], 1)
        request(ctx, dut.r[2], 5)       # the same bank
        for _ in range(4):
            assert ctx.get(dut.r[0].address.ready)
            assert not ctx.get(dut.r[2].address.ready)
            await ctx.tick()
        request(ctx, dut.r[0], 2)       # another bank
        assert ctx.get(dut.r[0].address.ready)
        assert ctx.get(dut.r[2].address.ready)

    simulate(dut, drive)


@pytest.mark.parametrize("pipelined", [False, True])
def test_read_after_the_cycle_of_a_write_gets_the_new_data(pipelined):
    dut = memory(pipelined=pipelined)

    async def drive(ctx):
        await write(ctx, dut.w[0], 9, 1)
        ctx.set(dut.w[0].w.p, {"address": 9, "data": 2, "mask": 0b1111})
        ctx.set(dut.w[0].w.valid, 1)
        request(ctx, dut.r[0], 9)
        await ctx.tick()                # what is read in this one is nobody's
        ctx.set(dut.w[0].w.valid, 0)
        await ctx.tick().repeat(2 + 2 * pipelined)
        assert ctx.get(dut.r[0].data) == 2

    simulate(dut, drive)


@pytest.mark.parametrize(("banks", "readers", "writers", "background"), [
    (4, 6, 4, 1), (1, 2, 1, 0), (2, 1, 3, 0)])
@pytest.mark.parametrize("idle", [0.0, 0.5])
def test_random_against_a_list(banks, readers, writers, background, idle):
    dut   = memory(banks=banks, readers=readers, writers=writers, background=background)
    model = [0] * 32

    async def drive(ctx):
        rng      = random.Random(banks)
        reads    = [None] * readers
        writes   = [None] * writers
        expected = [[] for _ in range(readers)]      # (cycle, data)
        waited   = [0] * (readers + writers)
        answered = 0
        for cycle in range(1000):
            ask(ctx, rng, dut, reads, writes, idle)

            for k, port in enumerate(dut.r):
                due = expected[k] and expected[k][0][0] == cycle
                assert bool(ctx.get(port.data_valid)) == bool(due)
                if due:
                    assert ctx.get(port.data) == expected[k].pop(0)[1]
                    answered += 1
            used = set()
            for k, port in enumerate(dut.r):
                if ctx.get(port.address.ready) and reads[k] is not None:
                    assert ("r", reads[k] % banks) not in used
                    used.add(("r", reads[k] % banks))
                    expected[k].append((cycle + 2, model[reads[k]]))
                    reads[k], waited[k] = None, 0
                elif reads[k] is not None:
                    waited[k] += 1
                    assert waited[k] < readers or k >= readers - background
            for k, port in enumerate(dut.w):
                if ctx.get(port.w.ready) and writes[k] is not None:
                    address, word, mask = writes[k]
                    assert ("w", address % banks) not in used
                    used.add(("w", address % banks))
                    bits = sum(0xFFFF << 16 * j for j in range(4) if mask >> j & 1)
                    model[address] = model[address] & ~bits | word & bits
                    writes[k], waited[readers + k] = None, 0
                elif writes[k] is not None:
                    waited[readers + k] += 1
                    assert waited[readers + k] < writers
            await ctx.tick()
        assert answered > 300

    simulate(dut, drive)


@pytest.mark.parametrize(("banks", "readers", "writers", "background"), [
    (4, 6, 4, 1), (1, 2, 1, 0), (2, 1, 3, 0)])
@pytest.mark.parametrize("idle", [0.0, 0.5])
def test_random_pipelined_reads_see_what_was_there_when_they_got_their_bank(
        banks, readers, writers, background, idle):
    """That is three cycles before their data, and after they were accepted. Answers keep the order,
    a bank has one in a cycle, and two are accepted ahead of it at most."""
    dut  = memory(banks=banks, readers=readers, writers=writers, background=background,
                  pipelined=True)
    past = [[0] * 32]                                    # contents at the beginning of each cycle

    async def drive(ctx):
        rng      = random.Random(banks)
        reads    = [None] * readers
        writes   = [None] * writers
        accepted = [[] for _ in range(readers)]          # (cycle, address), not yet answered
        answered = 0
        for cycle in range(1000):
            ask(ctx, rng, dut, reads, writes, idle)

            used = []
            for k, port in enumerate(dut.r):
                if ctx.get(port.data_valid):
                    since, address = accepted[k].pop(0)
                    assert since <= cycle - 4
                    assert ctx.get(port.data) == past[cycle - 3][address]
                    used.append(address % banks)
                    answered += 1
                if reads[k] is not None and ctx.get(port.address.ready):
                    accepted[k].append((cycle, reads[k]))
                    reads[k] = None
                assert sum(since < cycle - 4 for since, _ in accepted[k]) <= 2
            assert len(used) == len(set(used))
            past.append(list(past[-1]))
            for k, port in enumerate(dut.w):
                if writes[k] is not None and ctx.get(port.w.ready):
                    address, word, mask = writes[k]
                    bits = sum(0xFFFF << 16 * j for j in range(4) if mask >> j & 1)
                    past[-1][address] = past[-1][address] & ~bits | word & bits
                    writes[k] = None
            await ctx.tick()
        assert answered > 300

    simulate(dut, drive)


@pytest.mark.parametrize(("parameters", "message"), [
    ({"banks": 3}, r"^Memory banks must be a power of two, not 3$"),
    ({"banks": 0}, r"^Memory banks must be positive, not 0$"),
    ({"readers": 0}, r"^Memory readers must be positive, not 0$"),
    ({"writers": 0}, r"^Memory writers must be positive, not 0$"),
    ({"depth": 30}, r"^Memory depth \(30\) must be a multiple of its banks \(4\)$"),
    ({"lanes": 3}, r"^Memory lanes \(3\) must divide the vector \(8\)$"),
])
def test_wrong_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        memory(**parameters)


def test_errors_are_of_the_memory_by_its_name():
    """A loop took the name: no error of on-chip or feedback memory ever reached the controller."""
    for given, name in (({}, "onchip"), ({"name": "feedback"}, "feedback")):
        made = memory(protection="secded", **given)
        assert made.protected == [(name, store) for store in made.stores]
