"""``make compare``: two runs of one network side by side, and what got better and worse.

Whole run, layers, stalls by engine and cause, and off-chip bytes by class, the largest effect
first, on the terminal, as Markdown and as one HTML file. Runs that are not bit-exact are refused,
and so are runs of different networks, unless forced: then what they share is compared. Cycles and
bytes are per frame. Exit code 0: compared; 2: refused, and one line says why.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from golden import places
from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from golden.folders import Fresh
from sim.measured import read_report, refusal
from sim.page.words import CAUSES, CLASSES, ENGINES
from sim.pages import render

__all__ = ["Change", "Comparison", "compare", "main"]

ROWS   = 12         # rows of a section on the terminal; the files have all
STALLS = ("dependency", "conflict", "offchip", "backpressure", "fill_drain")
SIGNS  = {"better": "▲", "worse": "▼", "same": "=", "neutral": "·"}
STYLES = {"better": "green", "worse": "red", "same": "dim", "neutral": ""}


@dataclass(frozen=True)
class Change:
    """One figure of both runs; None where a run does not have it.

    ``good`` is what is better: -1 less, 1 more, 0 neither. ``scale`` and ``digits`` are for people:
    a share is shown in per cent, and its change in percentage points.
    """
    name:   str
    before: float
    after:  float
    good:   int = -1
    digits: int = 0
    share:  bool = False

    @property
    def difference(self):
        return None if None in (self.before, self.after) else self.after - self.before

    @property
    def percent(self):
        """The difference in per cent of the first run; None if that is nothing."""
        return 100 * self.difference / self.before if self.difference is not None and self.before \
            else None

    @property
    def effect(self):
        """``same`` is what looks the same: a difference of no shown digit."""
        if self.difference is None or not self.good:
            return "neutral"
        return "same" if not round(self.difference * (100 if self.share else 1),
                                   1 if self.share else self.digits) else (
            "better" if self.difference * self.good > 0 else "worse")

    @property
    def texts(self):
        """First run, second run, difference, per cent: what every output shows."""
        difference = "" if self.difference is None else self._number(self.difference, signed=True)
        percent    = "" if self.percent is None or self.share else f"{self.percent:+.1f} %"
        return self._number(self.before), self._number(self.after), difference, percent

    def _number(self, value, signed=False):
        if value is None:
            return "–"
        sign = "+" if signed else ""
        if self.share:
            return f"{100 * value:{sign}.1f} {'points' if signed else '%'}"
        return f"{value:{sign},.{self.digits}f}".replace(",", " ")


@dataclass(frozen=True)
class LayerChange:
    """One layer: what it costs in both runs."""
    name:        str
    unit:        str
    cycles:      Change
    utilization: Change
    bytes:       Change


@dataclass(frozen=True)
class Comparison:
    """Everything about two runs; lists have the largest effect first.

    ``settings`` are (what, first run, second run) where these differ.
    """
    names:    tuple
    settings: list
    run:      list
    layers:   list
    engines:  list
    stalls:   list
    traffic:  list

    @property
    def sections(self):
        """(title, note, changes) of everything that is a plain list of figures."""
        return [
            ("Whole run", "MAC: multiply-accumulate. IPC: vector instructions a cycle.", self.run),
            ("Engines: cycles that wait", "All causes but issuing and no work, per frame.",
             self.engines),
            ("Stalls by cause", "Per frame, engine and cause.", self.stalls),
            ("Off-chip bytes by class", "Per frame.", self.traffic),
        ]

    @property
    def verdict(self):
        """The whole in one sentence."""
        time = next(change for change in self.run if change.name == "cycles per frame")
        if not time.difference:
            return "Both take the same cycles per frame."
        word = "fewer" if time.difference < 0 else "more"
        return (f"{self.names[1]} takes {abs(time.percent):.1f} % {word} cycles per frame than "
                f"{self.names[0]}.")


def compare(a, b, names=("A", "B"), *, force=False):
    """A :class:`Comparison` of two reports.

    Raises
    ------
    InputError
        If a run is not bit-exact, or the networks differ and ``force`` is not set.
    """
    for name, report in zip(names, (a, b), strict=True):
        reason = refusal(report)
        if reason:
            raise InputError(f"{name} is {reason}; only figures of correct runs are compared")
    if network(a) != network(b) and not force:
        raise InputError(f"{names[0]} ran {network(a)} and {names[1]} ran {network(b)}; compare "
                         "runs of one network, or set FORCE=1 to see what they share")
    return Comparison(names=tuple(names), settings=_settings(a, b), run=_run(a, b),
                      layers=_layers(a, b), engines=_engines(a, b), stalls=_stalls(a, b),
                      traffic=_traffic(a, b))


def network(report):
    """What a run computed, in words: what must be equal for its cycles to be comparable."""
    given = report.get("input", {})
    shape = ([f"at {given['size']} x {given.get('columns', given['size'])}"] if "size" in given
             else [])
    width = [f"width {given['width']}"] if given.get("width") is not None else []
    return ", ".join([" ".join([report["model"], *shape]), *width,
                      f"{report['macs']} MACs"])


def _settings(a, b):
    rows = {
        "network":          network,
        "machine":          lambda report: f"{report['config']}, {report['mac_lanes']} MAC lanes",
        "machine's changes": _changes,
        "clock":            lambda report: f"{report['clock']['mhz']:g} MHz",
        "off-chip timing":  lambda report: report["traffic"]["offchip"].get("memory", "unknown"),
        "frames":           lambda report: str(report["frames"]),
        "simulator":        lambda report: report["engine"],
    }
    return [(name, of(a), of(b)) for name, of in rows.items() if of(a) != of(b)]


def _changes(report):
    return "; ".join(f"{one['knob']} {one['is']}"
                     for one in report.get("machine", {}).get("changes", ())) or "none"


def _run(a, b):
    def both(name, of, **style):
        return Change(name, of(a), of(b), **style)

    def offchip(key):
        return lambda report: report["traffic"]["offchip"].get(key)

    changes = [
        both("cycles per frame", lambda r: r["cycles"]["total"] / r["frames"]),
        both("latency of the first frame, cycles", lambda r: r["cycles"]["latency"]),
        both("interval between frames, cycles", lambda r: r["cycles"]["interval"]),
        both("time per frame, ms", lambda r: r["execution_time_ms"] / r["frames"], digits=3),
        both("frames per second", lambda r: r["frames_per_second"], good=1, digits=2),
        both("MAC utilisation, one frame", lambda r: r["mac_utilization"]["latency"], good=1,
             share=True),
        both("MAC utilisation, steady state", lambda r: r["mac_utilization"]["steady"], good=1,
             share=True),
        both("IPC", lambda r: r["ipc"], good=1, digits=3),
        both("CPI", lambda r: r["cpi"], digits=3),
        both("vector instructions per frame", lambda r: r["instructions"]["vector"] / r["frames"]),
        both("macro instructions per frame", lambda r: r["instructions"]["macro"] / r["frames"]),
        both("off-chip bytes per frame", lambda r: _moved(r) / r["frames"]),
        both("off-chip bytes / compulsory", lambda r: _moved(r)
             / r["traffic"]["offchip"]["compulsory"], digits=3),
        both("row misses per frame", lambda r: None if offchip("row_misses")(r) is None
             else offchip("row_misses")(r) / r["frames"]),
        both("on-chip peak, bytes", lambda r: r["occupancy"]["onchip_peak"]),
    ]
    return [change for change in changes if (change.before, change.after) != (None, None)]


def _moved(report):
    return report["traffic"]["offchip"]["read"] + report["traffic"]["offchip"]["write"]


def _layers(a, b):
    found = [{(layer["unit"], layer["name"]): layer for layer in report["layers"]}
             for report in (a, b)]
    rows  = []
    for key in dict.fromkeys([*found[0], *found[1]]):
        pair = [layers.get(key) for layers in found]

        def both(field, pair=pair, **style):
            values = [layer and layer.get(field) for layer in pair]
            if not style.get("share"):
                values = [None if value is None else value / report["frames"]
                          for value, report in zip(values, (a, b), strict=True)]
            return Change(field, *values, **style)

        rows.append(LayerChange(key[1], key[0], both("cycles"),
                                both("mac_utilization", good=1, share=True),
                                both("offchip_bytes")))
    return sorted(rows, key=lambda row: (-abs(row.cycles.difference or 0),
                                         -abs(row.bytes.difference or 0)))


def _engines(a, b):
    return _ranked([Change(_engine(name), *(_waited(report, name, STALLS) for report in (a, b)))
                    for name in dict.fromkeys([*a["units"], *b["units"]])])


def _stalls(a, b):
    changes = [Change(f"{_engine(name)}: {CAUSES[cause][0]}",
                      *(_waited(report, name, [cause]) for report in (a, b)))
               for name in dict.fromkeys([*a["units"], *b["units"]]) for cause in STALLS]
    return [change for change in _ranked(changes) if change.before or change.after]


def _waited(report, name, causes):
    unit = report["units"].get(name)
    return unit and sum(unit["stack"].get(cause, 0) for cause in causes) / report["frames"]


def _traffic(a, b):
    classes = [report["traffic"]["offchip"]["classes"] for report in (a, b)]
    return _ranked([Change(CLASSES.get(kind, kind),
                           *(of.get(kind, 0) / report["frames"]
                             for of, report in zip(classes, (a, b), strict=True)))
                    for kind in dict.fromkeys([*classes[0], *classes[1]])])


def _engine(name):
    return next((members[name] for members in ENGINES.values() if name in members), name)


def _ranked(changes):
    return sorted(changes, key=lambda change: -abs(change.difference or 0))


def print_comparison(console, comparison):
    """Sections on the terminal, of the long ones the rows with most effect."""
    console.print(f"[bold]{comparison.verdict}[/]")
    for name, *values in comparison.settings:
        console.print(f"  {name:<16} {values[0]} -> {values[1]}", soft_wrap=True)
    for title, _, changes in comparison.sections:
        console.print(_table(title, comparison.names, changes))
        if title == "Whole run":
            console.print(_layer_table(comparison))


def _table(title, names, changes):
    table = Table(title, names[0], names[1], "change", "", "", box=None, header_style="bold")
    shown = (changes if title == "Whole run" else
             [change for change in changes if change.difference][:ROWS])
    for change in shown:
        first, second, difference, percent = change.texts
        style = STYLES[change.effect]
        table.add_row(change.name, first, second, Text(difference, style), Text(percent, style),
                      _word(change))
    if not shown:
        table.add_row("nothing changed")
    for column in table.columns[1:5]:
        column.justify = "right"
    return table


def _layer_table(comparison):
    table = Table("Layers, per frame", "unit", "cycles", "", "change", "", "utilisation", "",
                  "off-chip bytes", "", box=None, header_style="bold")
    shown = [row for row in comparison.layers
             if row.cycles.difference or row.bytes.difference][:ROWS]
    for row in shown:
        first, second, difference, percent = row.cycles.texts
        style = STYLES[row.cycles.effect]
        table.add_row(row.name, row.unit, first, second, Text(difference, style),
                      Text(percent, style), *row.utilization.texts[:2],
                      Text(row.bytes.texts[2], STYLES[row.bytes.effect]), _word(row.cycles))
    if not shown:
        table.add_row("nothing changed")
    for column in table.columns[2:9]:
        column.justify = "right"
    return table


def _word(change):
    word = "" if change.effect == "neutral" else f"{SIGNS[change.effect]} {change.effect}"
    return Text(word, STYLES[change.effect])


def markdown(comparison):
    """The whole as Markdown."""
    a, b  = comparison.names
    lines = [f"# {a} against {b}", "", comparison.verdict, ""]
    if comparison.settings:
        lines += [f"| | {a} | {b} |", "| --- | --- | --- |",
                  *(f"| {' | '.join(row)} |" for row in comparison.settings), ""]
    for title, note, changes in comparison.sections:
        lines += [f"## {title}", "", *([note, ""] if note else []),
                  f"| | {a} | {b} | change | % | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
        for change in changes:
            lines.append(f"| {change.name} | {' | '.join(change.texts)} | "
                         f"{SIGNS[change.effect]} {change.effect} |")
        lines.append("")
        if title == "Whole run":
            titles = ["layer", "unit", f"cycles {a}", b, "change", "%", f"MAC use {a}", b,
                      f"off-chip bytes {a}", b, "change", ""]
            lines += ["## Layers", "", "Per frame.", "", f"| {' | '.join(titles)} |",
                      "| --- | --- " + "| ---: " * 9 + "| --- |"]
            for row in comparison.layers:
                lines.append(" | ".join(
                    ["| " + row.name, row.unit, *row.cycles.texts, *row.utilization.texts[:2],
                     *row.bytes.texts[:3], f"{SIGNS[row.cycles.effect]} {row.cycles.effect} |"]))
            lines.append("")
    return "\n".join(lines)


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments)


def _command(arguments):
    options, console = _parse(arguments), make_console()
    folders = [Path(options.a), Path(options.b)]
    reports = [read_report(folder) for folder in folders]
    comparison = compare(*reports, _names(folders), force=bool(options.force))
    out = Path(options.out or places.HOME / "reports" / f"compare-{'-'.join(comparison.names)}")
    with Fresh(out, ("compare.md", "compare.html"), shared=True) as folder:
        (folder / "compare.md").write_text(markdown(comparison))
        (folder / "compare.html").write_text(render("compare_runs.html.j2", c=comparison,
                                                    signs=SIGNS))
    print_comparison(console, comparison)
    console.print(f"  written to       {out / 'compare.md'}, {out / 'compare.html'}",
                  soft_wrap=True)


def _names(folders):
    """Short names of the two runs, different from each other."""
    names = [(folder.parent if folder.is_file() else folder).resolve().name for folder in folders]
    return names if names[0] != names[1] else ["A", "B"]


def _parse(arguments):
    parser = Parser("sim.compare_runs", __doc__)
    for name in ("a", "b"):
        parser.add_argument(f"--{name}", required=True, help="folder of a run")
    parser.add_argument("--out", help="folder for compare.md and compare.html")
    parser.add_argument("--force", type=int, choices=(0, 1), default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
