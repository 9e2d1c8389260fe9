"""Shares, intervals, table and picture of an injection campaign."""

import pytest

from sim.campaigns.state import Target
from sim.campaigns.upset_report import (
    OUTCOMES,
    print_table,
    summarise,
    weighted,
    wilson,
    write_picture,
)
from sim.campaigns.upsets import Upset

TARGETS = [Target("top.chip.controller.x", 100, 1, False, "run control"),
           Target("top.chip.onchip.bank_0", 10, 30, True, "on-chip memory"),
           Target("top.offchip.x", 1000, 1, False, None)]


@pytest.mark.parametrize("found, n, low, high", [
    (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0), (5, 20, 0.1119, 0.4687), (81, 263, 0.2553, 0.3662),
])
def test_wilson(found, n, low, high):
    """81 of 263 is the example of Newcombe (Statistics in Medicine 17, 1998, p. 857), method 3."""
    assert wilson(found, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_nothing_tried_is_nothing_known():
    assert wilson(0, 0) == (0.0, 1.0)


def test_weights_of_a_mean():
    share, (low, high) = weighted([(300, 10, 100), (100, 50, 100), (7, 0, 0)])
    assert share == pytest.approx(0.75 * 0.1 + 0.25 * 0.5)
    assert low < share < high
    assert high - low == pytest.approx(2 * 1.959964 * (
        0.75 ** 2 * 12 / 104 * 92 / 104 / 104 + 0.25 ** 2 * 52 / 104 * 52 / 104 / 104) ** 0.5)


def upsets():
    made = [("run control", "masked", 1.0)] * 6 + [("run control", "hang", 1.0)] * 2
    made += [("run control", "mask", 0.5), ("run control", "mask", 0.9)]
    made += [("on-chip memory", "masked", 1.0)] * 4 + [("on-chip memory", "other", 1.0)]
    return [Upset(kind, "top.chip.x", 0, 0, 7, outcome, dice=dice) for kind, outcome, dice in made]


def test_summary():
    found   = summarise(upsets(), TARGETS)
    control = found["classes"]["run control"]
    assert (control["bits"], control["upsets"], control["memory"]) == (100, 10, False)
    assert control["shares"]["silent"] == 0.2
    assert control["bounds"]["hang"] == wilson(2, 10)
    assert control["dice_lost_mean"] == pytest.approx(0.3)
    assert control["dice_lost_most"] == pytest.approx(0.5)
    assert found["classes"]["on-chip memory"]["dice_lost_mean"] is None
    chip = found["totals"]["chip"]
    assert (chip["bits"], chip["upsets"]) == (400, 15)
    assert chip["shares"]["silent"] == pytest.approx(0.2)
    assert chip["shares"]["hang"] == pytest.approx(0.25 * 0.2)
    for part in found["classes"].values():
        assert sum(part["shares"][outcome] for outcome in OUTCOMES) == pytest.approx(1)


def test_table_fits_80_columns(capsys):
    print_table(summarise(upsets() * 4000, TARGETS))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["run", "control", "40000", "60.0", "20.00", "19.61-20.39", "0.30",
                                "0.0", "0.0", "20.0", "0"]
    assert lines[-1].startswith("the chip, by bits")


def test_picture(tmp_path):
    write_picture(tmp_path / "x.png", summarise(upsets(), TARGETS))
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
