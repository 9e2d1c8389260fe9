import pickle

import pytest

from sim.explore.constraints import Constraint, Unusable

KNOWN = {"a": 6, "decoder.outputs": 8, "dram": "ddr4-2400", "zero": 0, "transform": True}


@pytest.mark.parametrize("text, holds", [
    ("a <= 6", True), ("a < 6", False), ("5 < a <= 6 < decoder.outputs", True),
    ("5 < a <= 6 > decoder.outputs", False), ("a + 2 * 3 == 12", True), ("-a < 0", True),
    ("a // 4 + a % 4 == 3 and not a / 4 != 1.5", True), ("a > 9 or decoder.outputs == 8", True),
    ("a > 9 and zero == 0", False), ("2 * MiB == 2048 * KiB", True), ("1 * GiB > a", True),
    ("dram == 'ddr4-2400'", True), ("dram != 'ddr4-2400'", False), ("a / zero < 1", False),
    ("not transform", False),
])
def test_what_holds(text, holds):
    assert Constraint(text).holds(KNOWN) is holds
    assert pickle.loads(pickle.dumps(Constraint(text))).holds(KNOWN) is holds


def test_names():
    assert Constraint("a + decoder.outputs <= 2 * MiB").names == {"a", "decoder.outputs"}


@pytest.mark.parametrize("text, line", [
    ("a <=", "cannot be read; write it like mac_lanes <= 1024"),
    ("", "cannot be read; write it like mac_lanes <= 1024"),
    ("a + 1", "compares nothing; write it like mac_lanes <= 1024"),
    ("1", "compares nothing; write it like mac_lanes <= 1024"),
    ("a ** 99 < 1", ("has 'a ** 99', and takes no more than numbers, names, + - * / // %, "
                     "comparisons, and, or, not")),
    ("__import__('os').system('x') < 1", ("has \"__import__('os').system('x')\", and takes no more "
                                          "than numbers, names, + - * / // %, comparisons, and, "
                                          "or, not")),
    ("a in (1, 2)", ("has 'a in (1, 2)', and takes no more than numbers, names, + - * / // %, "
                     "comparisons, and, or, not")),
    ("a < " + "1 + " * 100 + "1", "is longer than 200 characters"),
])
def test_what_is_none(text, line):
    with pytest.raises(Unusable) as refused:
        Constraint(text)
    assert str(refused.value) == line


@pytest.mark.parametrize("text", ["dram < 3", "'x' * 9 == dram", "-dram == 1", "dram == 1"])
def test_numbers_and_texts_do_not_mix(text):
    with pytest.raises(Unusable, match="^mixes numbers and texts$"):
        Constraint(text).holds(KNOWN)
