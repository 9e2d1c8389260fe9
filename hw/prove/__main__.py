"""Prove every property: ``python -m hw.prove``, behind ``make prove``.

A property counts as shown if it holds, if its covers are reached within its assumptions, and if its
mutant, the same block with one fault, is refuted. What was shown is kept under ``.build/prove`` by
the hash of the design, so that only what changed is proved again. Exits with 1 if a property is
refuted, vacuous, blind to its mutant or undecided, with 2 if nothing could be proved.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path
from textwrap import fill

from golden.command import Parser, exit_code
from golden.errors import InputError
from golden.places import COMMAND
from hw.prove.bench import catalogue
from hw.prove.examine import BUILD, examine
from hw.prove.solve import SolverError

INDENT = " " * 4


def chosen(properties, *, only, fast):
    """The properties whose names match the pattern ``only``; with ``fast``, none of the slow."""
    found = [entry for name, entry in properties.items()
             if (not only or fnmatch(name, f"*{only}*")) and not (fast and entry.slow)]
    if not found:
        raise InputError(f"No property matches {only!r}; `{COMMAND} prove LIST=1` names them all")
    return found


def row(name, kind, seconds, result):
    """One line of the table, in 80 columns."""
    return f"{name[:44]:<44} {kind:>12} {seconds:>7}  {result[:13]}".rstrip()


def kind(entry):
    return "unbounded" if entry.steps is None else f"to {entry.steps} steps"


def _parse(argv):
    parser = Parser("hw.prove", __doc__)
    parser.add_argument("--only", default="", help="part of a name, or a pattern")
    parser.add_argument("--fast", action="store_true", help="what CI proves")
    parser.add_argument("--list", action="store_true", help="say in words what is proved")
    parser.add_argument("--again", action="store_true", help="forget what was shown before")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, default=BUILD / "counterexamples",
                        help="folder for counterexamples")
    return parser.parse_args(argv)


def _command(argv):
    arguments = _parse(argv)
    entries   = chosen(catalogue(), only=arguments.only, fast=arguments.fast)
    if arguments.jobs < 1:
        raise InputError(f"Jobs must be positive, not {arguments.jobs}")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise InputError(f"OUT must be a folder, and {arguments.out} is a file")
    if arguments.list:
        for entry in entries:
            print(f"{entry.name}, {kind(entry)}", fill(entry.statement, 80, initial_indent=INDENT,
                                                       subsequent_indent=INDENT), sep="\n")
        return 0
    return prove_all(entries, jobs=arguments.jobs, again=arguments.again, out=arguments.out)


def main(argv=None):
    return exit_code(_command, argv, SolverError)


def prove_all(entries, *, jobs, again, out):
    """Prove ``entries`` side by side, print the table, and return the exit code."""
    print(row("property", "shown", "seconds", "result"))
    print(row("-" * 44, "-" * 12, "-" * 7, "-" * 13))
    results = []
    with ProcessPoolExecutor(jobs) as pool:
        # The slow ones first, so that none of them runs alone at the end.
        order   = sorted(entries, key=lambda entry: not entry.slow)
        futures = [pool.submit(examine, entry.name, again=again, out=out) for entry in order]
        try:
            for future in as_completed(futures):
                result = future.result()
                results.append(result)
                print(row(result.name, result.kind, f"{result.seconds:.1f}", result.outcome),
                      flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise

    shown   = [result for result in results if result.shown]
    total   = sum(result.seconds for result in results)
    endless = sum(result.unbounded for result in shown)
    print(row("-" * 44, "-" * 12, "-" * 7, "-" * 13))
    print(f"{len(shown)} of {len(results)} properties shown, {endless} of them unbounded; "
          f"{total:.0f} s of processor time")
    for result in results:
        if not result.shown:
            print(f"\n{result.name}: {result.outcome}\n{result.explanation}")
    return 0 if len(shown) == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
