"""Reports and pages for tests, and what a figure on a page must be."""

import math
import re

from tests.sim.test_report import report as measured

__all__ = ["assert_figure", "whole_report"]

UNITS = {"": 1, "%": 0.01, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "k": 1e3, "M": 1e6,
         "G": 1e9}


def whole_report(frames=1, **changes):
    """The report of an imaginary run, as `make sim` completes it."""
    found = measured(frames, **changes)
    found["input"] = {"images": [f"phantom:{index}" for index in range(frames)], "size": 8,
                      "width": 4, "trained": True}
    found["command"]     = "make sim CONFIG=tiny"
    found["created"]     = "2026-01-02 03:04:05 +0000"
    found["environment"] = {
        "machine":  {"processor": "A <processor>", "cores": 2, "memory_bytes": 3 * 2**30,
                     "system": "Linux"},
        "versions": {"attune": None, "python": "3.11"}}
    return found


def lookup(report, path):
    value = report
    for part in path.split("."):
        value = value[int(part) if part.isdigit() and isinstance(value, list) else part]
    return value


def assert_figure(report, path, text, value, style, of=None):
    """What is shown must be the value at ``path``, rounded to the digits shown; all digits of a
    count. ``value`` is what the element carries for scripts."""
    expected = lookup(report, path)
    text     = text.replace("\u00a0", " ").strip()
    if expected is None:
        assert (text, value) == ("–", ""), path
        return
    assert float(value) == expected, path
    if style == "width":
        return
    if of is not None:
        expected /= lookup(report, of)
    digits, unit = re.fullmatch(r"(-?[\d,]+(?:\.\d+)?) ?(\D*)", text).groups()
    decimals = len(digits.partition(".")[2])
    shown    = float(digits.replace(",", "")) * UNITS[unit]
    if isinstance(expected, int) and unit == "":
        assert shown == expected, path
    assert math.isclose(shown, expected, rel_tol=1e-12,
                        abs_tol=0.5001 * 10**-decimals * UNITS[unit]), (path, text, expected)
