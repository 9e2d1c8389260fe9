"""``make bench``: models on presets with off-chip timings, beside the same network on this CPU.

Every combination is one run of the machine as ``make sim`` does it, kept in a folder of its own and
taken from there while sources, weights, images and options are those of then. Frames are small
(``SIZES``) unless a size or the full one is asked for. No figure appears of a run that is not
bit-exact. A combination that cannot run is a row that says
why. The table goes to the terminal and to ``benchmark.md``, ``.csv`` and ``.html``, anew after
every run, so that an interrupted benchmark leaves what it has. Exit code 0: every combination that
can run did, bit-exact; 1: one was not exact, or failed; 2: nothing was done, and one line says why.
"""

import csv
import hashlib
import io
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path

import torch
from rich.table import Table

from golden import places
from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from golden.folders import Fresh
from golden.images import PHANTOM, read_truth
from golden.names import NETWORKS, named_images
from golden.networks import MODELS, int8_bytes, macs
from hw.compiler import CompileError
from hw.config import DRAMS, PRESETS, preset, usual_shape
from hw.knobs import written
from hw.machine_file import is_path
from sim import run as machine
from sim.baseline import CORE_WATTS, ENGINES, measure
from sim.clips import read_clip
from sim.environment import environment
from sim.errors import SimulationError
from sim.measured import read_json, read_report, refusal
from sim.page.words import CAUSES, CLASSES
from sim.pages import render

__all__ = ["COLUMNS", "Combination", "Row", "combinations", "figures_of", "main"]

OWN      = "own"            # the off-chip timing that a preset brings
ALL      = "all"
SMALL    = 64                # pixels; full frames of all take a day
SIZES    = {"tiny": 32}
SOURCES  = (".py", ".v", ".cpp", ".hpp", ".toml", ".safetensors")
PACKAGES = ("golden", "hw", "sim")
BUSY     = 0.75             # load average per core from which times of the CPU are doubtful
SPEED    = 400_000          # cycles simulated per second, about, to tell the time left
EXTRA    = 8                # seconds of a run but for its cycles
BUILD    = 45               # seconds to build a machine
UNITS    = ("encoder", "attention", "decoder")


@dataclass(frozen=True)
class Combination:
    """What one row measures; ``dram`` None is the preset's own timing."""
    model:  str
    config: str
    dram:   str = None
    size:   int = None
    width:  int = None
    frames: int = 1
    image:  str = "phantom:7"

    @property
    def name(self):
        return f"{self.model}-{self.machine.name}-{self.machine.dram.name}"

    @property
    def machine(self):
        """The :class:`hw.config.Config`."""
        return preset(self.config, dram=self.dram)

    @property
    def options(self):
        """Of :func:`sim.run.run`, but for where it writes."""
        return machine.Options(model=self.model, config=self.config, dram=self.dram, size=self.size,
                               width=self.width, frames=self.frames, image=self.image)


@dataclass
class Row:
    """A combination and what came of it.

    ``status`` is ``measured``, ``not bit-exact``, ``cannot run`` or ``failed``; all but the first
    have a ``reason`` and no figures. ``figures`` are by key of :data:`COLUMNS`.
    """
    combination: Combination
    status:      str
    reason:      str = ""
    report:      dict = None
    figures:     dict = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """A figure of the table. ``text`` formats it for people; ``group`` is one of :data:`GROUPS`;
    a ``narrow`` terminal goes without some."""
    key:    str
    title:  str
    text:   str
    group:  str = "machine"
    narrow: bool = True

    def show(self, row):
        value = row.figures.get(self.key)
        return "" if value is None else self.text.format(value).replace(",", " ")


GROUPS = {
    "machine": ("The machine", "MAC: multiply-accumulate. IPC: vector instructions per cycle."),
    "model":   ("The exact cycle model",
                ("Counters: those of which hardware and model differ. Seconds of a processor; "
                 "faster: the RTL's over the model's.")),
    "masks":   ("Masks", "Dice: twice the common area of two masks over the sum of their areas."),
    "cpu":     ("Beside this CPU", "Machine / CPU: frames per second, one over the other."),
    "energy":  ("Energy of a frame",
                ("From and to, in mJ: what the machine counted times published energies, as if in "
                 "45 nm, with its off-chip memory; of the CPU the seconds of its cores times "
                 f"{CORE_WATTS[0]:.1f} to {CORE_WATTS[1]:.1f} W, without its memory.")),
}
"""Group of columns -> its title, and what its words mean."""

COLUMNS = (
    Column("size",             "size",                   "{}"),
    Column("frames",           "frames",                 "{}", narrow=False),
    Column("mac_lanes",        "MAC lanes",              "{:,}", narrow=False),
    Column("clock_mhz",        "clock, MHz",             "{:g}", narrow=False),
    Column("cycles",           "cycles",                 "{:,}"),
    Column("time_ms",          "time, ms",               "{:,.3f}"),
    Column("latency",          "latency, cycles",        "{:,}", narrow=False),
    Column("interval",         "interval, cycles",       "{:,.0f}", narrow=False),
    Column("fps",              "frames/s",               "{:,.2f}"),
    Column("utilization",      "MAC use, one frame",     "{:.1%}"),
    Column("steady",           "MAC use, steady",        "{:.1%}"),
    Column("traffic_ratio",    "off-chip / compulsory",  "{:.2f}"),
    Column("ipc",              "IPC",                    "{:.3f}"),
    Column("cpi",              "CPI",                    "{:.3f}"),
    Column("model_cycles",     "cycles",                 "{:,}", "model"),
    Column("model_differs",    "counters",               "{}", "model"),
    Column("rtl_s",            "RTL, s",                 "{:,.1f}", "model"),
    Column("model_s",          "model, s",               "{:,.3f}", "model"),
    Column("model_faster",     "times faster",           "{:,.0f}", "model"),
    Column("dice_float",       "Dice to float",          "{:.4f}", "masks"),
    Column("dice_truth",       "Dice to truth",          "{:.4f}", "masks"),
    Column("dice_truth_float", "float's Dice to truth",  "{:.4f}", "masks"),
    *(Column(f"{name}_ms", f"{title}, ms", "{:,.2f}", "cpu") for name, title in ENGINES.items()),
    *(Column(f"{name}_ratio", f"machine / {title}", "{:,.3f}", "cpu")
      for name, title in ENGINES.items()),
    Column("energy_low",     "machine, from",                     "{:,.3g}", "energy"),
    Column("energy_high",    "to",                                "{:,.3g}", "energy"),
    Column("onnx_int8_low",  f"{ENGINES['onnx_int8']}, from",     "{:,.3g}", "energy"),
    Column("onnx_int8_high", "to",                                "{:,.3g}", "energy"),
)


def combinations(options):
    """The combinations that the options ask for: models x presets x off-chip timings, all of each
    that is not named, but for variants of models.

    Raises
    ------
    InputError
        If a name is unknown.
    """
    models  = _names(options.models or ALL, MODELS, "model", every=NETWORKS)
    configs = _names(options.configs or ALL, PRESETS, "machine")
    drams   = _names(options.drams or ALL, DRAMS.files, "off-chip memory", also=(OWN,))
    chosen  = [Combination(model, config, None if dram == OWN else dram,
                           size=options.size or (None if options.full else
                                                 SIZES.get(config, SMALL)),
                           width=options.width, frames=options.frames, image=options.image)
               for model in models for config in configs for dram in drams]
    for combination in chosen:
        _ = combination.machine     # files are read before anything is measured
    return chosen


def _names(given, known, what, also=(), every=None):
    names = [name.strip() for name in given.split(",") if name.strip()]
    if names == [ALL]:
        return list(every or known)
    for name in names:
        if name not in known and name not in also and (what == "model" or not is_path(name)):
            raise InputError(f"Unknown {what} {name!r}; known are "
                             f"{', '.join((*also, *known, ALL))}")
    return names


def figures_of(report):
    """Figures of a run by key of :data:`COLUMNS`; none if the run does not count.

    A network without trained weights makes masks that mean nothing: they have no Dice to truth.
    """
    if refusal(report):
        return {}
    mask, given = report["mask"], report.get("input", {})
    iou   = mask["iou_float"]
    model = report.get("cycle_model", {})
    energy = report.get("energy", {}).get("frame", {})
    rtl_s, model_s = report["simulation"].get("cpu_s"), model.get("cpu_s")
    return {
        "size":          given.get("size"),
        "frames":        report["frames"],
        "mac_lanes":     report["mac_lanes"],
        "clock_mhz":     report["clock"]["mhz"],
        "cycles":        report["cycles"]["total"],
        "time_ms":       report["execution_time_ms"],
        "latency":       report["cycles"]["latency"],
        "interval":      report["cycles"]["interval"],
        "fps":           report["frames_per_second"],
        "utilization":   report["mac_utilization"]["latency"],
        "steady":        report["mac_utilization"]["steady"],
        "traffic_ratio": report["traffic"]["offchip"]["ratio"],
        "energy_low":    energy.get("low"),
        "energy_high":   energy.get("high"),
        "ipc":           report["ipc"],
        "cpi":           report["cpi"],
        "model_cycles":  model.get("cycles"),
        "model_differs": len(model["differences"]) if model else None,
        "rtl_s":         rtl_s,
        "model_s":       model_s,
        "model_faster":  rtl_s / model_s if rtl_s and model_s else None,
        "dice_float":    2 * iou / (1 + iou),
        "dice_truth":    mask.get("dice_truth") if given.get("trained", True) else None,
    }


def row_of(combination, report):
    """The row of a run that is over: with figures, or the reason why it has none."""
    reason = refusal(report)
    if reason:
        return Row(combination, "not bit-exact", reason)
    return Row(combination, "measured", "", report, figures_of(report))


def beside(row, baseline):
    """Add what the CPU takes for the same frame, and how many times as fast the machine is."""
    if row.status != "measured":
        return
    for name, millis in baseline.milliseconds.items():
        row.figures[f"{name}_ms"]    = millis
        row.figures[f"{name}_ratio"] = row.figures["fps"] * millis / 1e3
    row.figures |= zip(("onnx_int8_low", "onnx_int8_high"), baseline.int8_mj, strict=True)
    if row.figures["dice_truth"] is not None:
        row.figures["dice_truth_float"] = baseline.dice_truth


class Benchmark:
    """Runs the combinations one after another and keeps their rows."""

    def __init__(self, todo, out, console, *, reuse, repeats):
        self._todo, self._out, self._console, self._repeats = todo, Path(out), console, repeats
        self._sources  = fingerprint(todo[0].image)
        self._kept     = [reuse and self._is_kept(one) for one in todo]
        self._effort   = _efforts(todo, self._kept)
        self._spent    = 0.0        # seconds on what was simulated in this benchmark
        self.baselines = {}
        self.rows      = []

    def run(self):
        """All of them; the files are written anew after each."""
        if any(self._kept):
            self._console.print(f"{sum(self._kept)} of {len(self._todo)} were measured before, "
                                "with the same sources and inputs; REUSE=0 measures them again")
        for index, combination in enumerate(self._todo):
            self._console.print(f"[bold]{index + 1} of {len(self._todo)}[/]  {combination.name}"
                                f"{self._left(index)}")
            start = time.monotonic()
            row   = self._row(combination, self._kept[index])
            if row.status == "measured":
                self._compare_with_cpu(row)
                self._console.print(f"  bit-exact, {row.figures['cycles']} cycles, "
                                    f"{row.figures['time_ms']:.3f} ms")
            else:
                self._console.print(f"  {row.status}: {row.reason}", soft_wrap=True)
            self._spent += 0 if self._kept[index] else time.monotonic() - start
            self.rows.append(row)
            write(self._out, self.rows, self.baselines)

    def _folder(self, combination):
        return self._out / "runs" / combination.name

    def _inputs(self, combination):
        return {**asdict(combination), "sources": self._sources,
                "machine": written(combination.machine, comments=False)}

    def _is_kept(self, combination):
        folder = self._folder(combination)
        try:
            return read_json(folder / "inputs.json") == self._inputs(combination) \
                and (folder / "report.json").exists()
        except InputError:
            return False

    def _row(self, combination, kept):
        folder = self._folder(combination)
        if kept:
            return row_of(combination, read_report(folder))
        (folder / "inputs.json").unlink(missing_ok=True)
        try:
            report = machine.run(replace(combination.options, out=str(folder)), self._console,
                                 brief=True)
        except (CompileError, InputError) as error:
            return Row(combination, "cannot run", str(error))
        except SimulationError as error:
            return Row(combination, "failed", str(error))
        (folder / "inputs.json").write_text(json.dumps(self._inputs(combination), indent=2) + "\n")
        return row_of(combination, report)

    def _compare_with_cpu(self, row):
        combination = row.combination
        size, width = (row.report["input"].get(key) for key in ("size", "width"))
        if width is None:
            raise InputError(f"{str(self._folder(combination))!r} holds a report without its "
                             "network's width; REUSE=0 measures it again")
        key = combination.model, size, width
        if key not in self.baselines:
            with self._console.status(f"{combination.model} on this CPU, {size} x {size}"):
                frame = read_clip(combination.image, 1, size)[0]
                truth = read_truth(frame[0], size) > 127 if frame[0].startswith(PHANTOM) else None
                self.baselines[key] = measure(*key, frame[1], truth, repeats=self._repeats)
        beside(row, self.baselines[key])

    def _left(self, index):
        done = sum(self._effort[:index])
        left = sum(self._effort[index:]) * (self._spent / done if done else 1)
        return f"   about {left / 60:.0f} min left" if left >= 60 else f"   about {left:.0f} s left"


def _efforts(todo, kept):
    """About how many seconds each combination takes; a machine is built for the first that wants
    it."""
    seconds, machines = [], set()
    for combination, known in zip(todo, kept, strict=True):
        cycles = 0 if known else _cycles(combination)
        built  = combination.machine.structure      # all off-chip memories share it
        seconds.append(cycles / SPEED + EXTRA + BUILD * (built not in machines) if cycles else 0)
        machines |= {built} if cycles else set()
    return seconds


def _cycles(combination):
    """About how many cycles a combination simulates; 0 if it has no network."""
    config      = combination.machine
    size, width = _usual(combination)
    try:
        with torch.device("meta"):
            network = MODELS[combination.model](size=combination.size or size,
                                                width=combination.width or width)
    except InputError:
        return 0
    loads = int8_bytes(network) / config.timing.bus_bytes_per_cycle
    return combination.frames * (2 * sum(macs(network).values()) / config.mac_lanes + loads)


def _usual(combination):
    return usual_shape(combination.model, combination.machine)


def fingerprint(image):
    """A hash of everything that the figures of a run may depend on: sources, weights, images."""
    digest = hashlib.sha256()
    files  = [path for package in PACKAGES for path in sorted((places.ROOT / package).rglob("*"))
              if path.suffix in SOURCES]
    for part in named_images(image):
        path   = Path(part)
        files += sorted(path.iterdir()) if path.is_dir() else [path]
    for path in files:
        if path.is_file():
            digest.update(f"{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def write(out, rows, baselines):
    """The table as Markdown, CSV and HTML."""
    facts = facts_of(rows, baselines)
    machines = machines_of(rows)
    bars, quarter = speeds(machines)
    page = render(
        "benchmark.html.j2", rows=rows, facts=facts, causes=CAUSES, classes=CLASSES, units=UNITS,
        groups=[(*GROUPS[group], columns_of(group, rows)) for group in GROUPS], machines=machines,
        others=_together([row for row in rows if not row.figures]), speeds=bars, quarter=quarter)
    with Fresh(out, (), shared=True) as folder:
        (folder / "benchmark.md").write_text(markdown(rows, facts))
        (folder / "benchmark.csv").write_text(as_csv(rows))
        (folder / "benchmark.html").write_text(page)


def facts_of(rows, baselines):
    """Lines about where and how it was measured."""
    cpu   = environment("verilator")["machine"]
    facts = [f"CPU: {cpu['processor']}, {cpu['cores']} cores; best of several single frames."]
    loads = [baseline.load for baseline in baselines.values()]
    if loads and max(loads) > BUSY * cpu["cores"]:
        facts.append(f"The CPU was busy with other work when it was measured: load average "
                     f"{max(loads):.1f} on {cpu['cores']} cores, so its times are too long.")
    if any(row.combination.size not in (None, _usual(row.combination)[0]) for row in rows):
        facts.append("Frames are smaller than those the networks are made for, so that all of them "
                     "take minutes; FULL=1 takes full ones.")
    if any(row.figures and not row.report.get("input", {}).get("trained", True) for row in rows):
        facts.append("Networks without trained weights have no Dice to truth.")
    facts.append("A machine's time is cycles / configured clock.")
    return facts


def columns_of(group, rows):
    """Columns of a group that have a figure in some row."""
    return [column for column in COLUMNS
            if column.group == group and any(column.show(row) for row in rows)]


def machines_of(rows):
    """Rows with figures, those of one model on one preset together: they differ in their off-chip
    timing only."""
    return _together([row for row in rows if row.figures])


def _together(rows):
    return [list(group) for _, group in groupby(rows, key=lambda row: (
        row.combination.model, row.combination.config, row.status, row.reason))]


def speeds(groups):
    """Bars of frames per second on one logarithmic scale, and the factor of a quarter of it.

    [(name, frames per second, share of the scale), ..] of every group of :func:`machines_of`: the
    machine with each off-chip timing, then the CPU.
    """
    bars = []
    for rows in groups:
        cpu = [(title, 1e3 / rows[0].figures[f"{name}_ms"]) for name, title in ENGINES.items()
               if f"{name}_ms" in rows[0].figures]
        bars.append([*((_names_of(row)[2], row.figures["fps"]) for row in rows), *cpu])
    values  = [fps for group in bars for _, fps in group]
    least   = min(values, default=1) / 2
    decades = math.log(max(values, default=1) / least)
    return [[(name, fps, math.log(fps / least) / decades) for name, fps in group]
            for group in bars], math.exp(decades / 4)


def markdown(rows, facts):
    """The table as Markdown: the machine, the CPU beside it, and what could not be measured."""
    lines = ["# Benchmark", ""]
    for group, (title, note) in GROUPS.items():
        columns = columns_of(group, rows)
        lines += [f"## {title}", "", note, "",
                  "| model | machine | off-chip | "
                  + " | ".join(column.title for column in columns) + " |",
                  "| --- | --- | --- | " + " | ".join("---:" for _ in columns) + " |"]
        lines += [f"| {' | '.join(_names_of(row))} | "
                  + " | ".join(column.show(row) for column in columns) + " |"
                  for row in rows if row.figures]
        lines.append("")
    others = [row for row in rows if not row.figures]
    if others:
        lines += ["## Without figures", "", "| model | machine | off-chip | | why |",
                  "| --- | --- | --- | --- | --- |",
                  *(f"| {' | '.join(_names_of(row))} | {row.status} | {row.reason} |"
                    for row in others), ""]
    return "\n".join([*lines, *(f"- {fact}" for fact in facts), ""])


def as_csv(rows):
    """The table as CSV: figures in full, an empty cell where there is none."""
    text   = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "config", "dram", "status", "reason",
                     *(column.key for column in COLUMNS)])
    for row in rows:
        writer.writerow([*_names_of(row), row.status, row.reason,
                         *(row.figures.get(column.key) for column in COLUMNS)])
    return text.getvalue()


def print_table(console, rows, facts):
    """The tables on the terminal, and why rows have no figures."""
    measured = [row for row in rows if row.figures]
    for group, (title, note) in GROUPS.items():
        columns = [column for column in columns_of(group, rows) if column.narrow]
        if not columns:
            continue
        table = Table(box=None, header_style="bold", title=f"{title}. {note}", title_justify="left",
                      padding=(0, 1, 0, 0))
        for name in ("model", "machine", "off-chip"):
            table.add_column(name, no_wrap=True)
        for column in columns:
            table.add_column(column.title, justify="right",
                             min_width=max(len(column.show(row)) for row in measured))
        for row in measured:
            table.add_row(*_names_of(row), *(column.show(row) for column in columns))
        console.print(table)
    for row in rows:
        if row.reason:
            console.print(f"  {row.combination.name}: {row.status}: {row.reason}", soft_wrap=True)
    for fact in facts:
        console.print(f"  {fact}", soft_wrap=True, style="dim")


def _names_of(row):
    combination = row.combination
    return combination.model, combination.machine.name, combination.machine.dram.name


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments)


def _command(arguments):
    options, console = _parse(arguments), make_console()
    out       = Path(options.out or places.HOME / "reports" / "benchmark")
    benchmark = Benchmark(combinations(options), out, console, reuse=bool(options.reuse),
                          repeats=options.repeats)
    with Fresh(out / "runs", (), shared=True):
        pass                    # whether it can be written there
    try:
        benchmark.run()
    except KeyboardInterrupt:
        raise InputError("interrupted; the same command goes on from here") from None
    rows = benchmark.rows
    print_table(console, rows, facts_of(rows, benchmark.baselines))
    console.print("  written to " + ", ".join(str(out / f"benchmark.{kind}")
                                              for kind in ("md", "csv", "html")), soft_wrap=True)
    return int(any(row.status in ("not bit-exact", "failed") for row in rows))


def _parse(arguments):
    parser = Parser("sim.benchmark", __doc__)
    for name, what in (("models", MODELS), ("configs", PRESETS), ("drams", DRAMS.files)):
        parser.add_argument(f"--{name}", default=ALL,
                            help=f"some of {', '.join(what)}, with commas; or all")
    parser.add_argument("--image", default=Combination.image)
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--size", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--out")
    parser.add_argument("--reuse", type=int, choices=(0, 1), default=1)
    parser.add_argument("--full", type=int, choices=(0, 1), default=0)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
