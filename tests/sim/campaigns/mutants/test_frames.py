"""What frames say of mutants, and that it reaches whoever asked."""

import json
from pathlib import Path

import pytest

from hw.config import TINY
from sim.campaigns.mutants import frames
from sim.campaigns.mutants.sites import REMOVED, ROOT, Mutant
from sim.errors import SimulationError

MUTANTS = [Mutant("hw/top.py", line, (), REMOVED) for line in range(10, 16)]


@pytest.fixture
def simulator(monkeypatch, tmp_path):
    """In place of Verilator: ``say(number)`` is how a frame shows mutant ``number``."""
    asked = []

    def start(say):
        def run(built, bench, *, folder, output, env, plusargs):
            job = json.loads(Path(env["ATTUNE_JOB"]).read_text())
            asked.append(job["mutants"])
            with Path(job["results"]).open("a") as results:
                for number in job["mutants"]:
                    how = say(number)
                    results.write(json.dumps({"mutant": number, "frame": how and "unet",
                                              "how": how}) + "\n")
        monkeypatch.setattr(frames, "build", lambda *_, **__: None)
        monkeypatch.setattr(frames, "MutantTop", lambda *_: None)
        monkeypatch.setattr(frames, "export", lambda *_, **__: "")
        monkeypatch.setattr(frames, "CACHE", tmp_path)
        monkeypatch.setattr(frames, "NETWORKS", ())
        monkeypatch.setattr(frames, "run", run)
        return asked
    return start


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_everybody_gets_his_own_answer(simulator, jobs):
    asked = simulator(lambda number: f"wrong {number}" if number % 2 else None)
    some  = [MUTANTS[0], MUTANTS[4], MUTANTS[3]]
    found = list(frames.survey(TINY, MUTANTS, some, jobs=jobs))
    assert sorted(found) == [(MUTANTS[0], "unet: wrong 1"), (MUTANTS[3], None),
                             (MUTANTS[4], "unet: wrong 5")]
    assert [numbers[0] for numbers in asked] == [0] * jobs, "the machine as it is comes first"
    assert sorted(number for numbers in asked for number in numbers[1:]) == [1, 4, 5]


def test_a_machine_that_is_wrong_by_itself_says_nothing_of_mutants(simulator):
    simulator(lambda number: "no interrupt")
    with pytest.raises(SimulationError,
                       match="^the machine without a mutant: unet: no interrupt$"):
        list(frames.survey(TINY, MUTANTS, MUTANTS))


def test_a_line_that_is_being_written_is_none_yet(tmp_path):
    file = tmp_path / "results"
    assert frames._lines(file) == []
    file.write_text('{"mutant": 1}\n{"mutant"')
    assert frames._lines(file) == [{"mutant": 1}]


def removed(file, text):
    """The statement of ``file`` that is ``text``, gone."""
    lines = (ROOT / file).read_text().splitlines()
    line, = (number for number, each in enumerate(lines, start=1) if each.strip() == text)
    return Mutant(file, line, (), REMOVED)


@pytest.mark.cosim
@pytest.mark.slow
def test_who_shows_what(monkeypatch):
    """On the RTL: one that hangs, one that leaves wrong bytes, one that only a stop shows; and
    nothing of one is left when the next is asked about."""
    hangs = removed("hw/control/frontend.py", "m.d.sync += offered_valid.eq(1)")
    wrong = removed("hw/compute/drain.py", "lane.zero_out.eq(layer.zero_out),")
    stops = removed("hw/control/controller.py", "m.d.sync += stopping.eq(1)")
    monkeypatch.setattr(frames, "NETWORKS", frames.NETWORKS[:1])
    three = [stops, wrong, hangs]
    found = list(frames.survey(TINY, three, three))
    assert found.index((hangs, "elec4848-ds: error STALLED")) < found.index((stops, None))
    assert (wrong, "elec4848-ds: wrong bytes") in found
    (mutant, how), = frames.survey(TINY, three, [stops], spoiled=True)
    assert mutant == stops and how.startswith("stopped: engine, stopped, unanswered")
