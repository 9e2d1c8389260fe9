"""The tests of a block, run with one mutant in it."""

import gc
import os
import sys
from pathlib import Path

from amaranth.hdl import C, Fragment

from sim.campaigns.mutants.sites import ROOT, apply
from sim.errors import SimulationError

__all__ = ["failing", "switch_on", "tests_of", "warm_up"]

TESTS   = ROOT / "tests"
OPTIONS = ("-q", "-n0", "-p", "no:cacheprovider", "-m", "not cosim")    # of pytest

ALSO = {
    "hw/top.py":             ["hw/monitor", "hw/control"],
    "hw/compute/unit.py":    ["hw/encoder", "hw/decoder", "hw/attention"],
    "hw/memory/traffic.py":  ["hw/memory/test_load.py", "hw/memory/test_store.py"],
    "hw/memory/channel.py":  ["hw/memory/test_load.py"],
    "hw/control/layers.py":  ["hw/control/test_ledger.py"],
    "hw/attention/unit.py":  ["hw/attention/test_attention_unit.py"],
    "hw/encoder/unit.py":    ["hw/encoder/test_encoder_unit.py"],
    "hw/decoder/unit.py":    ["hw/decoder/test_decoder_unit.py"],
    "golden/arithmetic.py":  ["golden/test_integer.py"],
    "golden/integer.py":     ["golden/test_plan.py", "golden/test_onnx_export.py"],
    **{f"hw/compiler/{name}.py": ["hw/compiler/test_compile.py"] for name in (
        "build", "emit", "estimate", "flow", "groups", "machine", "maps", "memory", "ops", "pack",
        "program", "unit")},
}
"""Tests that do not lie where a file's name says."""


def tests_of(file, *, neighbours=False):
    """Paths of the tests of a file of ``hw/``: those that bear its name and those that ``ALSO``
    names, or, as ``neighbours``, the others of its folder."""
    path   = Path(file)
    own    = TESTS / path.parent / f"test_{path.name}"
    named  = [own] if own.exists() else []
    for name in ALSO.get(file, ()):
        place = TESTS / name
        named += [place] if place.suffix else sorted(place.glob("test_*.py"))
    if not neighbours:
        return named
    return [test for test in sorted((TESTS / path.parent).glob("test_*.py"))
            if test not in named and path.parent.name not in ("hw", "golden")]


def failing(mutant, tests, switch):
    """The test that fails with ``mutant``, or with None without any; None where all pass.

    ``switch`` is called with the mutant to put it where it belongs, so this has to be called in a
    process of its own. Tests under Icarus and
    Verilator are left out: frames have their place.

    Raises
    ------
    SimulationError
        If pytest itself fails.
    """
    import pytest

    if mutant:
        switch(mutant)
    gc.disable()        # finalisers that warn must not run while pytest parses a test
    seen = _FirstFailure()
    code = pytest.main(["-x", "--tb=no", *OPTIONS, *map(str, tests)], plugins=[seen])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED,
                    pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SimulationError(f"pytest ended with exit code {code:d} for {mutant}; to see why: "
                              f"pytest {' '.join(map(str, tests))}")
    return seen.name if code == pytest.ExitCode.TESTS_FAILED else None


def warm_up(tests):
    """Import ``tests`` and all that they need, so that forks of this process do not have to."""
    import pytest

    null, kept = os.open(os.devnull, os.O_WRONLY), [os.dup(1), os.dup(2)]
    sys.stdout.flush()
    try:
        os.dup2(null, 1)
        os.dup2(null, 2)
        pytest.main(["--collect-only", *OPTIONS, *map(str, tests)])
    finally:
        sys.stdout.flush()
        for stream, place in enumerate(kept, start=1):
            os.dup2(place, stream)
            os.close(place)
        os.close(null)


class _FirstFailure:
    name = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.name is None:
            self.name = report.nodeid


def switch_on(mutant):
    """From now on, whatever is elaborated has the mutant in it."""
    get, depth = Fragment.get, 0

    def elaborate(design, platform):
        nonlocal depth
        depth += 1
        try:
            fragment = get(design, platform)
        finally:
            depth -= 1
        if not depth:
            apply(fragment, {mutant: C(1, 1)})
        return fragment

    Fragment.get = staticmethod(elaborate)
