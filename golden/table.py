"""The networks in figures, next to the published table: `make models`.

    python -m golden.table [--markdown]
"""

import sys
from dataclasses import dataclass
from functools import cache

from rich.box import SIMPLE_HEAD
from rich.table import Table

from golden.command import Parser, exit_code, make_console
from golden.networks import (
    MODELS,
    float_bytes,
    int8_bytes,
    macs,
    parameters,
    peak_activation_bytes,
)

__all__ = ["COLUMNS", "PUBLISHED", "Row", "main", "markdown", "measure", "rows"]

COLUMNS = ("network", "frame", "params 10^6", "GMAC", "Gop", "float MB", "INT8 MB", "RAM MB",
           "accuracy float/INT8")
NOTES = """\
Gop: 2 x GMAC. MB: 10^6 bytes; float is 4 bytes a parameter, INT8 what the
integer graph holds. RAM: INT8 activations alive at once, layer by layer.
published: the table of the Lightweight Attention U-Net project; RAM is what its
profiler says of the quantised networks (of the float separable one: 33.6), and
accuracy is in per cent of pixels. It does not say which convolutions of the
separable network stayed dense: of the rules tried, the first of every encoder
block comes closest, which is elec4848-ds-published."""


@dataclass(frozen=True)
class Row:
    """One line of the table; what is not known is None. Sizes are in bytes."""
    name: str
    frame: int | None
    parameters: int | None
    macs: float
    operations: float
    float_bytes: float
    int8_bytes: float
    peak_bytes: float
    accuracy: tuple[float, float] | None = None

    def cells(self):
        """What stands in each of the columns."""
        return (
            self.name,
            "" if self.frame is None else str(self.frame),
            "" if self.parameters is None else f"{self.parameters / 1e6:.2f}",
            _figure(self.macs / 1e9, self.published),
            _figure(self.operations / 1e9, self.published),
            _figure(self.float_bytes / 1e6, self.published),
            _figure(self.int8_bytes / 1e6, self.published),
            _figure(self.peak_bytes / 1e6, self.published),
            "" if self.accuracy is None else "{:.2f}/{:.2f}".format(*self.accuracy),
        )

    @property
    def published(self):
        """Whether the row is quoted, not measured."""
        return self.frame is None


PUBLISHED = {
    "elec4848": Row("  published", None, None, 14.6e9, 29.2e9, 42.9e6, 11.1e6, 13.7e6,
                    accuracy=(94.78, 93.56)),
    "elec4848-ds-published": Row("  published", None, None, 2.9e9, 5.8e9, 10.7e6, 3.0e6, 13.7e6,
                                 accuracy=(91.82, 91.82)),
}


def measure(name, network):
    """The row of a float network, counted."""
    total = sum(macs(network).values())
    return Row(name, network.size, parameters(network), total, 2 * total, float_bytes(network),
               int8_bytes(network), peak_activation_bytes(network))


@cache
def rows():
    """Every network at its source's size and width, followed by what the Lightweight Attention
    U-Net project published of the same or nearly the same."""
    lines = []
    for name, make in MODELS.items():
        network = make()
        if network.classes:         # as the network without them, but for its last layer
            continue
        lines.append(measure(name, network))
        if name in PUBLISHED:
            lines.append(PUBLISHED[name])
    return tuple(lines)


def markdown():
    """The table as Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |",
             "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    lines += ["| " + " | ".join(cell.strip() for cell in row.cells()) + " |" for row in rows()]
    return "\n".join([*lines, "", NOTES])


def _figure(value, published):
    """Published figures keep the one digit that they came with."""
    return f"{value:.1f}" if published else f"{value:.2f}"


def main(arguments=None, console=None):
    """The command line; returns the exit code."""
    return exit_code(lambda words: _command(words, console), arguments)


def _command(arguments, console):
    if _parse(arguments).markdown:
        print(markdown())
        return
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=0)      # fits 80 columns
    for column in COLUMNS:
        table.add_column(column.replace(" ", "\n"), justify="right" if table.columns else "left",
                         no_wrap=True)
    for row in rows():
        table.add_row(*row.cells(), style="dim italic" if row.published else None)
    console = console or make_console()
    console.print(table)
    console.print(NOTES, style="dim", highlight=False)


def _parse(arguments):
    parser = Parser("golden.table", __doc__)
    parser.add_argument("--markdown", action="store_true", help="print Markdown, not a table")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
