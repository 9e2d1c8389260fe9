"""``make page``: the page of a run that is done, made again from its folder."""

import sys

from golden.command import Parser, exit_code
from sim.page.build import write_page


def main(arguments):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments)


def _command(arguments):
    print(write_page(_parse(arguments).run))


def _parse(arguments):
    parser = Parser("sim.page", __doc__)
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
