"""``make page``: the page of a run that is done, made again from its folder."""

import sys

from golden.command import exit_code
from golden.errors import InputError
from sim.page.build import write_page


def main(arguments):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments)


def _command(arguments):
    if len(arguments) != 1:
        raise InputError("Name one folder of a run, such as reports/latest")
    print(write_page(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
