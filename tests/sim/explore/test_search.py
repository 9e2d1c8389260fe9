"""Searches of imaginary machines: nothing is compiled, and nobody else works."""

import pytest

from golden.errors import InputError
from sim.explore import search
from sim.explore.journal import Journal
from sim.explore.search import GENERATION, Exploration
from tests.sim.explore.spaces import SIX, found_of, space_of

HEAD = {"space": "a", "sources": "b", "name": "six", "network": "elec4848"}

LARGE = """
base        = "tiny"
objectives  = ["latency", "mac_lanes"]
constraints = ["mac_lanes >= 48", "latency < 20000"]

[parameters]
encoder.pixels  = [1, 2, 4, 8]
encoder.outputs = [1, 2]
decoder.pixels  = [1, 2, 4, 8]
decoder.outputs = [1, 2, 4, 8]
onchip_bytes    = { from = "16 KiB", to = "2 MiB" }
clock_mhz       = { from = 50, to = 300, step = 25 }
"""


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Spaces of more than 200 machines are large."""
    monkeypatch.setattr(search, "MOST_COUNTED", 200)
    monkeypatch.setattr(search, "DRAWN", 200)


class Worker:
    """Evaluates machines, and stops with ``error`` instead of the one behind ``most``."""

    def __init__(self, most=10**9, error=KeyboardInterrupt):
        self.asked, self._most, self._error = [], most, error

    def __call__(self, configs):
        for number, config in configs:
            if len(self.asked) == self._most:
                raise self._error
            self.asked.append(number)
            yield number, found_of(number, config)


def explore(space, folder, worker, most=1000, seed=0, chance=0):
    with Journal(folder, HEAD) as journal:
        exploration = Exploration(space, journal, most, chance)
        exploration.run(worker, seed)
    return exploration


def test_a_small_space_is_enumerated(tmp_path):
    worker = Worker()
    found  = explore(space_of(tmp_path), tmp_path, worker)
    assert found.enumerated and (found.possible, found.todo) == (6, 6)
    assert sorted(worker.asked) == list(range(6))
    assert [row["machine"] for row in found.front] == [5, 3, 1]
    assert found.rows[5]["figures"]["latency"] == 10**6 // 112 - 64
    assert found.rows[5]["knobs"] == {"decoder.outputs": 4, "onchip_bytes": 65536}


def test_what_breaks_a_constraint_is_not_measured_or_not_on_the_front(tmp_path):
    worker = Worker()
    space  = space_of(tmp_path, SIX.replace('"mac_lanes >= 64"',
                                            '"mac_lanes > 64", "latency > 9000"'))
    found  = explore(space, tmp_path, worker)
    assert sorted(worker.asked) == [2, 3, 4, 5]
    assert {number: (row["status"], row["reason"]) for number, row in found.rows.items()} == {
        0: ("excluded", "not mac_lanes > 64"), 1: ("excluded", "not mac_lanes > 64"),
        2: ("measured", ""), 3: ("measured", ""),
        4: ("outside", "not latency > 9000"), 5: ("outside", "not latency > 9000")}
    assert [row["machine"] for row in found.front] == [3]


def test_a_machine_on_which_nothing_runs_is_a_row(tmp_path):
    space = space_of(tmp_path, SIX.replace("decoder.outputs = [1, 2, 4]",
                                           "encoder.pixels = [2, 8]"))
    found = explore(space, tmp_path, Worker())
    assert [found.rows[number]["status"] for number in range(4)] == [
        "measured", "measured", "failed", "failed"]
    assert found.rows[3]["reason"] == "does not fit" and found.rows[3]["units"] is None
    assert [row["machine"] for row in found.front] == [1]


@pytest.mark.parametrize("given, line", [
    ("mac_lanes < 9", ("Space six is empty: no machine of its 6 is possible; 6 of them because of: "
                      "not mac_lanes < 9")),
    ("mac_lanes < 80 and mac_lanes > 80", ("Space six is empty: no machine of its 6 is possible; 6 "
                                          "of them because of: not mac_lanes < 80 and "
                                          "mac_lanes > 80"))])
def test_an_empty_space(tmp_path, given, line):
    with pytest.raises(InputError) as refused:
        explore(space_of(tmp_path, SIX.replace("mac_lanes >= 64", given)), tmp_path / "new",
                Worker())
    assert str(refused.value) == line
    assert not (tmp_path / "new").exists()


def test_constraints_that_contradict_each_other_in_a_large_space(tmp_path):
    text = LARGE.replace('"latency < 20000"', '"mac_lanes < 48"').replace("step = 25", "step = 1")
    with pytest.raises(InputError, match="^Space six is empty: no machine among 200 drawn by "
                                         "chance is possible; [0-9]+ of them because of: not "
                                         "mac_lanes "):
        explore(space_of(tmp_path, text), tmp_path, Worker())


@pytest.mark.parametrize("text, most", [(SIX, 1000), (LARGE, 100)])
@pytest.mark.parametrize("first", [1, 3, 40])
def test_stopped_and_gone_on_with_it_repeats_nothing(tmp_path, text, most, first):
    space  = space_of(tmp_path, text)
    whole  = explore(space, tmp_path / "whole", Worker(), most)
    before = Worker(first)
    if first < whole.todo:
        with pytest.raises(KeyboardInterrupt):
            explore(space, tmp_path / "parts", before, most)
    after = Worker()
    found = explore(space, tmp_path / "parts", after, most)
    assert not set(before.asked) & set(after.asked)
    assert len(before.asked) + len(after.asked) == len(found.good) + sum(
        row["status"] in ("outside", "failed") for row in found.rows.values()) == whole.todo
    assert found.rows == whole.rows


@pytest.mark.parametrize("objectives", ['"latency", "mac_lanes"', '"latency"',
                                        '"latency", "mac_lanes", "onchip_bytes", "clock_mhz"'])
def test_optuna_searches_a_large_one(tmp_path, objectives):
    space  = space_of(tmp_path, LARGE.replace('"latency", "mac_lanes"', objectives))
    worker = Worker()
    found  = explore(space, tmp_path, worker, 96)
    assert not found.enumerated and found.todo == 96
    assert len(worker.asked) == len(set(worker.asked)) == 96
    assert all(row["figures"]["mac_lanes"] >= 48 and row["figures"]["latency"] < 20000
               for row in found.good)
    again = Worker()
    explore(space, tmp_path / "again", again, 96)
    assert again.asked == worker.asked
    other = Worker()
    explore(space, tmp_path / "other", other, 96, seed=1)
    assert other.asked != worker.asked


def test_machines_drawn_by_chance_beside_a_search(tmp_path):
    """In addition to those of the search, which are the same without; known ones are not run again,
    and a search that goes on draws the same."""
    space  = space_of(tmp_path, LARGE)
    worker = Worker()
    alone  = explore(space, tmp_path, worker, 64)
    assert len(alone.searched) == 64 and alone.drawn == []
    more   = Worker()
    found  = explore(space, tmp_path, more, 64, chance=40)
    assert found.searched == alone.searched and len(set(found.drawn)) == 40
    assert set(more.asked) == set(found.drawn) - set(worker.asked)
    assert explore(space, tmp_path, Worker(), 64, chance=40).drawn == found.drawn
    assert all(not space.candidate(number).status for number in found.drawn)


def test_a_search_is_better_than_chance(tmp_path):
    """Of 150 machines of a space in which one in 300 has the fewest cycles."""
    space  = space_of(tmp_path, LARGE.replace('"latency", "mac_lanes"', '"latency"'))
    worker = Worker()
    found  = explore(space, tmp_path, worker, 96)
    late   = [found.rows[number]["figures"].get("latency", 10**6) for number in worker.asked]
    assert sum(late[-GENERATION:]) < sum(late[:GENERATION])


def test_a_search_ends_where_nothing_new_is_left(tmp_path):
    """More machines are asked for than there are possible ones, in a space too large to count."""
    space = space_of(tmp_path, """
base        = "tiny"
objectives  = ["latency", "mac_lanes"]
constraints = ["decoder.outputs < 2"]
[parameters]
decoder.outputs = [1, 2, 4]
onchip_bytes    = ["32 KiB", "64 KiB"]
""")
    with Journal(tmp_path, HEAD) as journal:
        exploration = Exploration(space, journal, 2)
        exploration.enumerated, exploration.todo = False, 6
        exploration.rows.clear()
        worker = Worker()
        exploration.run(worker)
    assert sorted(worker.asked) == [0, 1]


def test_one_that_was_lost_is_tried_again(tmp_path):
    def lost(configs):
        for number, config in configs:
            yield number, {"status": "lost", "reason": "its workers died", "seconds": 0} \
                if number == 4 else found_of(number, config)

    space = space_of(tmp_path)
    found = explore(space, tmp_path, lost)
    assert found.rows[4]["status"] == "lost" and 4 not in [row["machine"] for row in found.front]
    again = Worker()
    explore(space, tmp_path, again)
    assert again.asked == [4]


def test_progress_is_told_of_each(tmp_path):
    told = []
    with Journal(tmp_path, HEAD) as journal:
        exploration = Exploration(space_of(tmp_path), journal, 10)
        exploration.run(Worker(), progress=lambda count, best: told.append((count, best)))
    best = [10**6 // 64 - 32, 10**6 // 64 - 64, 10**6 // 80 - 32, 10**6 // 80 - 64,
            10**6 // 112 - 32, 10**6 // 112 - 64]
    assert told == list(enumerate(best, 1))
