# amaranth: UnusedElaboratable=no
import pytest
from amaranth.hdl import C, Fragment
from amaranth.sim import Simulator

from hw.memory.arbiter import RoundRobin
from sim.campaigns.mutants.sites import REMOVED, Mutant, apply, draw, sites


def elaborated():
    return Fragment.get(RoundRobin(width=3), None)


def grants(fragment, dut, cycles=5):
    """Who gets his turn while all three ask and are served."""
    seen = []

    async def drive(ctx):
        ctx.set(dut.taken, 1)
        ctx.set(dut.requests, 0b111)
        for _ in range(cycles):
            seen.append(ctx.get(dut.grant))
            await ctx.tick()

    sim = Simulator(fragment)
    sim.add_clock(1e-8)
    sim.add_testbench(drive)
    sim.run()
    return seen


def test_every_site_can_be_used():
    mutants = sites(elaborated())
    assert len(mutants) > 50
    assert {mutant.file for mutant in mutants} == {"hw/memory/arbiter.py"}
    fragment = elaborated()
    assert apply(fragment, dict.fromkeys(mutants, C(0, 1))) == set(mutants)


def test_mutants_that_are_off_change_nothing_and_one_that_is_on_does():
    removed = [mutant for mutant in sites(elaborated()) if mutant.how == REMOVED]
    for switch, expected in ((0, [1, 2, 4, 1, 2]), (1, [1, 1, 1, 1, 1])):
        dut      = RoundRobin(width=3)
        fragment = Fragment.get(dut, None)
        last     = max(removed)         # the statement that remembers whose turn it was
        apply(fragment, {last: C(switch, 1)})
        assert grants(fragment, dut) == expected


def test_places_that_do_not_exist_are_passed_over():
    here = sites(elaborated())[0]
    for mutant in (Mutant("hw/memory/nowhere.py", here.line, here.path, here.how),
                   Mutant(here.file, 1, here.path, here.how),
                   Mutant(here.file, here.line, (9, 9, 9), here.how),
                   Mutant(here.file, here.line, here.path, "never heard of")):
        assert apply(elaborated(), {mutant: C(1, 1)}) == set()


@pytest.mark.parametrize("count", [2, 10, 40])
def test_draws_are_repeatable_and_of_that_size(count):
    mutants = sites(elaborated())
    drawn   = draw(mutants, count, seed=3)
    assert drawn == draw(mutants, count, seed=3) != draw(mutants, count, seed=4)
    assert len(set(drawn)) == count and set(drawn) <= set(mutants)
