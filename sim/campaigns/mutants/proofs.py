"""Proofs that fail with a mutant: properties of ``hw/prove`` whose design has its line in it."""

import tempfile
from functools import cache
from pathlib import Path

from hw.prove.bench import catalogue
from hw.prove.examine import SEARCH
from hw.prove.solve import SolverError, model, solve
from sim.campaigns.mutants.blocks import switch_on
from sim.campaigns.mutants.sites import places

__all__ = ["about", "refuted"]

SECONDS = 60        # for one property


@cache
def _designs():
    """The properties CI proves, by name, each with the lines of the chip in its design."""
    return {name: places(entry.bench().fragment) for name, entry in catalogue().items()
            if entry.method != "integers" and not entry.slow}


def about(mutant):
    """Names of the properties whose design has the mutant's line in it."""
    return [name for name, lines in _designs().items() if (mutant.file, mutant.line) in lines]


def refuted(mutant):
    """The property that does not hold with ``mutant``, or says nothing any more; else None.

    Only runs as long as those in which ``make prove`` looks for mutants are searched. To be called
    in a process of its own, since it changes Amaranth.
    """
    entries = [catalogue()[name] for name in about(mutant)]
    goals   = ("holds", "covered")
    sound   = {entry.name: [model(entry.bench(), goal=goal) for goal in goals] for entry in entries}
    switch_on(mutant)
    for entry in entries:
        where = f"hw/prove/{entry.block.replace('.', '/')}.py::{entry.name}"
        steps = {"holds": entry.steps or SEARCH[entry.method], "covered": SEARCH[entry.method]}
        for goal, before in zip(goals, sound[entry.name], strict=True):
            text = model(entry.bench(), goal=goal)
            if text == before:
                continue
            with tempfile.TemporaryDirectory() as folder:
                try:
                    verdict = solve(text, folder=Path(folder), method=entry.method,
                                    steps=steps[goal], depth=entry.depth, seconds=SECONDS)
                except SolverError:
                    continue
            if verdict.holds is (goal == "covered"):
                return where
    return None
