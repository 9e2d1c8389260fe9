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
    """Remembers the lower three bits of a sum, and keeps to itself whether it was zero. Counts from
    0 to 2, and would say if it got to 3. Half of ``mixed`` is a register."""
    a: In(3)
    b: In(3)
    o: Out(3)
    astray: Out(1)
    mixed: Out(2)

    def elaborate(self, platform):
        m = Module()
        unseen = Signal()
        m.d.comb += unseen.eq(self.o == 0)
        m.d.sync += self.o.eq(self.a + self.b)
        count = Signal(2)
        m.d.sync += count.eq(Mux(count == 2, 0, (count + 1)[:2]))
        m.d.comb += self.astray.eq(count == 3)
        m.d.comb += self.mixed[0].eq(self.a > 5)
        m.d.sync += self.mixed[1].eq(self.mixed[0] & (self.b > 5))
        return m


@pytest.fixture
def prover(monkeypatch):
    # This file in place of one of hw/.
    monkeypatch.setattr(places, "_place", lambda statement: ("here", statement.src_loc[1])
                        if statement.src_loc and statement.src_loc[0] == __file__ else None)
    part = Part()
    return Prover(Fragment.get(part, None), [part.o, part.astray, part.mixed])


def line(text):
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, each in enumerate(lines, start=1) if text in each)


@pytest.mark.parametrize("text, path, how, same", [
    # The sum has four bits, of which three are kept.
    ("self.a + self.b)", (), "highest bit inverted", "in any state"),
    ("self.a + self.b)", (), "lowest bit inverted", None),
    ("self.a + self.b)", (0,), "highest bit inverted", None),
    ("self.a + self.b)", (), "+ became -", None),
    ("self.a + self.b)", (), REMOVED, None),
    ("self.mixed[0].eq", (), "inverted", None),
    ("self.mixed[1].eq", (), "inverted", None),
    # Nobody reads it.
    ("unseen.eq(", (), "inverted", "in any state"),
    # A counter that never gets there, and one that does.
    ("astray.eq(", (), "stuck at 0", "in any run"),
    ("astray.eq(", (), "stuck at 1", None),
    ("count.eq(", (), "highest bit inverted", None),
])
def test_a_mutant_is_the_same_where_nobody_outside_can_tell(prover, text, path, how, same):
    mutant = Mutant("here", line(text), path, how)
    assert prover.in_any_state(mutant) is (same == "in any state")
    assert prover.in_any_run(mutant) is bool(same)


def test_a_mutant_without_a_place_is_not_called_the_same(prover):
    mutant = Mutant("here", 1, (), "inverted")
    assert not prover.in_any_state(mutant)
    assert not prover.in_any_run(mutant)
