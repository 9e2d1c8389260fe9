"""The tests of a block, run with one mutant in it."""

import gc
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from amaranth.hdl import C, Fragment

from sim.campaigns.mutants.sites import ROOT, apply
from sim.errors import SimulationError

__all__ = ["failing", "switch_on", "tests_of", "timed", "warm_up"]

TESTS   = ROOT / "tests"
OPTIONS = ("-q", "-n0", "-p", "no:cacheprovider", "-m", "not cosim")    # of pytest

EACH     = 10       # seconds of the processor for one test
TOGETHER = 60       # for all tests with one mutant

ALSO = {
    "hw/compute/unit.py":    ["hw/encoder", "hw/decoder", "hw/attention"],
    "hw/memory/traffic.py":  ["hw/memory/test_load.py", "hw/memory/test_store.py"],
    "hw/compute/layer.py":   ["hw/compute/test_conv.py"],
    "hw/compute/row_writer.py": ["hw/compute/test_fill.py", "hw/attention/test_gate.py"],
    "hw/compute/sequence.py": ["hw/compute/test_conv.py"],
    "hw/compute/write.py":   ["hw/compute/test_conv.py"],
    "hw/attention/gate_params.py": ["hw/attention/test_gate.py"],
    "hw/memory/subordinate.py": ["hw/memory/test_offchip.py", "hw/memory/test_sdram.py"],
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


def failing(mutant, tests, switch, seconds):
    """The test that fails with ``mutant``; None where none does.

    ``switch`` is called with the mutant to put it where it belongs, so this has to be called in a
    process of its own. ``seconds`` is what :func:`timed` returned: quick tests come first. Tests
    under Icarus and Verilator are left out: frames have their place.

    Raises
    ------
    SimulationError
        If pytest itself fails.
    """
    switch(mutant)
    watch, code = _watched(tests, seconds)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED,
                    pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SimulationError(f"pytest ended with exit code {code:d} for {mutant}; to see why: "
                              f"pytest {' '.join(map(str, tests))}")
    return watch.failed


def timed(tests):
    """Seconds of the processor that each test takes without a mutant, by name. Those that take
    longer than ``EACH`` are missing. To be called in a process of its own.

    Raises
    ------
    SimulationError
        If one fails.
    """
    watch, code = _watched(tests, None)
    if watch.failed or code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SimulationError(f"a test of the chip as it is fails, so it cannot judge mutants: "
                              f"{watch.failed or f'pytest ended with exit code {code:d}'}")
    return watch.seconds


def _watched(tests, seconds):
    gc.disable()        # finalisers that warn must not run while pytest parses a test
    watch = _Watch(seconds)
    return watch, pytest.main(["-x", "--tb=no", *OPTIONS, *map(str, tests)], plugins=[watch])


def warm_up(tests):
    """Import ``tests`` and all that they need, so that forks of this process do not have to."""
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


class _Watch:
    """Ends tests that take too long, and remembers the first that fails.

    With the ``seconds`` of a run without a mutant, one that takes far longer hangs, and fails. One
    that is not among them is long anyway, and says nothing if it has not failed in ``EACH``.
    """

    def __init__(self, seconds):
        self.given, self.seconds, self.failed = seconds, {}, None
        self._begun = time.process_time()

    def pytest_collection_modifyitems(self, items):
        if self.given is not None:
            items.sort(key=lambda item: self.given.get(item.nodeid, EACH))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        begun = time.process_time()
        if self.given is not None and begun - self._begun > TOGETHER:
            pytest.skip("no time left")
        usual = self.given.get(item.nodeid) if self.given else None

        def late(*_):
            (pytest.skip if usual is None else pytest.fail)("takes too long")

        signal.signal(signal.SIGPROF, late)
        signal.setitimer(signal.ITIMER_PROF, EACH if usual is None else EACH + 3 * usual)
        try:
            result = yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        self.seconds[item.nodeid] = time.process_time() - begun
        return result

    def pytest_runtest_logreport(self, report):
        if report.failed and self.failed is None:
            self.failed = report.nodeid


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
