"""Hostile runs: reports, traces and programs, as ``page``, ``compare``, ``wave``, ``bench`` and
``disasm`` read them back."""

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from golden import models
from hw import disasm
from hw.isa import Engine
from sim import benchmark, compare_runs, wave
from sim.baseline import ENGINES, Baseline
from sim.campaigns.hostile.cage import Wrong
from sim.campaigns.hostile.kind import Kind, door, must_accept
from sim.campaigns.hostile.mutations import damaged, twisted, written_badly
from sim.errors import SimulationError
from sim.page import __main__ as page

__all__ = ["RUNS"]

EVENTS   = 40           # of each kind, of a trace: a whole one would take long to damage
SCRIPT   = "<script>alert(1)</script>"
JSON     = re.compile(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', re.DOTALL)
AT       = ("mismatch", "error", "layer:d1", "layer:c1", "layer:no", "0", "1000", "²", "-1", "",
            "9" * 30, "9" * 5000, "layer:", "layer:g1_logit")
SETTINGS = {"config": ("tiny", "edge", "no"), "sim": ("verilator", "icarus", "x", None),
            "size": (16, 32, 0, -16, 17, 2**40, "16", None, 1.5), "width": (4, 0, -1, 2**30, "4"),
            "frames": (0, 1, 3, -1, 2**40, "2", 1.5, None), "dram": ("no", 7, "ddr3-1600", None),
            "image": ("phantom:7", "phantom:²", "/dev/zero", "", 7, None, "no.png", ["phantom:7"]),
            "model": ("elec4848", "no.onnx", "", 7, None, "x" * 5000, "unet-busi"),
            "max_cycles": (0, -1, "x", None, 2**70), "taps": ("x", None, 2), "trace": ("x", None),
            "out": (7, "/nowhere", None), "truth": (7, "/dev/zero", None), "extra": (1,)}


@dataclass(frozen=True)
class _Run:
    """What a run left, as values."""
    report:  dict
    trace:   dict
    program: bytes


def _corpus(run):
    """The report, the program, and of the trace some events of each kind."""
    trace = json.loads((run / "trace.json").read_text())
    kept, counts = [], {}
    for event in trace["traceEvents"]:
        key = event["ph"], event["name"]
        counts[key] = counts.get(key, 0) + 1
        if event["ph"] == "M" or counts[key] <= (EVENTS if event["ph"] == "C" else 2):
            kept.append(event)
    return _Run(json.loads((run / "report.json").read_text()),
                {**trace, "traceEvents": kept}, (run / "program.bin").read_bytes())


def _hostile(random, value, good):
    return json.dumps(value).encode() if good else written_badly(random, (
        value if random.random() < 0.05 else twisted(random, value)))


def _demand_text(text):
    """No markup of a report's strings gets into a page as markup, and its data are JSON."""
    if SCRIPT in text:
        raise Wrong("a script from the report is in the page")

    def refuse(word):
        raise Wrong(f"{word} among the data of the page")
    for data in JSON.findall(text):
        json.loads(data, parse_constant=refuse)


def _page(random, corpus, folder):
    """A page of a report or a trace that is not what a run wrote."""
    place = folder / "out" / "run"
    place.mkdir(parents=True)
    good, of_trace = random.random() < 0.04, random.random() < 0.4
    (place / "report.json").write_bytes(_hostile(random, corpus.report, good or of_trace))
    if of_trace or random.random() < 0.2:
        (place / "trace.json").write_bytes(_hostile(random, corpus.trace, good or not of_trace))
    if not good and random.random() < 0.1:
        name = random.choice(("input.png", "overlay.gif", "alpha1-hardware.png", "trace.json",
                              "report.json", "report.html"))
        (place / name).unlink(missing_ok=True)
        (place / name).mkdir()
    (place / "mask-golden.png").write_bytes(random.randbytes(30))

    def read():
        code = page.main([str(place)])
        if code == 0:
            _demand_text((place / "report.html").read_text())
        return code
    return must_accept(read) if good else read


def _compare(random, corpus, folder):
    reports = [corpus.report, corpus.report]
    good = random.random() < 0.04
    for index in range(2):
        home = folder / "in" / "ab"[index]
        home.mkdir()
        blob = _hostile(random, reports[index], good or index != random.randrange(2))
        (home / "report.json").write_bytes(blob)
    paths = [str(folder / "in" / name) for name in "ab"]
    if not good and random.random() < 0.1:
        paths[random.randrange(2)] = random.choice((
            str(folder / "in"), "/dev/zero", "/dev/null", "/", "", "\0", "x" * 5000,
            f"{paths[0]}/report.json", f"{paths[0]}/report.json/x"))
    force = random.choice("01")

    def read():
        code = compare_runs.main(["--a", paths[0], "--b", paths[1], "--force", force, "--out",
                                  str(folder / "out" / "compare")])
        if code == 0:
            _demand_text((folder / "out" / "compare" / "compare.html").read_text())
            text = (folder / "out" / "compare" / "compare.md").read_text()
            if re.search(r"\b(nan|inf)\b", text.replace("info", "")):
                raise Wrong("a figure that is no number")
        return code
    return must_accept(read) if good else read


def _bench(random, corpus, folder):
    """A benchmark that goes on where a report of an earlier one was changed."""
    out  = folder / "out" / "bench"
    todo = benchmark.Combination("elec4848", "tiny", size=32)
    kept = out / "runs" / todo.name
    kept.mkdir(parents=True)
    good   = random.random() < 0.04
    inputs = {**benchmark.asdict(todo), "sources": "same"}
    whole  = good or random.random() < 0.8
    (kept / "inputs.json").write_bytes(_hostile(random, inputs, whole))
    (kept / "report.json").write_bytes(_hostile(random, corpus.report, good or not whole))

    def never(*_, **__):
        raise SimulationError("not simulated here")

    def read():
        benchmark.fingerprint = lambda image: "same"
        benchmark.machine.run = never
        benchmark.environment = lambda simulator: {"machine": {"processor": "one", "cores": 2}}
        benchmark.measure = lambda *_, **__: Baseline(dict.fromkeys(ENGINES, 1.0), 0.5, 2, 0.1)
        code = benchmark.main(["--models", "elec4848", "--configs", "tiny", "--drams", "own",
                               "--out", str(out)])
        if code == 0:
            _demand_text((out / "benchmark.html").read_text())
            for word in re.split(r"[,\s]", (out / "benchmark.csv").read_text()):
                if word in ("nan", "inf", "-inf"):
                    raise Wrong(f"{word} in the table")
        return code
    return must_accept(read) if good else read


def _wave(random, corpus, folder):
    """Settings, cycles and events that are to be shown again."""
    place = folder / "out" / "run"
    place.mkdir(parents=True)
    report, name = corpus.report, "report.json"
    if random.random() < 0.3:
        report = {"settings": report["settings"], "error": {"cycle": 500, "text": "it stopped"}}
        name   = "failed.json"
    at   = random.choice(AT)
    roll = random.random()
    if roll < 0.35:
        key    = random.choice(tuple(SETTINGS))
        report = {**report, "settings": {**report["settings"],
                                         key: random.choice(SETTINGS[key])}}
        (place / name).write_text(json.dumps(report))
    else:
        (place / name).write_bytes(_hostile(random, report, roll > 0.9))
    if random.random() < 0.7:
        (place / "trace.json").write_bytes(_hostile(random, corpus.trace, random.random() < 0.3))
    window = random.choice((2000,) * 20 + (1, 0, -1, 200_000, 2**40))
    again  = {**corpus.trace}

    def built(*_, **__):
        raise SimulationError("shown")

    def read():
        wave.build_machine = built
        wave.CACHE = folder / "tmp"
        wave._traced = lambda *_: (again, {"first_mismatch": None})
        with tempfile.TemporaryDirectory(dir=folder / "tmp") as cache:
            models.CACHE = Path(cache)
            try:
                wave.show(str(place), at, window=window, console=Console(quiet=True))
            except SimulationError as error:
                if str(error) != "shown":
                    raise
    return door(read)


def _program(random, corpus, folder):
    """A program to be printed."""
    path = folder / "in" / "program.bin"
    good = random.random() < 0.04
    blob = corpus.program if good else damaged(random, corpus.program, corpus.program[::-1])
    path.write_bytes(blob)
    more = [] if good else random.choice(([], [], [], ["--engine", "gate"], ["--engine", "no"],
                                          ["--at", "0"], ["--at", "0x40"], ["--at", "-1"],
                                          ["--at", str(2**70)], ["--at", "x"]))
    given = str(path)
    if not good and random.random() < 0.05:
        given = random.choice(("/dev/zero", "/nowhere", "/", "", "\0", "x" * 5000))

    def read():
        code = disasm.main([given, *more])
        if code == 0 and not more and given == str(path):
            lines = list(disasm.disassemble(blob))
            heads = [line for line in lines if line.endswith(" instructions")
                     and not line.startswith(" ")]
            if len(heads) != len(Engine):
                raise Wrong(f"{len(heads)} streams")
        return code
    return must_accept(read) if good else read


RUNS = (
    Kind("page",    _corpus, _page,    10),
    Kind("compare", _corpus, _compare, 8),
    Kind("bench",   _corpus, _bench,   5),
    Kind("wave",    _corpus, _wave,    3),
    Kind("program", _corpus, _program, 4),
)
