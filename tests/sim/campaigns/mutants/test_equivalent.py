# amaranth: UnusedElaboratable=no
"""Mutants of a small part that nobody outside can tell from it, and some that everybody can."""

from pathlib import Path

import pytest
from amaranth import *
from amaranth.hdl import Fragment
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sim.campaigns.mutants import sites as places
from sim.campaigns.mutants.equivalent import Prover
from sim.campaigns.mutants.sites import REMOVED, Mutant


class Part(wiring.Component):
    """Remembers the lower three bits of a sum, and keeps to itself whether it was zero."""
    a: In(3)
    b: In(3)
    o: Out(3)

    def elaborate(self, platform):
        m = Module()
        unseen = Signal()
        m.d.comb += unseen.eq(self.o == 0)
        m.d.sync += self.o.eq(self.a + self.b)
        return m


@pytest.fixture
def prover(monkeypatch):
    # This file in place of one of hw/.
    monkeypatch.setattr(places, "_place", lambda statement: ("here", statement.src_loc[1])
                        if statement.src_loc and statement.src_loc[0] == __file__ else None)
    part = Part()
    return Prover(Fragment.get(part, None), [part.o])


def line(text):
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, each in enumerate(lines, start=1) if text in each)


@pytest.mark.parametrize("path, how, same", [
    ((), "highest bit inverted", True),         # the sum has four bits, three are kept
    ((), "lowest bit inverted", False),
    ((0,), "highest bit inverted", False),
    ((), "+ became -", False),
    ((), REMOVED, False),
])
def test_a_mutant_is_the_same_where_no_register_and_no_output_can_differ(prover, path, how, same):
    assert prover.equivalent(Mutant("here", line("self.a + self.b)"), path, how)) is same


def test_a_signal_that_nobody_reads_does_not_count(prover):
    assert prover.equivalent(Mutant("here", line("unseen.eq("), (), "inverted"))


def test_a_mutant_without_a_place_is_not_called_the_same(prover):
    assert not prover.equivalent(Mutant("here", 1, (), "inverted"))
