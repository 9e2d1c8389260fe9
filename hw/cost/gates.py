"""``make gates``: what blocks of the chip are in standard cells, ``python -m hw.cost.gates``.

Each block alone goes through Yosys and ABC with the cells of a liberty file, and, where OpenSTA is
installed (``sta``), through timing analysis: the longest path between two of its flip-flops, and
power where every net changes in a tenth of the cycles. Nothing is placed, so wires are free.
Memories of more than :data:`FLOPS` words are no gates: their bits times a stated area of each.
Blocks are kept by their content, as those of :mod:`hw.cost.synth`.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from amaranth.hdl import UnusedElaboratable
from rich.table import Table

from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from hw.config import PRESETS, preset
from hw.cost.parts import BLOCKS, parts
from hw.cost.synth import KEPT, SynthesisError, keep, key_of, yosys

LIBERTY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
FEATURE = 0.18          # um, of that
FLOPS   = 32            # words of a memory that is made of flip-flops
LAMBDA2 = 600           # of a memory's bit, where lambda is half the feature size
FILLED  = 0.7           # of a memory's area that is bits
BIT_SOURCE = ("600 square lambda, D. J. Greaves, System on Chip, University of Cambridge, 2011; "
              "of a memory 70 % are bits")

PERIOD = 10             # ns

STA = f"""\
set_cmd_units -time ns
read_liberty liberty.lib
read_verilog netlist.v
link_design top
create_clock -name clk -period {PERIOD} clk
set_power_activity -global -activity 0.1
report_checks -from [all_registers -clock_pins] -to [all_registers -data_pins] -digits 4
report_power
exit
"""


def gates_of(text, liberty, *, kept=KEPT, progress=lambda: None):
    """What a module ``top`` in RTLIL is in the cells of a liberty file: ``{"area", "memory_bits",
    "path_ns", "nj_per_cycle"}``, the first in um2. The last two are None without OpenSTA, the path
    also where there is none between two flip-flops. Kept from before, or made now.

    Raises
    ------
    SynthesisError
    """
    script = [
        "read_rtlil top.il", "hierarchy -top top", "proc", "flatten", "opt -full", "wreduce",
        "alumacc", "share", "opt", "memory -nomap",
        f"memory_map t:$mem_v2 r:SIZE<={FLOPS} %i", "opt_clean", "write_json memories.json",
        "expose -evert t:$mem_v2", "techmap", "opt -fast", "dfflibmap -liberty liberty.lib",
        "abc -liberty liberty.lib -constr drive.constr", "opt_clean", "splitnets -ports",
        "opt_clean",
        "tee -q -o stat.json stat -json -liberty liberty.lib",
        "write_verilog -noattr -noexpr -nohex -nodec netlist.v"]
    timed = shutil.which("sta")
    cells = liberty.read_text()
    file  = kept / (key_of(text, *script, cells, STA if timed else "") + ".json")
    if file.exists():
        return json.loads(file.read_text())
    progress()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "liberty.lib").write_text(cells)
        (folder / "drive.constr").write_text(f"set_driving_cell {_driver(cells)}\n"
                                             "set_load 0.1 [all_outputs]\n")
        stat  = json.loads(yosys(script, folder, text))["modules"]["\\top"]
        found = {"area": stat.get("area", 0.0),
                 "memory_bits": _memory_bits(folder / "memories.json"),
                 **(_timing(folder) if timed else {"path_ns": None, "nj_per_cycle": None})}
    keep(file, found)
    return found


def _memory_bits(file):
    modules = json.loads(file.read_text())["modules"]
    return sum(int(cell["parameters"]["WIDTH"], 2) * int(cell["parameters"]["SIZE"], 2)
               for cell in modules["top"]["cells"].values() if cell["type"] == "$mem_v2")


def _driver(cells):
    """An inverter that drives inputs: ABC then buffers what fans out."""
    names = re.findall(r'\bcell\s*\(\s*"?(\w*(?:INV|inv)\w*)"?\s*\)', cells)
    if not names:
        raise InputError("The liberty file has no cell with INV in its name, which would drive the "
                         "inputs")
    return sorted(names, key=len)[0]


def _timing(folder):
    (folder / "run.tcl").write_text(STA)
    run = subprocess.run(["sta", "-no_splash", "-exit", "run.tcl"], cwd=folder, text=True,
                         capture_output=True, check=False)
    slack = re.search(r"^\s*(-?[\d.]+)\s+slack", run.stdout, re.MULTILINE)
    power = re.search(r"^Total(?:\s+\S+){3}\s+(\S+)", run.stdout, re.MULTILINE)
    if power is None:
        lines = (run.stdout + run.stderr).strip().splitlines() or ["no message"]
        raise SynthesisError(f"OpenSTA failed: {lines[-1]}")
    return {"path_ns": PERIOD - float(slack[1]) if slack else None,
            "nj_per_cycle": float(power[1]) * PERIOD}


def bit_area(feature):
    """um2 that a bit of memory takes where the smallest feature has so many um, its share of
    decoders and amplifiers included."""
    return LAMBDA2 * (feature / 2) ** 2 / FILLED


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, SynthesisError)


def _command(arguments):
    from hw.top import Chip

    warnings.simplefilter("ignore", UnusedElaboratable)     # blocks that nobody asked for
    options, console = _parse(arguments), make_console()
    if not options.liberty.is_file():
        raise InputError(f"No liberty file {str(options.liberty)!r}; name one (LIBERTY=), or "
                         "apt-get install qflow-tech-osu018 (and opensta, for timing and power)")
    if not 0.001 <= options.feature <= 10:
        raise InputError(f"FEATURE must be from 0.001 to 10 um, not {options.feature:g}")
    config = preset(options.config, changes=options.set)
    chosen = {block: part for block, part in parts(Chip(config)).items()
              if re.search(options.only, block or "wiring")}
    if not chosen:
        raise InputError(f"No block has {options.only!r} in its name; there are "
                         f"{', '.join(BLOCKS)}")
    with console.status("") as status:
        found = {}
        for number, (block, part) in enumerate(chosen.items(), 1):
            doing = f"{block or 'wiring'}, {number} of {len(chosen)}"
            status.update(doing)
            found[block] = gates_of(part.text(), options.liberty)
    _print(console, config, found, options)
    return 0


def _print(console, config, found, options):
    table = Table("block", "um2", "a lane", "memory, um2", "path, ns", "nJ a cycle", box=None,
                  title=f"{config.name} in {options.liberty.name}, before layout",
                  title_justify="left", header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    bit   = bit_area(options.feature)
    lanes = {f"{name}.compute.conv.array": unit.pixels * config.vector * unit.outputs
             for name, unit in config.units.items()}

    def row(name, block, each, **style):
        def number(value, digits=0):
            return "" if value is None else f"{value:,.{digits}f}".replace(",", " ")
        table.add_row(name, number(each["area"]),
                      number(each["area"] / lanes[block]) if block in lanes else "",
                      number(each["memory_bits"] * bit) if each["memory_bits"] else "",
                      number(each["path_ns"], 2), number(each["nj_per_cycle"], 3), **style)

    for block, each in found.items():
        if each["area"] or each["memory_bits"]:
            row(block.replace("compute.", "") or "wiring", block, each)
    paths = [each["path_ns"] for each in found.values() if each["path_ns"] is not None]
    power = [each["nj_per_cycle"] for each in found.values() if each["nj_per_cycle"] is not None]
    row("all", None, {"area": sum(each["area"] for each in found.values()),
                      "memory_bits": sum(each["memory_bits"] for each in found.values()),
                      "path_ns": max(paths, default=None),
                      "nj_per_cycle": sum(power) if power else None}, style="bold")
    console.print(table)
    console.print(f"A bit of memory: {bit:.2f} um2 ({BIT_SOURCE}).", highlight=False)
    if not power:
        console.print("apt-get install opensta for paths and power.", highlight=False)


def _parse(arguments):
    parser = Parser("hw.cost.gates", __doc__)
    parser.add_argument("--config", default="tiny", help=f"one of {', '.join(PRESETS)}, or a file")
    parser.add_argument("--set", help="knobs to change, NAME=value with blanks between")
    parser.add_argument("--liberty", type=Path, default=LIBERTY, help="the cells")
    parser.add_argument("--feature", type=float, default=FEATURE,
                        help="smallest feature in um, for the area of memories")
    parser.add_argument("--only", default="", help="blocks with this in their names, a pattern")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
