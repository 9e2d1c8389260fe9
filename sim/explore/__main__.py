"""``make explore``: the machines of a space, each to the cycle, and which of them are the best.

A space of at most ``--n`` machines is enumerated, and its front proved; of a larger one Optuna
proposes as many, and ``--random`` more are drawn by chance, to compare it with. Each is compiled
for and run on the exact cycle model, on all cores or a Dask cluster. What is measured is kept in a
journal: the same command goes on where it was stopped. With ``--certify`` the first of the front
run through the RTL. Exit code 0: done; 1: the RTL contradicts a figure, or a machine made the
program fail; 2: it could not be done, and one line says why.
"""

import shlex
import sys
import textwrap
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from golden import places
from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from golden.places import COMMAND
from hw.compiler import CompileError
from sim.commands import WIDTH
from sim.errors import SimulationError
from sim.explore.certify import certify
from sim.explore.evaluate import network_of, sources
from sim.explore.journal import Journal
from sim.explore.results import make_results, verdict, write_results
from sim.explore.search import Exploration
from sim.explore.space_file import read_space
from sim.explore.workers import Here, Workers
from sim.progress import MachineProgress

__all__ = ["explore", "main"]

ROWS   = 12         # machines of the front on the terminal
DIGITS = 12         # room for a figure
INDENT = " " * 9    # of a machine's knobs, below its figures


def explore(options, console):
    """Explore the space that ``options`` name; returns the results, which are also written.

    Raises
    ------
    InputError, SimulationError
        If it cannot be done.
    """
    space   = read_space(options.space)
    network = network_of(space)
    out     = Path(options.out or places.HOME / "reports" / f"explore-{space.name}")
    if out.is_file():
        raise InputError(f"{str(out)!r} is a file; name a folder with OUT")
    head = {"space": space.hash, "sources": sources(), "name": space.name, "network": " ".join(
        f"{name}={value}" for name, value in asdict(network).items() if value is not None)}
    with Journal(out, head) as journal:
        with console.status(f"looking at the machines of {space.name}"):
            exploration = Exploration(space, journal, options.n, options.random)
        known, start = set(journal.rows), (time.monotonic(), time.process_time())
        if known:
            console.print(f"going on: {len(known)} machines are in the journal")
        try:
            with ((Here(network) if options.jobs == 0 else
                   Workers(network, options.jobs, options.scheduler)) as workers,
                  MachineProgress(console, exploration.todo - len(known),
                                  space.objectives[0]) as progress):
                exploration.run(workers.evaluate, options.seed, progress)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(
                f"{str(error) or 'interrupted'}; {len(journal.rows)} machines are in "
                f"{journal.path}, and the same command goes on") from None
        if not exploration.front:
            raise InputError(_no_machine(exploration))
        took    = time.monotonic() - start[0], time.process_time() - start[1]
        results = _write(exploration, network, journal, out)
        _print(console, results, out)
        new     = [row["seconds"] for number, row in journal.rows.items() if number not in known]
        if new:
            elsewhere = 0 if options.jobs == 0 else sum(new)
            console.print(_rate(len(new), took[0], took[1] + elsewhere), soft_wrap=True)
        if options.certify:
            _certify(options.certify, exploration, network, journal, out, console)
            results = _write(exploration, network, journal, out)
    return results


def _rate(count, seconds, cpu):
    """How many machines were measured how fast, as a line; ``cpu`` are the processors' seconds."""
    return (f"{count} machines in {seconds:.0f} s, {3600 * count / seconds:,.0f} an hour; "
            f"{cpu / count:.2f} s of CPU each, {3600 * count / cpu:,.0f} an hour and core")


def _write(exploration, network, journal, out):
    results = make_results(exploration, network, journal.certified)
    write_results(results, exploration.space.machine(results["winner"]), out)
    return results


def _certify(count, exploration, network, journal, out, console):
    """Run the ``count`` first machines of the front through the RTL, unless that was done."""
    for row in exploration.front[:count]:
        number = row["machine"]
        if number not in journal.certified:
            config = exploration.space.machine(number)
            journal.certify(number, certify(row, config, network, out / "certified", console))
        found = journal.certified[number]
        console.print(f"machine {number}: " + (f"the RTL contradicts it: {'; '.join(found[:3])}"
                                               if found else "the RTL agrees, to the cycle"))


def _no_machine(exploration):
    """Why nothing was found, as a line."""
    rows = [row for row in exploration.rows.values() if row["status"] not in
            ("refused", "excluded")]
    (reason, count), = Counter(row["reason"] for row in rows).most_common(1)
    return (f"No machine of space {exploration.space.name} is left of {len(rows)} that were tried; "
            f"{count} of them because of: {reason}")


def _print(console, results, out):
    names = results["objectives"]
    knobs = [path for path, values in results["parameters"].items() if len(values) > 1]
    rows  = {row["machine"]: row for row in results["rows"]}
    console.print(f"front of {results['space']}")
    console.print("  ".join(("machine", *(name.rjust(DIGITS) for name in names))), soft_wrap=True)
    for number in results["front"][:ROWS]:
        row   = rows[number]
        cells = (f"{row['figures'][name]:,}".rjust(max(len(name), DIGITS)) for name in names)
        console.print("  ".join((str(number).rjust(len("machine")), *cells)), soft_wrap=True)
        given = " ".join(f"{path}={row['knobs'][path]}" for path in knobs)
        console.print(textwrap.fill(given, WIDTH, initial_indent=INDENT,
                                    subsequent_indent=INDENT), style="dim", soft_wrap=True)
    if len(results["front"]) > ROWS:
        console.print(f"and {len(results['front']) - ROWS} more")
    console.print(", ".join(f"{count} {status}" for status, count in results["counts"].items()))
    console.print(verdict(results), soft_wrap=True)
    if not results["enumerated"] and results["possible"]:
        console.print(f"N={results['possible']} tries all of them", soft_wrap=True)
    out = out.relative_to(Path.cwd()) if out.is_relative_to(Path.cwd()) else out
    console.print(f"{out}: explore.html, explore.json, explore.csv, winner.toml", soft_wrap=True)
    given = " ".join(f"{name.upper()}={shlex.quote(str(value))}"
                     for name, value in results["network"].items() if value is not None)
    console.print(f"{COMMAND} sim CONFIG={shlex.quote(str(out / 'winner.toml'))} {given}",
                  soft_wrap=True)


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, CompileError, SimulationError)


def _command(arguments):
    results = explore(_parse(arguments), make_console())
    wrong   = any(row["certified"] for row in results["rows"])
    return 1 if wrong or results["counts"].get("fault") else 0


def _parse(arguments):
    parser = Parser("sim.explore", __doc__)
    parser.add_argument("--space", required=True)
    for name, default in (("n", 1000), ("seed", 0), ("jobs", None), ("certify", 0), ("random", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("scheduler", "out"):
        parser.add_argument(f"--{name}")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
