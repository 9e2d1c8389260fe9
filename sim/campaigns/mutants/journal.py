"""What is known of mutants, kept from one run to the next."""

import hashlib
import json
from functools import cache

from sim.campaigns.mutants.blocks import tests_of
from sim.campaigns.mutants.sites import ROOT

__all__ = ["Journal"]

STAGES = ("frames", "same", "tests", "spoiled", "proofs", "unreached", "neighbours")
"""Who is asked, in this order, until one has something to say. ``same`` and ``unreached`` say that
the mutant is none: the chip is the same in any state, or in any run."""


class Journal:
    """A file that grows by a line for each answer: what a stage found of a mutant, or None.

    An answer counts as long as the mutant's own file is the same, and besides, of tests and proofs,
    the file of the one that noticed, or all that were asked where none did. So new tests are tried
    on what nobody noticed, and nothing else is done again. What a change elsewhere in the chip does
    to an answer is not looked at: a new OUT asks everything anew.
    """

    def __init__(self, path):
        self.path, self.known = path, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self.known[entry["mutant"], entry["stage"]] = entry

    def knows(self, mutant, stage):
        """Whether ``stage`` was asked about ``mutant``, and its answer still counts."""
        entry = self.known.get((str(mutant), stage))
        return entry is not None and entry["of"] == _of(mutant.file, stage, entry["found"])

    def found(self, mutant, stage):
        """What ``stage`` found; None also where it is not known."""
        return self.known[str(mutant), stage]["found"] if self.knows(mutant, stage) else None

    def put(self, mutant, stage, found):
        entry = {"mutant": str(mutant), "stage": stage, "found": found,
                 "of": _of(mutant.file, stage, found)}
        self.known[str(mutant), stage] = entry
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def outcome(self, mutant):
        """The first stage that found something, and what; ``(None, None)`` if none did."""
        for stage in STAGES:
            if found := self.found(mutant, stage):
                return stage, found
        return None, None


def _of(file, stage, found):
    """A hash of what an answer depends on."""
    files = {ROOT / file}
    named = ROOT / found.partition("::")[0] if found and "::" in found else None
    if stage in ("tests", "neighbours"):
        files |= {named} if named else set(tests_of(file, neighbours=stage == "neighbours"))
    if stage == "proofs":
        files |= {named} if named else set((ROOT / "hw" / "prove").glob("*/*.py"))
    key = hashlib.sha256()
    for path in sorted(files):
        key.update(_content(path))
    return key.hexdigest()[:16]


@cache
def _content(path):
    return path.read_bytes() if path.exists() else b""
