"""``make verilog``: the chip as one Verilog file for other people's designs, ``--config FILE``.

Its ports are AXI4, AXI4-Lite and AXI4-Stream, named as vendors name them (:mod:`hw.ip.top`). Beside
it: ``component.xml`` (IP-XACT) for a block design, constraints for Vivado (``.xdc``) and Quartus
(``.sdc``), the lint rules that generated text breaks, by name (``.vlt``, for ``verilator -Wall``),
and the machine, so that ``make sim CONFIG=`` runs what was written.
"""

import re
import sys

from golden.command import Parser, exit_code, make_console
from golden.folders import Fresh
from hw.config import PRESETS, preset

__all__ = ["WAIVED", "main", "module_name", "write"]

FILES  = ("*.v", "*.vlt", "component.xml", "constraints.xdc", "constraints.sdc", "machine.toml")
WAIVED = {
    "DECLFILENAME":   "all modules are in one file",
    "CASEINCOMPLETE": "a state machine keeps its state in states that it has not",
    "CMPCONST":       "a comparison that this machine's sizes decide",
    "PROCASSINIT":    "registers have initial values, as FPGAs give them, and are reset as well",
    "SYMRSVDWORD":    "a name that is a word of C++",
    "UNUSEDSIGNAL":   "bits and taps that this machine does not need; synthesis removes them",
    "VARHIDDEN":      "a signal named as the block that drives it",
    "WIDTHEXPAND":    "Verilog extends an operand as it is meant",
    "WIDTHTRUNC":     "!x of several bits says that all are 0",
}
"""Rules of Verilator that the text breaks, each with the reason."""


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments)


def module_name(config):
    """The name of the module of a machine."""
    return "attune_" + re.sub(r"\W", "_", config.name)


def write(config, folder):
    """Write all files of a machine into ``folder``."""
    from hw.ip.component import component
    from hw.ip.top import Ip
    from hw.machine import text_of
    from hw.verilog import export

    ip, name = Ip(config), module_name(config)
    period   = 1e3 / config.clock_mhz
    (folder / f"{name}.v").write_text(export(ip, name=name, simulated=False))
    (folder / f"{name}.vlt").write_text("`verilator_config\n" + "".join(
        f"// {reason}\nlint_off -rule {rule} -file \"*{name}.v\"\n"
        for rule, reason in WAIVED.items()))
    (folder / "component.xml").write_text(component(ip, name, f"{name}.v", "constraints.xdc"))
    for suffix, extra in ((".xdc", ""), (".sdc", "derive_clock_uncertainty\n")):
        (folder / f"constraints{suffix}").write_text(
            f"# A template: all of {name} runs on one clock. In a block design its source has a "
            "constraint\n# already; then leave this one out.\n"
            f"create_clock -name aclk -period {period:.3f} [get_ports aclk]\n{extra}")
    (folder / "machine.toml").write_text(text_of(config))


def _command(arguments):
    options, console = _parse(arguments), make_console()
    config = preset(options.config, changes=options.set)
    place  = Fresh(options.out or f"reports/verilog-{config.name}", FILES)
    with place as out, console.status(f"elaborating {config.name}"):
        write(config, out)
    console.print(f"{place.place}: {module_name(config)}.v, component.xml", soft_wrap=True)


def _parse(arguments):
    parser = Parser("hw.ip", __doc__)
    parser.add_argument("--config", default="reference",
                        help=f"one of {', '.join(PRESETS)}, or a file")
    parser.add_argument("--set", help="knobs to change, NAME=value with blanks between")
    parser.add_argument("--out", help="folder to write to")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
