"""``make mutants``: do the tests notice small faults in the RTL?

Draws N of the faults that :mod:`.sites` finds in the chip, and asks of each, alone: do small frames
on the whole chip show it (:mod:`.frames`)? If not, is it one at all, or is the chip the same with
it (:mod:`.equivalent`)? If it is one, does a test of its block fail (:mod:`.blocks`)? What nobody
notices is listed: a test is missing there.

Answers are kept in OUT and taken up again as long as the RTL and the tests of a block are what they
were. Exit code 0: at least SCORE of a hundred are noticed; 1: fewer; 2: it could not be done.
"""

import hashlib
import json
import sys
from collections import Counter
from functools import cache
from pathlib import Path

from amaranth.hdl import Fragment, Value
from rich.console import Console
from rich.table import Table

from golden.command import Parser, exit_code
from golden.errors import InputError
from golden.progress import bars
from hw.config import preset
from sim.campaigns.mutants.blocks import tests_of, verdict
from sim.campaigns.mutants.equivalent import Prover
from sim.campaigns.mutants.frames import survey
from sim.campaigns.mutants.sites import ROOT, draw, sites
from sim.errors import SimulationError
from sim.top import SimTop

__all__ = ["main"]

SECONDS  = 300      # for the tests of a block
FRAME, TEST, SAME, MISSED = "frame", "test", "same", "missed"
"""What became of a mutant: a frame or a test shows it, it is none, or nobody noticed."""


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, SimulationError)


def score(answers):
    """The share of the mutants, without those that are none, that somebody noticed."""
    count   = Counter(verdict for verdict, _ in answers.values())
    noticed = count[FRAME] + count[TEST]
    return noticed / max(1, noticed + count[MISSED])


class Journal:
    """What is known of mutants, in a file that grows by a line for each answer.

    An answer counts as long as the RTL, and for those that tests gave, the block's tests are the
    same: a hash of both is part of it.
    """

    def __init__(self, path):
        self.path, self.known = path, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self.known[entry["mutant"], entry["of"]] = entry["verdict"], entry["by"]

    def get(self, mutant, *, tests):
        return self.known.get((str(mutant), _of(mutant, tests)))

    def put(self, mutant, verdict, by, *, tests):
        self.known[str(mutant), _of(mutant, tests)] = verdict, by
        with self.path.open("a") as file:
            file.write(json.dumps({"mutant": str(mutant), "of": _of(mutant, tests),
                                   "verdict": verdict, "by": by}) + "\n")


def _of(mutant, tests):
    """A hash of what an answer depends on."""
    files = [*(ROOT / "hw").rglob("*.py"), *(tests_of(mutant.file) if tests else ())]
    key   = hashlib.sha256()
    for file in sorted(set(files)):
        if "compiler" not in file.parts:
            key.update(_content(file))
    return key.hexdigest()[:16]


@cache
def _content(file):
    return file.read_bytes()


def _command(arguments):
    options = _parse(arguments)
    console = Console(highlight=False)
    config  = preset(options.config)
    journal = Journal(Path(options.out) / "mutants.jsonl")
    top     = SimTop(config)
    chip    = Fragment.get(top, None)
    mutants = draw(sites(chip), options.n, options.seed)
    answers = {}

    def settle(mutant, verdict, by, *, tests):
        journal.put(mutant, verdict, by, tests=tests)
        answers[mutant] = verdict, by

    for mutant in mutants:
        for tests in (False, True):
            known = journal.get(mutant, tests=tests)
            if known:
                answers[mutant] = known
    left = [mutant for mutant in mutants if mutant not in answers]
    if answers:
        console.print(f"{len(answers)} of {len(mutants)} are known from before")

    with bars(console) as bar:
        if left:
            task = bar.add_task("in frames", total=len(left))
            for mutant, how in survey(config, left, jobs=options.jobs, progress=lambda done: (
                    bar.update(task, completed=done))).items():
                if how:
                    settle(mutant, FRAME, how, tests=False)
            bar.update(task, completed=len(left))
        left = [mutant for mutant in left if mutant not in answers]
        task = bar.add_task("the same?", total=len(left))
        prover = Prover(chip, [signal for _, _, value in top.signature.flatten(top)
                               for signal in Value.cast(value)._rhs_signals()])
        for mutant in left:
            if prover.equivalent(mutant):
                settle(mutant, SAME, None, tests=False)
            bar.advance(task)
        left = [mutant for mutant in left if mutant not in answers]
        task = bar.add_task("in tests", total=len(left))
        for mutant in left:
            failed = verdict(mutant, seconds=SECONDS)
            settle(mutant, TEST if failed else MISSED, failed, tests=True)
            bar.advance(task)

    console.print(_table(answers))
    for mutant in sorted(mutant for mutant, (what, _) in answers.items() if what == MISSED):
        console.print(f"nobody notices {mutant}", markup=False, soft_wrap=True)
    reached, faults = score(answers), sum(what != SAME for what, _ in answers.values())
    console.print(f"{reached:.1%} of {faults} mutants noticed; {options.score} % are demanded")
    return 0 if 100 * reached >= options.score else 1


def _table(answers):
    table = Table(title="mutants of the RTL, and who noticed", title_justify="left")
    names = ("all", FRAME, TEST, SAME, MISSED)
    table.add_column("block")
    for name in names:
        table.add_column(name, justify="right")
    blocks = {}
    for mutant, (what, _) in answers.items():
        blocks.setdefault(mutant.block, Counter()).update([what, "all"])
    for block, count in sorted(blocks.items()):
        table.add_row(block, *(str(count[name] or "") for name in names))
    table.add_section()
    total = sum(blocks.values(), Counter())
    table.add_row("all", *(str(total[name]) for name in names), style="bold")
    return table


def _parse(arguments):
    parser = Parser("sim.campaigns.mutants", __doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", default="tiny")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--score", type=int, default=90)
    parser.add_argument("--out", default="reports/mutants")
    options = parser.parse_args(arguments)
    if options.n < 1:
        raise InputError(f"N must be positive, not {options.n}")
    return options


if __name__ == "__main__":
    sys.exit(main())
