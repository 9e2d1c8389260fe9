"""``make mutants``: do the tests notice small faults in the RTL, or in Python?

Draws N of the faults that :mod:`.sites` finds in the chip, and asks of each, alone: do small frames
on the whole chip show it (:mod:`.frames`)? If not, is it one at all, or is the chip the same with
it (:mod:`.equivalent`)? If it is one, does a test of its block fail (:mod:`.blocks`), or a run that
ends badly (:mod:`.frames`), or a proof (:mod:`.proofs`), or another test of its folder? What nobody
notices is listed: a test is missing there.

With ``--of=python`` the faults are those that :mod:`.syntax` finds in compiler and integer
arithmetic, and only tests are asked.

Answers are kept in OUT and taken up again (:mod:`.journal`). Exit code 0: at least SCORE of a
hundred are noticed; 1: fewer; 2: it could not be done.
"""

import sys
from collections import Counter
from functools import partial
from pathlib import Path

import torch
from amaranth.hdl import Fragment, Value
from rich.console import Console
from rich.table import Table

from golden.command import Parser, exit_code
from golden.errors import InputError
from golden.progress import bars
from hw.config import preset
from sim.campaigns.mutants import proofs, syntax
from sim.campaigns.mutants.asking import CRASH, HANG, ask
from sim.campaigns.mutants.blocks import failing, switch_on, tests_of, timed, warm_up
from sim.campaigns.mutants.equivalent import Prover
from sim.campaigns.mutants.frames import survey
from sim.campaigns.mutants.journal import STAGES, Journal
from sim.campaigns.mutants.sites import draw, sites
from sim.errors import SimulationError
from sim.top import SimTop

__all__ = ["main"]

SOLVING = 600       # seconds of the processor for one mutant's equivalence, or its proofs
TESTING = 600       # for the tests of a block
SAME    = ("same", "unreached")     # stages that say that a mutant is none
MISSED  = "missed"
CODE    = ("tests", "neighbours")   # stages for Python


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, SimulationError)


def score(counts):
    """The share of the mutants, without those that are none, that somebody noticed.

    ``counts`` is a counter of who had something to say; ``MISSED`` stands for nobody.
    """
    return 1 - counts[MISSED] / max(1, faults(counts))


def faults(counts):
    """How many of the mutants are some."""
    return counts.total() - sum(counts[stage] for stage in SAME)


def _command(arguments):
    options = _parse(arguments)
    console = Console(highlight=False)
    config  = preset(options.config)
    top     = SimTop(config)
    chip    = Fragment.get(top, None)
    stages  = STAGES
    mutants = sites(chip)
    if options.of == "python":
        stages, mutants = [stage for stage in STAGES if stage in CODE], syntax.sites()
    mutants = draw(mutants, options.n, options.seed)
    journal = Journal(Path(options.out) / f"{options.of}.jsonl")
    torch.set_num_threads(1)        # threads of OpenMP do not outlive a fork
    with bars(console) as bar:
        for stage in stages:
            left  = [mutant for mutant in mutants if journal.outcome(mutant) == (None, None)]
            asked = [mutant for mutant in left if not journal.knows(mutant, stage)]
            task  = bar.add_task(stage, total=len(left), completed=len(left) - len(asked))
            for mutant, found in _answers(stage, mutants, asked, config, chip, top,
                                           options.jobs):
                journal.put(mutant, stage, found)
                bar.advance(task)

    outcomes = {mutant: journal.outcome(mutant) for mutant in mutants}
    what = {"rtl": "the RTL", "python": "Python"}[options.of]
    console.print(_table(outcomes, f"mutants of {what}, and who noticed", stages))
    for mutant, (stage, _) in sorted(outcomes.items()):
        if stage is None:
            console.print(f"nobody notices {mutant}", markup=False, soft_wrap=True)
    counts = Counter(stage or MISSED for stage, _ in outcomes.values())
    console.print(f"{score(counts):.1%} of {faults(counts)} mutants noticed; "
                  f"{options.score} % are demanded")
    return 0 if 100 * score(counts) >= options.score else 1


def _answers(stage, drawn, mutants, config, chip, top, jobs):
    """What a stage has to say of each of ``mutants``, as soon as it is known; None for nothing."""
    if not mutants:
        return
    if stage in ("frames", "spoiled"):
        # The machine of a run that was stopped is there already; one for a few is built sooner.
        within = drawn if 4 * len(mutants) >= len(drawn) else mutants
        yield from survey(config, within, mutants, spoiled=stage == "spoiled", jobs=jobs)
    elif stage in SAME:
        prover = Prover(chip, [signal for _, _, value in top.signature.flatten(top)
                               for signal in Value.cast(value)._rhs_signals()])
        same   = prover.in_any_state if stage == "same" else prover.in_any_run
        for mutant, found in _solved(same, mutants, jobs):
            yield mutant, "nothing changes" if found else None
    elif stage == "proofs":
        yield from _solved(proofs.refuted, [each for each in mutants if proofs.about(each)], jobs)
        yield from ((each, None) for each in mutants if not proofs.about(each))
    else:
        for file in sorted({mutant.file for mutant in mutants}):
            yield from _tested(tests_of(file, neighbours=stage == "neighbours"),
                               [mutant for mutant in mutants if mutant.file == file],
                               syntax.switch_on if file in syntax.FILES else switch_on, jobs)


def _solved(question, mutants, jobs):
    for mutant, found in ask(question, mutants, seconds=SOLVING, jobs=jobs):
        yield mutant, None if found in (HANG, CRASH) else found


def _tested(tests, mutants, switch, jobs):
    """Tests run without a mutant first: they must pass then, and take as long as they do."""
    if not tests:
        yield from ((mutant, None) for mutant in mutants)
        return
    warm_up(tests)
    (_, seconds), = ask(timed, [tests], seconds=TESTING)
    if seconds in (HANG, CRASH):
        raise SimulationError(f"the tests of {mutants[0].file} end in a {seconds} without a mutant")
    yield from ask(partial(failing, tests=tests, switch=switch, seconds=seconds), mutants,
                   seconds=TESTING, jobs=jobs)


def _table(outcomes, title, stages):
    table = Table(title=title, title_justify="left")
    names = ("all", *stages, MISSED)
    table.add_column("block")
    for name in names:
        table.add_column(name, justify="right")
    blocks = {}
    for mutant, (stage, _) in outcomes.items():
        blocks.setdefault(mutant.block, Counter()).update([stage or MISSED, "all"])
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
    parser.add_argument("--of", choices=("rtl", "python"), default="rtl")
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
