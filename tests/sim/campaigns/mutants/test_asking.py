import os
import time

import pytest

from sim.campaigns.mutants.asking import CRASH, HANG, ask
from sim.errors import SimulationError


def strange(what):
    if what == "hangs":
        while True:
            pass
    if what == "crashes":
        os._exit(3)
    if what == "raises":
        raise RuntimeError(what)
    return what.upper()


@pytest.mark.parametrize("jobs", [1, 3])
def test_whatever_a_question_does_there_is_an_answer(jobs):
    about = ["fine", "hangs", "crashes", "raises", "well"]
    assert dict(ask(strange, about, seconds=1, jobs=jobs)) == {
        "fine": "FINE", "hangs": HANG, "crashes": CRASH, "raises": CRASH, "well": "WELL"}


def test_sleeping_is_ended_by_the_clock(monkeypatch):
    monkeypatch.setattr("sim.campaigns.mutants.asking.PATIENCE", 1)
    assert list(ask(time.sleep, [60], seconds=1)) == [(60, HANG)]


def test_a_question_that_cannot_be_asked_is_an_error():
    def broken(_):
        raise SimulationError("no pytest")
    with pytest.raises(SimulationError, match="no pytest"):
        list(ask(broken, [1], seconds=1))
