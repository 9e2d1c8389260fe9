"""The tests of a block, run with one mutant in it."""

import gc
import multiprocessing
import os
import time
from pathlib import Path

from amaranth.hdl import C, Fragment

from sim.campaigns.mutants.sites import ROOT, apply
from sim.errors import SimulationError

__all__ = ["tests_of", "verdict"]

TESTS = ROOT / "tests"

ALSO = {
    "hw/top.py":             ["hw/monitor", "hw/control"],
    "hw/compute/unit.py":    ["hw/encoder", "hw/decoder", "hw/attention"],
    "hw/memory/traffic.py":  ["hw/memory/test_load.py", "hw/memory/test_store.py"],
    "hw/memory/channel.py":  ["hw/memory/test_load.py"],
    "hw/control/layers.py":  ["hw/control/test_ledger.py"],
}
"""Tests that do not lie where a block's name says."""


def tests_of(file):
    """Paths of the tests of a file of ``hw/``, the nearest first: those that bear its name, those
    that ``ALSO`` names, then those of its folder."""
    path   = Path(file)
    own    = TESTS / path.parent / f"test_{path.name}"
    folder = sorted((TESTS / path.parent).glob("test_*.py"))
    named  = [own] if own.exists() else []
    for name in ALSO.get(file, ()):
        place = TESTS / name
        named += [place] if place.suffix else sorted(place.glob("test_*.py"))
    rest   = [test for test in folder if test not in named and path.parent.name != "hw"]
    return [*named, *rest]


def verdict(mutant, *, seconds):
    """The test that fails with ``mutant``, ``"hang"``, or None where all of its block pass.

    Runs in a process of its own, forked from this one, so that nothing is imported twice; tests
    under Icarus and Verilator are left out, as frames have their place.

    Raises
    ------
    SimulationError
        If pytest itself fails.
    """
    context = multiprocessing.get_context("fork")
    answer, question = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(mutant, question))
    process.start()
    ends = time.monotonic() + seconds
    while process.is_alive() and time.monotonic() < ends and not answer.poll(0.2):
        pass
    code, failed = answer.recv() if answer.poll() else (
        1, "hang" if process.is_alive() else "crash")
    process.kill()
    process.join()
    if code not in (0, 1):
        raise SimulationError(f"pytest ended with exit code {code} for {mutant}; to see why: "
                              f"pytest {' '.join(map(str, tests_of(mutant.file)))}")
    return failed if code else None


def _run(mutant, question):
    import pytest

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    _switch_on(mutant)
    gc.disable()        # finalisers that warn must not run while pytest parses a test
    seen = _FirstFailure()
    code = pytest.main(["-x", "-q", "-n0", "-p", "no:cacheprovider", "-m", "not cosim",
                        *map(str, tests_of(mutant.file))], plugins=[seen])
    question.send((int(code), seen.name))


class _FirstFailure:
    name = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.name is None:
            self.name = report.nodeid


def _switch_on(mutant):
    """From now on, whatever is elaborated has the mutant in it."""
    get, depth = Fragment.get, 0

    def elaborate(design, platform):
        nonlocal depth
        depth += 1
        try:
            fragment = get(design, platform)
        finally:
            depth -= 1
        if not depth and not getattr(fragment, "mutated", False):
            fragment.mutated = True
            apply(fragment, {mutant: C(1, 1)})
        return fragment

    Fragment.get = staticmethod(elaborate)
