"""``make machine``: every knob of a machine, with what it means and may be.

Prints a file that ``CONFIG`` takes, to change and to keep, or writes it to ``--out``; with
``--schema`` the JSON schema of such files, with which editors complete and check them.
"""

import json
import sys
from pathlib import Path

from golden.command import Parser, exit_code
from golden.errors import InputError
from hw.config import MACHINES, preset
from hw.knobs import written

__all__ = ["main", "text_of"]


def text_of(config):
    """The file that describes a machine, whole."""
    lanes   = " + ".join(str(unit.pixels * config.vector * unit.outputs)
                         for unit in config.units.values())
    changes = [f"# {knob}: {was} became {now}" for knob, was, now in config.changes]
    head    = [f"# {config.mac_lanes} MAC lanes ({lanes})."]
    if changes:
        head += [f"# Begun from {config.base}:", *changes]
    return "\n".join([*head, "", *written(config)]) + "\n"


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments)


def _command(arguments):
    options = _parse(arguments)
    if options.schema:
        text = json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema",
                           "title": "A machine of Attune", **MACHINES.schema()}, indent=2) + "\n"
    else:
        text = text_of(preset(options.config, dram=options.dram, protection=options.protection,
                              changes=options.set))
    if not options.out:
        print(text, end="")
        return
    file = Path(options.out)
    if file.exists():
        raise InputError(f"{options.out} exists already; name another file")
    file.write_text(text)
    print(f"written to {options.out}")


def _parse(arguments):
    parser = Parser("hw.machine", __doc__)
    parser.add_argument("--config", default="reference")
    for name in ("set", "dram", "protection", "out"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--schema", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
