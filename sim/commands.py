"""Every command, of ``make`` and of ``attune``: its program, and the variables that it takes.

The makefile asks ``guard`` before anything is installed or built, then ``run`` starts the program
with the variables as arguments: no shell sees their values. ``guard``, ``help`` and every refusal
need nothing but Python and the names that packages offer; of these, Amaranth for the machines'.
"""

import os
import re
import runpy
import shlex
import sys
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from textwrap import wrap

from golden.command import exit_code
from golden.errors import InputError
from golden.names import (
    CLIPPINGS,
    LOSSES,
    PARTS,
    PHANTOM,
    POOLINGS,
    SCHEDULES,
    TEACHER,
    VARIANTS,
    check_shape,
    demand_network,
    is_file,
    named_images,
    whole_side,
)
from golden.places import COMMAND, ROOT
from hw.boards import BOARDS
from sim.errors import SimulationError
from sim.names import FUZZ_ENGINES, RUN_ENGINES, SIMULATORS, demand_simulator

try:
    from hw.config import DRAMS, PRESETS, PROTECTIONS, preset
    from hw.machine_file import is_path
    from sim.explore.space_file import SHIPPED, read_space
    MEMORY_NAMES = tuple(DRAMS.files)
except ImportError:             # Amaranth is not installed yet; once it is, `run` looks again
    DRAMS, MEMORY_NAMES, PRESETS, PROTECTIONS, SHIPPED = None, *[("...",)] * 4

    def preset(*_, **__):
        """Nothing is known to be wrong."""

__all__ = ["SWITCH", "TARGETS", "VARIABLES", "WIDTH", "Target", "Variable", "arguments", "check_of",
           "given", "guard", "main", "meaning", "start", "wrapped"]

LATEST   = "reports/latest"
ANYWHERE = ("BASE", "PYTHON", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
"""Variables that every target takes: they are about the tools, not about what is done."""
NAME     = 13       # columns of a name in the help
WIDTH    = 80
ESCAPED  = re.compile(r"\\(.)|\$\$", re.DOTALL)


@dataclass(frozen=True)
class Variable:
    """What a variable means, and ``check(name, value)``, which refuses a value that is wrong;
    ``known`` of the check are values that it takes, if there are names for some."""
    text:  str
    check: object = None


@dataclass(frozen=True)
class Target:
    """A target of the makefile.

    ``module`` is its program, None where the makefile does it; ``takes`` are its variables with
    their defaults, None where there is none, and ``needs`` those that must be given. Each becomes
    ``--name=value``; one of ``flags`` becomes ``--name`` if it is 1, and ``place`` the only
    argument without a name. ``checks`` are in place of those of :data:`VARIABLES`. What works only
    in a ``checkout`` is no command of an installed package; ``pads`` if pictures may have any
    ``SIZE``.
    """
    text:   str
    module: str = None
    takes:  dict = field(default_factory=dict)
    needs:  tuple = ()
    flags:  tuple = ()
    place:  str = None
    checks: dict = field(default_factory=dict)
    checkout: bool = False
    pads:   bool = False


def _takes(text):
    """``A=1 B`` as ``{"A": "1", "B": None}``."""
    pairs = (word.partition("=") for word in text.split())
    return {name: value if equals else None for name, equals, value in pairs}


def _any(name, value):
    """Nothing is known to be wrong."""


def _whole(least):
    def check(name, value):
        if not (value.isascii() and value.isdigit() and int(value) >= least):
            raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return check


def _one_of(*known):
    def check(name, value):
        if value not in known:
            raise InputError(f"{name} must be {_or(known)}, not {value!r}")
    return _knows(*known)(check)


def _knows(*names):
    """``check.known`` of a check: names for values."""
    def mark(check):
        check.known = names
        return check
    return mark


def _number(name, value):
    try:
        float(value)
    except ValueError:
        raise InputError(f"{name} must be a number, not {value!r}") from None


@_knows("fit")
def _temperature(name, value):
    if value != "fit":
        _number(name, value)


def _some_of(known, also=()):
    def check(name, value):
        for one in value.split(","):
            if one.strip() not in (*known, *also):
                raise InputError(f"{name} takes some of {', '.join((*known, *also))}, with commas "
                                 f"between; not {one.strip()!r}")
    return _knows(*known, *also)(check)


@_knows(*POOLINGS)
def _network(name, value):
    demand_network(value)


@_knows(*POOLINGS, TEACHER)
def _learner(name, value):
    demand_network(value, TEACHER)


@_knows(*POOLINGS)
def _network_or_file(name, value):
    if not is_file(value):
        demand_network(value)
    elif not Path(value).is_file():
        raise InputError(f"No file {value!r}; {name} is the path of an ONNX file")


def _image(name, value):
    names = named_images(value)
    if not names:
        raise InputError("No image named; name a file, a folder, or phantom:7 for a synthetic one")
    for image in names:
        if not image.startswith(PHANTOM) and not Path(image).exists():
            raise InputError(f"No file {image!r}; name an image, or phantom:SEED for a synthetic "
                             "one")


def _exists(what):
    def check(name, value):
        if not Path(value).exists():
            raise InputError(f"No file {value!r}; {name} is {what}")
    return check


def _checkpoint(name, value):
    if not (ROOT / "golden/weights" / f"{value}.safetensors").is_file():
        _exists("a checkpoint, or shipped weights: elec4848-32")(name, value)


def _data(name, value):
    if value.partition(":")[0] != PHANTOM[:-1] and not Path(value).exists():
        raise InputError(f"No data at {value!r}; name a folder, a table (.csv), or phantom")


def _folder(name, value):
    if Path(value).is_file():
        raise InputError(f"{value!r} is a file; name a folder with {name}")


@_knows(*PRESETS)
def _preset(name, value):
    preset(value)


@_knows(*PRESETS)
def _presets(name, value):
    for one in value.split(","):
        preset(one.strip())


@_knows(*PRESETS)
def _machines(name, value):
    """Presets, files, and random machines."""
    try:
        from hw.arbitrary import arbitrary_machine, is_arbitrary
    except ImportError:
        return
    for one in map(str.strip, value.split(",")):
        (arbitrary_machine if is_arbitrary(one) else preset)(one)


def _some_files_of(known, load, also):
    """Some of the names ``known``, or paths that ``load`` can read."""
    some = _some_of(known, also)

    def check(name, value):
        for one in map(str.strip, value.split(",")):
            if DRAMS is not None and is_path(one):
                load(one)
            else:
                some(name, one)
    return _knows(*some.known)(check)


@_knows(*MEMORY_NAMES)
def _dram(name, value):
    if DRAMS is not None:
        DRAMS.load(value)


@_knows(*SHIPPED)
def _space(name, value):
    if DRAMS is not None:
        read_space(value)


@_knows(*SIMULATORS)
def _simulator(name, value):
    demand_simulator(value)


def _address(name, value):
    if not re.fullmatch(r"(tcp|tls|wss?)://[^\s:/]+:[0-9]{1,5}", value):
        raise InputError(f"{name} must be the address of a scheduler, such as tcp://10.0.0.1:8786, "
                         f"not {value!r}")


def _engine(name, value):
    if _engines():
        _one_of(*_engines())(name, value)


def _engines():
    """Names of the machine's engines, as far as they can be had: the layouts need Amaranth."""
    try:
        from hw.isa import Engine
    except ImportError:
        return ()
    return tuple(engine.name.lower() for engine in Engine)


def _or(names):
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


SWITCH   = _one_of("0", "1")
POSITIVE = _whole(1)

VARIABLES = {
    "A":          Variable("folder of a run"),
    "ADD":        Variable("folders of other campaigns, with commas, whose upsets count too"),
    "AGAIN":      Variable("1: prove again what was proved before", SWITCH),
    "ARGS":       Variable("further options of the program, as --help of it lists them"),
    "AT":         Variable("mismatch, error, layer:NAME or a cycle"),
    "B":          Variable("folder of another run"),
    "BATCH":      Variable("images per batch", POSITIVE),
    "BITS":       Variable("neighbouring bits that flip together", POSITIVE),
    "CERTIFY":    Variable("how many of the best machines run through the RTL, too", _whole(0)),
    "CHECK":      Variable("1: errors of the model on machines it was not fitted to", SWITCH),
    "CHECKPOINT": Variable(f"file that `{COMMAND} train` wrote, or shipped weights: elec4848-32",
                           _checkpoint),
    "CLAHE":      Variable("1: equalise images as ELEC4848 does", SWITCH),
    "CLIPPING":   Variable(f"where scales end: {_or(CLIPPINGS)}", _one_of(*CLIPPINGS)),
    "CONFIG":     Variable(f"the machine: {_or(PRESETS)}, or a file such as my.toml; of fuzz "
                           "several, with commas, also random:SEED", _preset),
    "CONFIGS":    Variable("machines, with commas, or all; also files",
                           _some_files_of(PRESETS, preset, ("all",))),
    "CROP":       Variable("side of what the network sees", POSITIVE),
    "CUT":        Variable("tensor at which the network is cut"),
    "BIT":        Variable("a bitstream, or the folder that it is in"),
    "BOARD":      Variable(_or(BOARDS), _one_of(*BOARDS)),
    "CALIBRATION": Variable("of a float file: folder of pictures such as the network will see, or "
                            "phantom:N", _data),
    "DATA":       Variable("folder as published, table (.csv), or phantom:N", _data),
    "DEPTH":      Variable("poolings of the random networks", POSITIVE),
    "DEVICE":     Variable("cpu or cuda", _one_of("cpu", "cuda")),
    "DRAM":       Variable(f"off-chip memory: {_or(MEMORY_NAMES)}, or a file; the machine's own "
                           "unless given", _dram),
    "DRAMS":      Variable("off-chip memories, with commas, or all, or own; also files",
                           _some_files_of(MEMORY_NAMES, lambda name: _dram("DRAMS", name),
                                          ("own", "all"))),
    "ENGINE":     Variable(f"of sim: {_or(RUN_ENGINES)}, of which model is the exact cycle model; "
                           f"of fuzz: {_or(FUZZ_ENGINES)}; of disasm: " + "{engines}", _engine),
    "EPOCHS":     Variable("how many, at most", POSITIVE),
    "FAST":       Variable("1: only what CI proves", SWITCH),
    "FIRST":      Variable("number of the first frame", _whole(0)),
    "FEATURE":    Variable("smallest feature of the process in um, for memories", _number),
    "FIT":        Variable("1: synthesise and fit anew, then check; an hour", SWITCH),
    "FLASH":      Variable("1: the board keeps it", SWITCH),
    "FOLD":       Variable("which of the FOLDS is the test part, from 1", POSITIVE),
    "FOLDS":      Variable("test parts that the data are dealt into, by related group", _whole(2)),
    "FORCE":      Variable("1: compare different networks", SWITCH),
    "FPS":        Variable("frames a second that come while the machine runs; unless given, all "
                           "lie in memory before", _number),
    "FRAMES":     Variable("frames of the stream; of hostile-bus, how many", POSITIVE),
    "FREEZE":     Variable("1: normalise by the calibration's statistics, not a frame's own",
                           SWITCH),
    "FULL":       Variable("1: frames of the networks' own size", SWITCH),
    "IMAGE":      Variable("image, folder, GIF, video, phantom:SEED, or several with commas",
                           _image),
    "JOBS":       Variable("processes at once", POSITIVE),
    "KINDS":      Variable("kinds of file, with commas, or all"),
    "LIBERTY":    Variable("file of standard cells [osu018, of qflow-tech-osu018]"),
    "LIST":       Variable("1: say in words what is proved, or of each test what became of it",
                           SWITCH),
    "LOSS":       Variable(_or(LOSSES), _one_of(*LOSSES)),
    "MARKDOWN":   Variable("1: print Markdown", SWITCH),
    "MODEL":      Variable(f"a network: {_or(POOLINGS)}; of sim and check-model also an ONNX file, "
                           "with CALIBRATION, and of quantise, a float one", _network),
    "MODELS":     Variable(f"networks, with commas, or all: all but {_or(VARIANTS)}",
                           _some_of(POOLINGS, ("all",))),
    "N":          Variable("how many", POSITIVE),
    "OF":         Variable("what has the faults: rtl, or python (compiler, integer arithmetic)",
                           _one_of("rtl", "python")),
    "ONLY":       Variable("part of the name of a property, test or block, or a pattern"),
    "OUT":        Variable("folder to write to; of export a file, of onnx either", _folder),
    "PART":       Variable(f"of the data: {_or(('all', *PARTS))}", _one_of("all", *PARTS)),
    "PEAK":       Variable("highest confidence, from 0.5 to 1, that a part of a mask must have to "
                           "stay; all stay unless given", _number),
    "PINS":       Variable("1: off-chip memory is an SDRAM at its pins, and its controller",
                           SWITCH),
    "PORT":       Variable("serial line of a board, such as /dev/ttyUSB0, with ENGINE=board"),
    "PROGRAM":    Variable("file of a program", _exists("the program.bin of a run")),
    "PYTEST":     Variable("arguments of pytest"),
    "PROTECTION": Variable(f"of memories: {_or(PROTECTIONS)}, or MEMORY=KIND with commas",
                           lambda name, value: preset(next(iter(PRESETS)), protection=value)),
    "PURE":       Variable("1: every layer by its own unit, even of a single frame", SWITCH),
    "RANDOM":     Variable("machines drawn by chance on top, to compare a search with", _whole(0)),
    "RATE":       Variable("of learning, at the start", _number),
    "REFEREE":    Variable("1: ask ONNX Runtime too; 0: do not", SWITCH),
    "RESUME":     Variable("1: go on with the run in OUT", SWITCH),
    "REUSE":      Variable("0: measure again what is known", SWITCH),
    "RUN":        Variable("folder of a run"),
    "SAMPLES":    Variable("frames with some of the superpixels hidden", POSITIVE),
    "SCHEDULER":  Variable("of a Dask cluster, such as tcp://host:8786; the cores of this computer "
                           "unless given", _address),
    "SCHEMA":     Variable("1: the JSON schema of such files, for editors", SWITCH),
    "SCHEDULE":   Variable(_or(SCHEDULES), _one_of(*SCHEDULES)),
    "SCORE":      Variable("per cent of the mutants that must be noticed", _whole(0)),
    "SEED":       Variable("of everything random", _whole(0)),
    "SEEDS":      Variable("of place-and-route; the fastest is kept", POSITIVE),
    "SET":        Variable("knobs of the machine to change, such as 'decoder.outputs=16 "
                           f"onchip_bytes=2MiB'; `{COMMAND} machine` lists them"),
    "SIDE":       Variable("of the largest frame", POSITIVE),
    "SIM":        Variable(f"the simulator: {_or(SIMULATORS)}",
                           _simulator),
    "SIZE":       Variable("side of a frame, in pixels; the network's own unless given, of tiny "
                           "32; of sim and check-model any, padded by the host", POSITIVE),
    "SKIP":       Variable("1: leave broken pairs out", SWITCH),
    "SPACE":      Variable(f"of machines: {_or(tuple(SHIPPED))}, or a file such as my.toml",
                           _space),
    "SPLIT":      Variable("a split.csv to use", _exists("a split.csv")),
    "START":      Variable("checkpoint to begin with, or shipped weights: elec4848-32"),
    "STRIDE":     Variable("pixels between positions of the window", POSITIVE),
    "SUPERPIXELS": Variable("about how many a frame is cut into", POSITIVE),
    "TAPS":       Variable("1: compare every tensor", SWITCH),
    "TEMPERATURE": Variable("number that divides the logits of a checkpoint, or fit: what suits "
                            "the validation part", _temperature),
    "TRACE":      Variable("1: write trace.json, too", SWITCH),
    "TRUTH":      Variable("file of the true mask", _exists("a mask")),
    "WIDEST":     Variable("filters of the widest layer", POSITIVE),
    "WIDTH":      Variable("filters of the first level; the network's own unless given", POSITIVE),
    "WINDOW":     Variable("cycles around the event; of explain, pixels", POSITIVE),
}

TARGETS = {
    "help": Target("list the commands, and what they take"),
    "sim": Target(
        "run the machine: every byte compared, every cycle explained", "sim.run",
        _takes("MODEL=elec4848 CONFIG=reference ENGINE=rtl SIM=verilator IMAGE=phantom:7 TRUTH "
               "FRAMES=1 TAPS=0 TRACE=0 PURE=0 PINS=0 PORT FPS SIZE WIDTH CALIBRATION FREEZE=0 "
               "DRAM PROTECTION SET OUT"),
        checks={"MODEL": _network_or_file, "ENGINE": _one_of(*RUN_ENGINES)}, pads=True),
    "check-model": Target(
        "whether a network runs, where, and at what cost", "hw.check",
        _takes("MODEL=elec4848 CONFIG=reference SET SIZE WIDTH CALIBRATION FREEZE=0 "
               "IMAGE=phantom:7 REFEREE=1"),
        flags=("FREEZE",), checks={"MODEL": _network_or_file}, pads=True),
    "quantise": Target(
        "a float ONNX file as ONNX QDQ, calibrated on pictures", "hw.quantise",
        _takes("MODEL CALIBRATION=phantom:16 SIZE FREEZE=0 OUT=reports"), needs=("MODEL",),
        flags=("FREEZE",), checks={"MODEL": _any, "OUT": _any}),
    "zoo": Target("public U-Nets: which run, how fast, or why not",
                  "hw.zoo", _takes("CONFIG=reference SET SIZE=64 OUT=reports/zoo")),
    "models": Target("the networks in figures, beside the published ones", "golden.table",
                     _takes("MARKDOWN=0"), flags=("MARKDOWN",)),
    "compare": Target("two runs side by side: what got better, what worse", "sim.compare_runs",
                      _takes("A B OUT FORCE=0"), needs=("A", "B")),
    "bench": Target(
        "models x presets x off-chip timings, beside this CPU", "sim.benchmark",
        _takes("MODELS=all CONFIGS=all DRAMS=all FRAMES=1 IMAGE=phantom:7 SIZE WIDTH FULL=0 "
               "OUT REUSE=1")),
    "page": Target("make report.html of a run again", "sim.page", _takes(f"RUN={LATEST}"),
                   place="RUN"),
    "wave": Target("waveforms around one event of a run", "sim.wave",
                   _takes(f"AT RUN={LATEST} WINDOW=2000"), needs=("AT",)),
    "disasm": Target("print a program as text", "hw.disasm",
                     _takes(f"PROGRAM={LATEST}/program.bin ENGINE"), place="PROGRAM"),
    "fuzz": Target(
        "random networks through every door, every tensor compared", "sim.campaigns.fuzz",
        _takes("N=200 SEED=0 CONFIG=tiny,edge ENGINE=rtl REFEREE=0 DEPTH WIDEST=48 SIDE=40 CUT"),
        checks={"CONFIG": _machines, "ENGINE": _one_of(*FUZZ_ENGINES)}),
    "hostile-code": Target(
        "spoiled programs on the chip: none may hang or write astray", "sim.campaigns.hostile_code",
        _takes("N=1000 SEED=0 SIM=verilator")),
    "hostile-bus": Target(
        "whole frames on a bus that does whatever AXI allows", "sim.campaigns.bus_campaign",
        _takes("FRAMES=500 SEED=0 FIRST=0 CONFIG=tiny,edge"), checks={"CONFIG": _presets}),
    "faults": Target(
        "bits flipped in whole frames: what each class of state does", "sim.campaigns.upsets",
        _takes("N=1000 SEED=0 BITS=1 CONFIG=tiny PROTECTION MODEL=elec4848 SIZE=16 WIDTH=4 "
               "IMAGE=phantom:7 ADD OUT")),
    "hostile": Target(
        "broken and malicious files through every door that reads files", "sim.campaigns.hostile",
        _takes("N=1000 SEED=0 KINDS=all JOBS=2 OUT=reports/hostile RUN")),
    "mutants": Target(
        "do the tests notice: small faults in RTL or Python",
        "sim.campaigns.mutants",
        _takes("N=1000 SEED=0 OF=rtl CONFIG=tiny SCORE=90 JOBS=2 OUT=reports/mutants"),
        checkout=True),
    "node-tests": Target("ONNX's own tests of single nodes: which run, and why not",
                         "sim.node_tests", _takes("ONLY CONFIG=tiny LIST=0"), flags=("LIST",)),
    "notebooks": Target("run the notebooks, and keep in them what they show", "sim.notebooks",
                        checkout=True),
    "prove": Target("prove what holds of the blocks in every cycle",
                    "hw.prove", _takes("ONLY FAST=0 LIST=0 AGAIN=0 OUT"),
                    flags=("FAST", "LIST", "AGAIN"), checks={"OUT": _any}),
    "synth": Target("map the chip to an ECP5 with Yosys, block by block", "hw.cost.synth",
                    _takes("CONFIG=edge SET")),
    "cost": Target("what a machine takes of an FPGA, by a model of its blocks", "hw.cost",
                   _takes("CONFIG=reference SET CHECK=0 FIT=0"), flags=("CHECK", "FIT")),
    "gates": Target("blocks in standard cells: area, longest path, power",
                    "hw.cost.gates", _takes("CONFIG=tiny SET LIBERTY FEATURE=0.18 ONLY")),
    "verilog": Target("the chip as one Verilog file with AXI ports, and IP-XACT", "hw.ip",
                      _takes("CONFIG=reference SET OUT")),
    "bitstream": Target(
        "a file that a board takes: synthesis, place-and-route, packing", "hw.boards.bitstream",
        _takes("BOARD=ulx3s CONFIG=hw/boards/ulx3s-small.toml SET SEEDS=1 OUT"), checkout=True),
    "program": Target("load a bitstream into a board", "hw.boards.program",
                      _takes("BIT BOARD=ulx3s FLASH=0"), needs=("BIT",), flags=("FLASH",)),
    "machine": Target("every knob of a machine, as a file to change and keep",
                      "hw.machine", _takes("CONFIG=reference SET DRAM PROTECTION SCHEMA=0 OUT"),
                      flags=("SCHEMA",), checks={"OUT": _any}),
    "explore": Target(
        "a space of machines: each to the cycle, and the best of them", "sim.explore",
        _takes("SPACE N=1000 SEED=0 RANDOM=0 JOBS SCHEDULER CERTIFY=0 OUT"), needs=("SPACE",)),
    "onnx": Target("write a network as ONNX QDQ, judged by ONNX Runtime", "golden.referee",
                   _takes("MODEL=elec4848 IMAGE=phantom:7 SIZE WIDTH OUT=reports"),
                   checks={"OUT": _any}),
    "train": Target(
        "train a network", "golden.train",
        _takes("MODEL=elec4848 DATA=phantom:600 OUT=runs/train EPOCHS=40 LOSS=bce+dice RATE=0.001 "
               "BATCH=8 SCHEDULE=plateau WIDTH SIZE CROP SEED=0 START SPLIT FOLDS FOLD "
               "DEVICE=cpu RESUME=0 SKIP=0 CLAHE=0 ARGS"), flags=("RESUME", "SKIP", "CLAHE"),
        checks={"MODEL": _learner}),
    "folds": Target(
        "train and test in several folds: means, and how sure they are", "golden.folds",
        _takes("MODEL=elec4848 DATA=phantom:600 OUT=runs/folds FOLDS=5 EPOCHS=40 LOSS=bce+dice "
               "RATE=0.001 BATCH=8 SCHEDULE=plateau WIDTH SIZE CROP SEED=0 START DEVICE=cpu SKIP=0 "
               "CLAHE=0 ARGS"), flags=("SKIP", "CLAHE")),
    "export": Target(
        "quantise a checkpoint into golden/weights, or OUT", "golden.export", checks={"OUT": _any},
        takes=_takes("CHECKPOINT=runs/train/best.pt MODEL WIDTH SIZE DATA=phantom SPLIT OUT SKIP=0 "
               "CLAHE=0 CLIPPING=min-max TEMPERATURE ARGS"), flags=("SKIP", "CLAHE")),
    "quantise-report": Target(
        "what INT8 costs each layer; other ways to calibrate", "golden.quantise_report",
        _takes("MODEL=elec4848 CHECKPOINT WIDTH SIZE DATA=phantom SPLIT N=8 "
               "OUT=reports/quantise-report SKIP=0 CLAHE=0"), flags=("SKIP", "CLAHE")),
    "evaluate": Target(
        "measure masks, float beside INT8", "golden.evaluate",
        _takes("MODEL=elec4848 DATA=phantom OUT=reports/evaluate PART=all CHECKPOINT WIDTH SIZE "
               "SPLIT FOLDS FOLD SKIP=0 CLAHE=0 TEMPERATURE PEAK ARGS"), flags=("SKIP", "CLAHE")),
    "explain": Target(
        "why the network decided so, on one sheet", "golden.explain",
        _takes("MODEL=elec4848 IMAGE=phantom:7 SIZE WIDTH TRUTH CHECKPOINT OUT WINDOW=50 "
               "STRIDE=30 SUPERPIXELS=60 SAMPLES=300 SEED=0")),
    "check":  Target("what CI runs: lint and test", takes=_takes("PYTEST")),
    "lint":   Target("ruff"),
    "test":   Target("every test but the slow one", takes=_takes("PYTEST")),
    "unit":   Target("of them: those in Amaranth's own simulator", takes=_takes("PYTEST")),
    "cosim":  Target("of them: the Verilog under Icarus and Verilator",
                     takes=_takes("PYTEST")),
    "stream": Target("the slow one: three full frames, steady state, some minutes"),
    "pins":   Target("write figures that became better into tests/sim/pins.json",
                     takes=_takes("PYTEST")),
    "setup":  Target("the virtual environment and the system's tools"),
    "clean":  Target("forget builds and caches; reports and .venv stay"),
}


def given(flags):
    """``{name: value}`` of the command line, from MAKEFLAGS, where make puts it with blanks,
    backslashes and dollars escaped: the values exactly as they were typed."""
    _, dashes, text = f" {flags}".partition(" -- ")
    words = re.findall(r"(?:\\.|[^\\ ])+", text, re.DOTALL) if dashes else []
    pairs = (ESCAPED.sub(lambda found: found[1] or "$", word).partition("=") for word in words)
    return {name.rstrip(":"): value for name, _, value in pairs}


def guard(goals, values):
    """Refuse variables that none of the targets ``goals`` takes, and values that are wrong.

    Raises
    ------
    InputError, SimulationError
    """
    if not all(goal in TARGETS for goal in goals):
        return                  # make itself knows better what is wrong
    takes = {name for goal in goals for name in TARGETS[goal].takes}
    for name in values:
        if name not in takes and name not in ANYWHERE:
            raise InputError(_unknown(name, takes, " ".join(goals)))
    for goal in goals:
        arguments(goal, values)


def _unknown(name, takes, goals):
    near = get_close_matches(name.upper(), (*takes, *ANYWHERE), 1, cutoff=0.6)
    what = f"`make {goals}` takes no {name}"
    if near:
        return f"{what}; did you mean {near[0]}?"
    return f"{what}; it takes {', '.join(sorted(takes)) or 'no variables'}"


def arguments(goal, values, environment=None):
    """What the program of a target is started with where ``values`` are given, on the command line
    or else in the ``environment``, by default that of this process.

    Raises
    ------
    InputError, SimulationError
        If a value is wrong.
    """
    target, words, last = TARGETS[goal], [], []
    around = os.environ if environment is None else environment
    values = {**{name: around[name] for name in target.takes if name in around}, **values}
    for name in target.needs:
        if not values.get(name):
            raise InputError(f"`make {goal}` needs {name}=...: {VARIABLES[name].text}")
    for name, default in target.takes.items():
        value = values.get(name) or ""
        if value or default:
            check_of(goal, name)(name, value or default)
        if name == target.place:
            last = ["--", value or default]
        elif name in target.flags:
            words += [f"--{name.lower()}"] if value == "1" else []
        elif name == "ARGS":
            words += shlex.split(value)
        elif value:
            words.append(f"--{name.lower()}={value}")
    if DRAMS is not None and "SET" in target.takes:
        _check_changes({name: values.get(name) or target.takes.get(name) for name in
                        ("CONFIG", "DRAM", "PROTECTION", "SET")})
    model = values.get("MODEL") or target.takes.get("MODEL")
    if "SIZE" in target.takes and values.get("SIZE") and model in POOLINGS:
        size = int(values["SIZE"])
        check_shape(whole_side(model, size) if target.pads else size, 1, 1 << POOLINGS[model])
    return words + last


def check_of(goal, name):
    """What refuses a wrong value of a variable of a target."""
    return TARGETS[goal].checks.get(name) or VARIABLES[name].check or _any


def start(goal, words):
    """Run the program of a target, which ends this process with its exit code."""
    sys.argv[1:] = words
    runpy.run_module(TARGETS[goal].module, run_name="__main__", alter_sys=True)


def _check_changes(given):
    """Refuse what SET changes, which depends on the machine."""
    if given["SET"]:
        preset(given["CONFIG"], dram=given["DRAM"], protection=given["PROTECTION"],
               changes=given["SET"])


def usage():
    """The lines of ``make help``."""
    for name, target in TARGETS.items():
        yield f"make {name + ' ':<{NAME}}{target.text}"
        yield from wrapped("", " ".join(target.takes))
    yield ""
    yield "Variables follow as NAME=value, such as `make sim CONFIG=tiny TAPS=1`:"
    yield ""
    for name in VARIABLES:
        defaults = {}
        for goal, target in TARGETS.items():
            if target.takes.get(name):
                defaults.setdefault(target.takes[name], []).append(goal)
        text = meaning(name)
        if len(defaults) == 1:
            text += f" [{next(iter(defaults))}]"
        elif defaults:
            text += " [" + "; ".join(f"{', '.join(goals)}: {value}"
                                     for value, goals in defaults.items()) + "]"
        yield from wrapped(name, text)


def meaning(name):
    """What a variable means, in words."""
    return VARIABLES[name].text.replace("{engines}", _or(_engines() or ("an engine",)))


def wrapped(name, text):
    """Lines of a name and, beside it, what it means."""
    lines = wrap(text, WIDTH - NAME - 5, break_on_hyphens=False)
    return [f"{name if not index else '':<{NAME + 5}}{line}" for index, line in enumerate(lines)]


def main(words):
    """``guard``, ``run GOAL`` or ``help``; returns the exit code."""
    if words[:1] == ["help"]:
        print("\n".join(usage()))
        return 0
    values = given(os.environ.get("MAKEFLAGS", ""))
    if words[:1] == ["guard"]:
        goals = os.environ.get("GOALS", "").split() or ["help"]
        return exit_code(lambda _: guard(goals, values), words, SimulationError)
    goal, started = words[1], []
    code = exit_code(lambda _: started.append(arguments(goal, values)), words, SimulationError)
    if started:
        start(goal, started[0])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
