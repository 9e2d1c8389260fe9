"""Which bits an injection campaign flips, and how it tells what became of a run."""

from collections import Counter

import pytest

from sim.state import Target
from sim.upsets import allocate, main, sample

TARGETS = [Target("top.chip.a", 3, 1, False, "run control"),
           Target("top.chip.b", 1, 1, False, "run control"),
           Target("top.offchip.c", 9, 1, False, None),
           Target("top.chip.d", 8, 16, True, "on-chip memory")]


def test_classes_get_equal_shares():
    assert allocate(TARGETS, 101) == {"run control": 51, "on-chip memory": 50}


def test_every_bit_and_cycle_is_as_likely():
    drawn  = sample(TARGETS, 10, 8000, seed=5)
    counts = Counter((target, row, bit) for kind, _, [(target, row, bit)] in drawn
                     if kind == "run control")
    assert set(counts) == {(0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 0, 0)}
    assert all(900 < count < 1100 for count in counts.values()), counts
    rows   = Counter(flips[0][:2] for kind, _, flips in drawn if kind == "on-chip memory")
    assert set(rows) == {(3, row) for row in range(16)}
    assert all(190 < count < 310 for count in rows.values()), rows
    cycles = Counter(cycle for _, cycle, _ in drawn)
    assert set(cycles) == set(range(10))
    assert all(680 < count < 920 for count in cycles.values()), cycles


def test_a_seed_repeats_itself():
    assert sample(TARGETS, 1000, 50, seed=1) == sample(TARGETS, 1000, 50, seed=1)
    assert sample(TARGETS, 1000, 50, seed=1) != sample(TARGETS, 1000, 50, seed=2)


def test_neighbours_stay_in_their_row():
    for _, _, flips in sample(TARGETS, 10, 500, seed=0, bits=2):
        target = TARGETS[flips[0][0]]
        bits   = [bit for _, _, bit in flips]
        assert bits == list(range(bits[0], bits[0] + min(2, target.width)))
        assert bits[-1] < target.width
        assert len({flip[:2] for flip in flips}) == 1


@pytest.mark.parametrize("arguments, line", [
    (["--n", "0"], "N must be positive, not 0"),
    (["--out", "tests"], "OUT must not exist yet; tests does"),
    (["--config", "big"], "Unknown preset 'big'; known are reference, edge, tiny"),
])
def test_refusals(capsys, arguments, line):
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {line}\n"
