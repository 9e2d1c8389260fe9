"""Which bits an injection campaign flips, and how it tells what became of a run."""

from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from golden.errors import InputError
from hw.config import TINY
from sim.campaigns.state import GUARDED, Target
from sim.campaigns.upsets import (
    Upset,
    allocate,
    campaign,
    main,
    read_upsets,
    sample,
    silent_in_protected,
    write_upsets,
)
from sim.run import Options, prepare

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
    (["--config", "big"], ("Unknown machine 'big'; known are reference, edge, tiny, large, "
                           "or the path of a .toml file")),
])
def test_refusals(capsys, arguments, line):
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


def test_upsets_are_read_back(tmp_path):
    path   = tmp_path / "upsets.csv"
    upsets = [Upset("weights", "top.chip.x", 3, 4, 5, "mask", dice=0.75, pixels=9),
              Upset("run control", "top.chip.y", 0, 1, 2, "error", "BAD_OPCODE", "gate", 77, 1)]
    write_upsets(path, upsets[:1])
    write_upsets(path, upsets[1:], more=True)
    assert read_upsets(path) == upsets


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"x\.csv is no list of upsets that `make faults` wrote$"):
        read_upsets(tmp_path / "x.csv")


def test_what_counts_against_protection():
    upsets = [Upset("weights", "x", 0, 0, 0, "mask"), Upset("weights", "x", 0, 0, 0, "detected"),
              Upset("on-chip memory", "x", 0, 0, 0, "other"),
              Upset("run control", "x", 0, 0, 0, "mask")]
    counts = {kind: silent_in_protected(upsets, replace(TINY, protection=kind))
              for kind in ("none", "secded", "weights=parity")}
    assert counts == {"none": 0, "secded": 2, "weights=parity": 1}


@pytest.mark.cosim
def test_protected_memories_lose_nothing(tmp_path):
    """A small, seeded sample on the RTL: single flips are corrected, double ones never silent."""
    job     = prepare(Options(config="tiny", size=16, width=4, protection="secded"))
    console = Console(quiet=True)
    log     = tmp_path / "upsets.csv"
    upsets, targets, cycles = campaign(job, 88, seed=2, processes=1, console=console, log=log)
    assert sorted(map(repr, read_upsets(log))) == sorted(map(repr, upsets))
    assert {target.kind for target in targets} == {None, *(upset.kind for upset in upsets)}
    outcomes = Counter((upset.outcome, upset.kind in GUARDED) for upset in upsets)
    assert outcomes["corrected", True] > 5, outcomes
    assert not outcomes["detected", True], outcomes
    assert silent_in_protected(upsets, job.config) == 0
    assert any(upset.outcome not in ("masked", "corrected") for upset in upsets), outcomes

    doubles, *_ = campaign(job, 88, seed=3, bits=2, processes=1, console=console)
    assert silent_in_protected(doubles, job.config) == 0
    detected = [upset for upset in doubles if upset.outcome == "detected"]
    assert len(detected) > 5
    assert {upset.error for upset in detected} == {"MEMORY"}
    assert all(upset.place == GUARDED[upset.kind] for upset in detected
               if upset.kind in GUARDED), detected
