"""What frames say of mutants on the whole chip: three of which one hangs, one leaves wrong bytes,
and one is for runs that end badly to notice."""

import pytest
from amaranth.hdl import Fragment

from hw.config import TINY
from sim.campaigns.mutants import frames
from sim.campaigns.mutants.machine import MutantTop
from sim.campaigns.mutants.sites import REMOVED, ROOT, Mutant
from sim.errors import SimulationError


def removed(file, text):
    """The statement of ``file`` that is ``text``, gone."""
    lines = (ROOT / file).read_text().splitlines()
    (line,) = (number for number, each in enumerate(lines, start=1) if each.strip() == text)
    return Mutant(file, line, (), REMOVED)


HANGS = removed("hw/control/frontend.py", "m.d.sync += offered_valid.eq(1)")
WRONG = removed("hw/compute/drain.py", "lane.zero_out.eq(layer.zero_out),")
STOPS = removed("hw/control/controller.py", "m.d.sync += stopping.eq(1)")


@pytest.mark.cosim
def test_who_shows_which(monkeypatch):
    monkeypatch.setattr(frames, "NETWORKS", frames.NETWORKS[:1])
    print(dict(frames.survey(TINY, [HANGS, WRONG, STOPS], [HANGS, WRONG, STOPS])))
    print(list(frames.survey(TINY, [HANGS, WRONG, STOPS], [STOPS],spoiled=True)))
    assert 0
