"""``make cost``: what a machine takes of an FPGA, without synthesis, ``python -m hw.cost``.

Prints LUTs, flip-flops, multipliers and block RAMs of an ECP5 by the model of :mod:`hw.cost.cells`.
With ``--check`` its errors on machines that it was not fitted to; with ``--fit`` it is fitted anew
before, to blocks that Yosys synthesises for that.
"""

import sys
import warnings

from amaranth.hdl import UnusedElaboratable
from rich.table import Table

from golden.command import Parser, exit_code, make_console
from hw.config import PRESETS, preset
from hw.cost.cells import FITTED, cells_of_machine
from hw.cost.fit import kept_points, mean_error, synthesised, unseen, write
from hw.cost.synth import LIMITS, SynthesisError


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, SynthesisError)


def _command(arguments):
    options, console = _parse(arguments), make_console()
    if options.fit:
        warnings.simplefilter("ignore", UnusedElaboratable)     # blocks that are not fitted
        with console.status("elaborating") as status:
            write(synthesised(status.update))
    errors = unseen(kept_points())
    if options.fit or options.check:
        _print_errors(console, errors)
        return 0
    config = preset(options.config, changes=options.set)
    found  = cells_of_machine(config)
    table  = Table(config.name, *LIMITS, box=None, header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("by the model", *(str(found[name]) for name in LIMITS))
    table.add_row("ECP5-85F", *(str(limit) for limit in LIMITS.values()))
    table.add_row("mean error on machines not fitted", *(
        f"{mean_error(errors, name):.1%}" if name in FITTED else "" for name in LIMITS))
    console.print(table)
    return 0


def _print_errors(console, errors):
    table = Table("machine, not fitted", "blocks", *(
        f"{name}{what}" for name in FITTED for what in ("", ", model", ", error")), box=None,
        header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    for error in errors:
        table.add_row(error.name, str(error.blocks), *(text for name in FITTED for text in (
            str(error.measured[name]), f"{error.predicted[name]:.0f}", f"{error.of(name):+.1%}")))
    table.add_row("mean, without signs", "", *(text for name in FITTED for text in (
        "", "", f"{mean_error(errors, name):.1%}")))
    console.print(table)


def _parse(arguments):
    parser = Parser("hw.cost", __doc__)
    parser.add_argument("--config", default="reference",
                        help=f"one of {', '.join(PRESETS)}, or a file")
    parser.add_argument("--set", help="knobs to change, NAME=value with blanks between")
    parser.add_argument("--check", action="store_true", help="errors on machines not fitted")
    parser.add_argument("--fit", action="store_true", help="synthesise and fit anew, then check")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
