# amaranth: UnusedElaboratable=no
import random

import pytest
from amaranth.sim import Simulator

from hw.memory.arbiter import RoundRobin
from tests.support import simulate


def test_turns_go_round():
    dut = RoundRobin(width=3)

    async def drive(ctx):
        ctx.set(dut.taken, 1)
        ctx.set(dut.requests, 0b111)
        grants = []
        for _ in range(5):
            grants.append(ctx.get(dut.grant))
            await ctx.tick()
        assert grants == [0b001, 0b010, 0b100, 0b001, 0b010]
        ctx.set(dut.requests, 0b011)      # 1 went last: nobody after it, so 0
        assert ctx.get(dut.grant) == 0b001
        ctx.set(dut.requests, 0)
        assert ctx.get(dut.grant) == 0

    simulate(dut, drive)


def test_a_grant_that_is_not_taken_stays():
    dut = RoundRobin(width=2)

    async def drive(ctx):
        ctx.set(dut.requests, 0b11)
        await ctx.tick().repeat(3)
        assert ctx.get(dut.grant) == 0b01

    simulate(dut, drive)


@pytest.mark.parametrize("width", [2, 5, 8])
def test_nobody_waits_longer_than_the_others_take(width):
    dut = RoundRobin(width=width)

    async def drive(ctx):
        random.seed(width)
        requests, waited = 0, [0] * width
        for _ in range(2000):
            requests |= random.getrandbits(width)
            taken = random.random() < 0.8
            ctx.set(dut.requests, requests)
            ctx.set(dut.taken, taken)
            grant = ctx.get(dut.grant)
            assert grant & ~requests == 0
            assert grant.bit_count() == (requests != 0)
            if taken and grant:
                requests &= ~grant
                for k in range(width):
                    waited[k] = waited[k] + 1 if requests >> k & 1 else 0
                assert max(waited) < width
            await ctx.tick()

    simulate(dut, drive)


def test_one_requester_needs_no_turns():
    dut = RoundRobin(width=1)

    async def drive(ctx):
        for requests in (1, 0, 1):
            ctx.set(dut.requests, requests)
            assert ctx.get(dut.grant) == requests

    sim = Simulator(dut)
    sim.add_testbench(drive)
    sim.run()


def test_wrong_width():
    with pytest.raises(ValueError, match=r"^Number of requesters must be positive, not 0$"):
        RoundRobin(width=0)
