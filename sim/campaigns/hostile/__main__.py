"""``make hostile``: broken, odd and malicious files through every door that reads files.

Each file is read as the command line reads it, in a process of its own with limits on memory, time
and writing. It must be refused in one line, or be accepted with a result that is right. Exit code
0: all were; 1: some were not, and lie in OUT with what happened and how to repeat it; 2: it could
not be done.
"""

import sys
import time
from collections import Counter
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from golden.command import Parser, exit_code
from golden.errors import InputError
from golden.places import CACHE
from golden.progress import bars
from sim import run as machine
from sim.campaigns.hostile.cage import Limits, has_landlock
from sim.campaigns.hostile.campaign import campaign, named
from sim.errors import SimulationError

__all__ = ["main"]

RUN    = CACHE / "hostile-run"      # of the machine, whose files are damaged
COLUMNS = 120


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, SimulationError)


def _command(arguments):
    options, console = _parse(arguments), Console(highlight=False)
    if not console.is_terminal:
        console.width = COLUMNS
    if options.n < 1 or options.jobs < 1:
        raise InputError("N and JOBS must be positive")
    kinds = named(options.kinds)
    out   = Path(options.out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{options.out!r} is a file; name a folder with OUT")
    run   = Path(options.run) if options.run else _run(console)
    seeds = range(options.seed, options.seed + options.n)
    torch.set_num_threads(1)        # threads do not survive a fork
    if not has_landlock():
        console.print("this kernel cannot forbid writing: only what Python opens is watched")
    start = time.monotonic()
    with bars(console) as bar:
        task = bar.add_task("hostile files", total=options.n)

        def done(name, outcome):
            bar.advance(task)
            if outcome.is_fault:
                console.print(f"{name}: {outcome.kind}: {outcome.line}"[:200], markup=False,
                              soft_wrap=True)

        tallies = campaign(kinds, seeds, out, run=run, jobs=options.jobs, done=done,
                           limits=Limits(seconds=options.seconds, wall=3 * options.seconds))
    console.print(_table(tallies))
    faults = sum((tally.faults for tally in tallies.values()), Counter())
    spent  = time.monotonic() - start
    console.print(f"{options.n} files in {spent:.0f} s, {options.n / spent:.1f} a second: "
                  + (f"{faults.total()} faults, kept in {out}" if faults else "no fault"),
                  soft_wrap=True)
    return 1 if faults else 0


def _run(console):
    """A run of the tiny machine, made once, for the files that runs leave."""
    if not (RUN / "report.json").exists():
        console.print("one run of the tiny machine, whose files are to be damaged")
        machine.run(machine.Options(config="tiny", frames=2, taps=True, trace=True, out=str(RUN)),
                    console, brief=True)
    return RUN


def _table(tallies):
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title="Hostile files",
                  title_justify="left")
    for heading in ("kind", "tried", "accepted", "refused", "faults", "peak, MiB", "longest, s"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for name, tally in tallies.items():
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.faults.items()))
        table.add_row(name, f"{tally.tried:,}", f"{tally.accepted:,}", f"{tally.refused:,}",
                      faults or "0", f"{tally.peak / 2**20:.0f}", f"{tally.seconds:.1f}",
                      style="bold red" if faults else "")
    table.add_section()
    table.add_row("all", *(f"{sum(getattr(tally, part) for tally in tallies.values()):,}"
                           for part in ("tried", "accepted", "refused")),
                  f"{sum(tally.faults.total() for tally in tallies.values())}", "", "")
    return table


def _parse(arguments):
    parser = Parser("sim.campaigns.hostile", __doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="all")
    parser.add_argument("--out", default="reports/hostile")
    parser.add_argument("--run", help="folder of a run to damage; default: one of tiny, made here")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=Limits.seconds)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
