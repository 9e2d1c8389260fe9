"""``make sim``: one run of the machine, from a frame to a report.

Golden and hardware get the same frames; their masks, and with taps all tensors, are compared byte
by byte, and the hardware's counters with those of the exact cycle model, one by one. Exit code 0:
all equal; 1: not; 2: the run could not be done, and one line says why. The output folder appears
only when the run is complete, in place of what an earlier run left there.

With ``engine="model"`` the cycle model stands in for the hardware: the same report, with masks of
the golden model, and nothing to compare. With ``engine="golden"`` there are only these masks.
"""

import errno
import json
import math
import os
import shlex
import shutil
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
import torch

from golden import places
from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from golden.folders import Fresh, temporary
from golden.images import PHANTOM, padded, read_truth
from golden.integer import IntegerGraph
from golden.metrics import binary
from golden.models import is_trained, load_float
from golden.names import is_file
from golden.places import CACHE, COMMAND, typed
from hw.compiler import CompileError, Program, compile_network
from hw.compiler.importer import Imported, judge, worst
from hw.config import Config, preset, usual_shape
from hw.machine import text_of
from hw.machine_file import CHANGED
from hw.network import load_network
from sim.board import BoardEngine, Link, serial_line
from sim.clips import read_clip
from sim.compare import class_pixels, compare_mask, compare_tensors
from sim.environment import command, environment
from sim.errors import SimulationError
from sim.host import GoldenEngine, RtlEngine
from sim.model import ModelEngine, deviations, differences, prepare_model, run_model
from sim.names import BOARD, RUN_ENGINES
from sim.page import write_page
from sim.pictures import write_pictures
from sim.progress import CycleProgress
from sim.report import make_report, write_report
from sim.simulators import build, check_installed
from sim.sources import machine_verilog
from sim.summary import print_summary
from sim.taps import golden_name
from sim.trace import write_trace
from sim.video import frame_times, write_animation

__all__ = ["Job", "Options", "beside", "build_machine", "golden_tensors", "main", "prepare", "run"]

LOG         = CACHE / "simulator.log"
FAILED      = CACHE / "failed"
SWITCHES    = ("taps", "trace", "pure", "pins", "freeze")
NETWORK     = "network.onnx"
PINS_MARGIN = 0.05
"""What cycles at the pins of an SDRAM may be away from those of the transaction-level memory."""
FULL        = 2**20         # bytes that are free on a disk with room for the next thing
FILES       = ("report.json", "report.html", "machine.toml", "program.bin", "simulator.log",
               "trace.json", "input.png", "truth.png", "mask-golden.png", "mask-hardware.png",
               "mask-difference.png", "overlay.png", "overlay.gif", "overlay.mp4", "sheet.png",
               "alpha*-golden.png", "alpha*-hardware.png", "inputs.json", NETWORK,
               "wave.fst", "wave.gtkw", "wave.sucl", "wave.causes")
"""What may be in the folder of a run."""


@dataclass(frozen=True)
class Options:
    """One run; ``size`` and ``width`` default to :func:`hw.config.usual_shape`. Where a network
    cannot halve ``size`` as often as it does, pictures are padded, and masks cropped.

    ``image`` is a file, a folder, a video, ``phantom:SEED``, or several of these with commas
    between, as :func:`sim.clips.read_clip` takes them. ``truth`` is a mask file; phantoms bring
    their own. ``pins`` simulates the controller and the pins of an SDRAM; ``port`` is the serial
    line of a board. ``fps`` frames a second come while the machine runs, by its clock; without it
    all lie in memory before. With ``calibration``, pictures as of
    :func:`hw.quantise.calibrated`, the model is a float file, quantised here; ``freeze`` as of
    :func:`hw.quantise.load_calibrated`.
    """
    model:      str       = "elec4848"
    config:     str       = "reference"
    engine:     str       = "rtl"
    sim:        str       = "verilator"
    image:      str       = "phantom:7"
    frames:     int       = 1
    taps:       bool      = False
    trace:      bool      = False
    size:       int       = None
    width:      int       = None
    out:        str       = None
    truth:      str       = None
    dram:       str       = None
    protection: str       = None
    set:        str       = None
    pure:       bool      = False
    pins:       bool      = False
    port:       str       = None
    fps:        float     = None
    max_cycles: int       = None
    calibration: str      = None
    freeze:     bool      = False


def run(options, console, *, brief=False, latest=False):
    """Do one run; returns the report, which is also written; None of the golden model alone.
    ``brief`` prints no summary; with ``latest`` ``reports/latest`` leads to it.

    Raises
    ------
    InputError, CompileError, SimulationError
        If it could not be done.
    """
    fresh = _place(options)
    named = fresh.place
    with fresh as folder, _scratch() as scratch:
        job    = prepare(options, console)
        truth  = _truth(options.truth, job.sources[0], job.shape)
        with console.status("golden model"):
            expected = golden_tensors(job.graph, job.frames)
        if options.engine == "golden":
            _draw(options, job, expected, truth, folder)
            report = None
        else:
            report = _measure(options, job, expected, truth, folder, scratch, console)
            write_report(report, folder / "report.json")
            write_page(folder, shown=named)
    if report is None:
        console.print(f"masks of the golden integer model: {fresh.place}", soft_wrap=True)
        return None
    if fresh.place != named:            # another run of the same second was faster
        write_page(fresh.place)
    if latest:
        _point_latest(fresh.place)
    if not brief:
        print_summary(console, report, fresh.place)
    for note in report.get("notes", ()):
        console.print(note, soft_wrap=True)
    if job.imported:
        console.print(worst(judge(job.imported, job.frames[0]))[1])
        for note in job.imported.notes:
            console.print(note)
    if report["bit_exact"] is False and options.engine == "rtl":
        console.print(f"to see why: {COMMAND} wave RUN={shlex.quote(typed(fresh.place))} "
                      "AT=mismatch", soft_wrap=True)
    return report


def _measure(options, job, expected, truth, folder, scratch, console):
    """The machine on the frames of ``job``, beside the golden model's tensors of each; returns the
    report, and writes everything else into ``folder``."""
    config, program, frames = job.config, job.program, job.frames
    with console.status("float model"):
        segment = job.crop(
            job.imported.segment_frame(frames[0]) if job.imported else
            load_float(options.model, frames[0].shape[1], job.width).segment(frames[0]))
    rtl, board = options.engine == "rtl", options.engine == BOARD
    build_s = 0.0
    with console.status(f"building the {config.name} machine for {options.sim}" if rtl else
                        "compiling the cycle model"):
        if rtl:
            built   = build_machine(config, options.sim, trace=options.trace,
                                    pins=options.pins)
            build_s = built.seconds
        elif not board:
            build_s = prepare_model()
    with ExitStack() as stack:
        if board:
            link = Link(stack.enter_context(serial_line(options.port)))
        progress = stack.enter_context(CycleProgress(console, program.estimated_cycles))
        common = {"cycle_limit": options.max_cycles, "progress": progress,
                  "arrivals": job.arrivals}
        if rtl:
            chip = RtlEngine(program, config, built, scratch, taps=options.taps,
                             trace=options.trace, **common)
        elif board:
            chip = BoardEngine(program, config, link, **common)
        else:
            chip = ModelEngine(program, config, expected, **common)
        chip.load(frames)
        chip.start()
        try:
            chip.wait()
        except SimulationError as error:
            raise _remembered(error, chip.cycles, options) from None
        if _is_full(scratch):           # the simulator does not tell
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        seen, recorded = chip.read_back(), chip.recorded()
    trace = chip.traced()
    timetable, source = (trace.timetable(), "trace") if trace else (None, "model")
    if rtl or board:
        agreement, modelled = beside(chip, trace, program, config, pins=options.pins or board)
        timetable = timetable or modelled
    else:
        timetable = chip.timetable
    comparison = compare_tensors(expected, seen if rtl or board else [], recorded)
    for tensors in seen:
        tensors["mask"] = _mask(job, tensors)
    mask_HW = torch.from_numpy(seen[0]["mask"][0] > 127)
    report  = make_report(
        model=options.model, program=program, config=config,
        engine=options.sim if rtl else options.engine,
        counters=chip.counters(), offchip=chip.offchip, comparison=comparison,
        mask=compare_mask(mask_HW, binary(segment), truth), seconds=chip.seconds,
        build_s=build_s, timetable=timetable, timed_by=source)
    if job.graph.classes:
        report["mask"]["classes"] = class_pixels(seen[0]["mask"][0], job.graph.classes)
    report |= _circumstances(options, job, frame_times(chip.counters(), job.sources,
                                                       config.clock_mhz, chip.arrived))
    _draw(options, job, expected, truth, folder,
          {**{one.name: one.values for one in recorded if one.frame == 0}, **seen[0]}
          if rtl or board else None)
    if options.frames > 1:
        write_animation(folder, [frame.numpy() for frame in job.pictures],
                        [tensors["mask"][0] > 127 for tensors in seen], report["stream"])
    end = program.program_base + program.program_bytes
    (folder / "program.bin").write_bytes(program.image[program.program_base:end])
    if rtl or board:
        report["cycle_model"] = agreement
    if board and chip.notes:
        report["notes"] = chip.notes
    if rtl:
        shutil.copy(scratch / "simulator.log", folder)
    if trace is not None:
        write_trace(folder / "trace.json", trace, program.layers, clock_mhz=config.clock_mhz,
                    vector=config.vector)
    return report


def beside(chip, trace, program, config, *, pins=False):
    """``cycle_model`` of the report: what the hardware did otherwise than the model; and the cycles
    of all instructions, if the model knows them. At the ``pins`` of an SDRAM the cycles may be
    ``PINS_MARGIN`` away from the model's."""
    try:
        run = run_model(program, config, arrivals=chip.arrived,
                        **({"cycles_to_read": chip.cycles_to_read} if chip.arrived and not pins
                           else {}))
    except SimulationError as error:
        return {"cycles": None, "cpu_s": None, "differences": [str(error)]}, None
    if pins:
        found = deviations(chip.counters(), chip.offchip, run, PINS_MARGIN)
        return {"cycles": run.cycles, "cpu_s": run.cpu_s, "margin": PINS_MARGIN,
                "differences": found}, None
    found = differences(chip.counters(), chip.offchip, run, trace)
    return ({"cycles": run.cycles, "cpu_s": run.cpu_s, "differences": found},
            None if found else run.timetable)


def _draw(options, job, expected, truth, folder, hardware=None):
    """The pictures of the first frame, of the golden model and, where there is one, the hardware;
    and the machine."""
    for tensors in expected:
        tensors["mask"] = _mask(job, tensors)
    write_pictures(folder, job.pictures[0].numpy(), expected[0], hardware, truth,
                   rows=job.frames[0].shape[1], classes=bool(job.graph.classes))
    (folder / "machine.toml").write_text(text_of(job.config))
    if options.calibration:
        onnx.save(job.imported.model, folder / NETWORK)


def _circumstances(options, job, stream):
    """What a report says of a run beyond what the machine did: with it, it can be repeated."""
    rows, columns = job.shape
    return {
        "settings":    asdict(options),
        "stream":      stream,
        "input":       {"images": job.sources, "size": rows, "columns": columns,
                        "frame": list(job.frames[0].shape[1:]),
                        "width": job.width, "trained": job.imported is not None
                        or is_trained(options.model, job.width)},
        "command":     command(options, size=None if job.imported else rows, width=job.width),
        "environment": environment(options.sim if options.engine == "rtl" else options.engine),
        "created":     time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


@dataclass(frozen=True)
class Job:
    """What is to run: everything that follows from the options before anything is simulated."""
    config:  Config
    shape:   tuple[int, int]            # rows and columns of a picture
    width:   int
    sources: list
    frames:  list
    graph:   IntegerGraph
    program: Program
    pictures: list                      # what the host makes frames of
    imported: Imported | None = None    # where the model is a file
    arrivals: tuple = ()                # as sim.host.ChipEngine takes them

    def crop(self, map_HW):
        """What is seen of the picture in a map of the frame's size, rows and columns last."""
        rows, columns = self.shape
        return map_HW[..., :rows, :columns]


def prepare(options, console=None):
    """The job that ``options`` describe; calibration shows its progress on a ``console``.

    Raises
    ------
    InputError, CompileError, SimulationError
        If it cannot be done.
    """
    if options.frames < 1:
        raise InputError(f"Number of frames must be positive, not {options.frames!r}")
    if options.engine not in RUN_ENGINES:
        raise InputError(f"Engine must be one of {', '.join(RUN_ENGINES)}, not {options.engine!r}")
    if (options.engine == BOARD) != (options.port is not None):
        raise InputError("ENGINE=board and PORT=/dev/ttyUSB0, the board's serial line, go "
                         "together; give both, or none")
    if options.fps is not None:
        if not 0 < options.fps < math.inf or options.frames < 2 or options.engine == "golden":
            raise InputError("FPS is the rate, above 0, at which the frames of a stream come to a "
                             f"machine; give FRAMES=2 or more and no ENGINE=golden, not FPS="
                             f"{options.fps:g} FRAMES={options.frames} ENGINE={options.engine}")
    for wanted in ("taps", "trace", "pins"):
        if getattr(options, wanted) and options.engine != "rtl":
            raise InputError(f"{wanted.upper()} looks into simulated hardware, and "
                             f"ENGINE={options.engine} has none; take ENGINE=rtl")
    if options.engine == "rtl":
        check_installed(options.sim)
    config  = preset(options.config, dram=options.dram, protection=options.protection,
                     changes=options.set)
    if options.pins or options.engine == BOARD:
        config.dram.sdram(config.clock_mhz)
    size, width = options.size, options.width
    if not is_file(options.model):
        usual = usual_shape(options.model, config)
        size  = usual[0] if size is None else size
        width = usual[1] if width is None else width
    graph, imported = load_network(options.model, size, width, pad=True, freeze=options.freeze,
                                   calibration=options.calibration, console=console)
    frame    = graph.tensors[graph.input]
    shape    = imported.picture if imported else (size, size)
    clip     = read_clip(options.image, options.frames, shape)
    pictures = [picture for _, picture in clip]
    frames   = [padded(picture, (frame.height, frame.width)) for picture in pictures]
    if imported:
        frames = [imported.frame(each) for each in frames]
    return Job(config, shape, width, [name for name, _ in clip], frames, graph,
               compile_network(graph, config, frames=options.frames, pure=options.pure,
                               live=options.fps is not None), pictures, imported,
               () if options.fps is None else tuple(
                   round(number * config.clock_mhz * 1e6 / options.fps)
                   for number in range(1, options.frames)))


def golden_tensors(graph, frames):
    """Every tensor of every frame, as the golden integer model has it."""
    golden = GoldenEngine(graph)
    golden.load(frames)
    golden.start()
    golden.wait()
    return golden.read_back()


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, CompileError, SimulationError)


def _command(arguments):
    report = run(_parse(arguments), make_console(), latest=True)
    return 0 if report is None or _good(report) else 1


def _good(report):
    """Whether everything that was compared is equal: tensors, and cycles with the cycle model."""
    return (report["bit_exact"] is not False
            and not report.get("cycle_model", {}).get("differences"))


def _parse(arguments):
    parser = Parser("sim.run", __doc__)
    for name in ("model", "config", "engine", "sim", "image", "out", "truth", "dram",
                 "protection", "set", "port", "calibration"):
        parser.add_argument(f"--{name}", default=getattr(Options, name))
    for name in ("frames", "size", "width", "max-cycles"):
        parser.add_argument(f"--{name}", type=int,
                            default=getattr(Options, name.replace("-", "_")))
    parser.add_argument("--fps", type=float)
    for name in SWITCHES:
        parser.add_argument(f"--{name}", type=int, choices=(0, 1), default=0)
    values = vars(parser.parse_args(arguments))
    return Options(**{**values, **{name: bool(values[name]) for name in SWITCHES}})


def _mask(job, tensors):
    """The network's first output as a picture in which more than 127 is lesion."""
    name = next(name for name in tensors
                if golden_name(name, job.graph.tensors) == job.graph.output)
    return job.crop(job.imported.mask(tensors[name]) if job.imported else tensors[name])


def _truth(truth, source, shape):
    if truth is None and not source.startswith(PHANTOM):
        return None
    return read_truth(truth or source, shape) > 127


def build_machine(config, simulator, *, trace=False, waves=False, pins=False):
    """The simulation of a machine, made now or kept from before."""
    from sim.top import SOURCES
    start = time.monotonic()
    built = build(simulator, machine_verilog(config, trace, pins), top="top",
                  sources=SOURCES, waves=waves)
    return built.including(time.monotonic() - start)


def _remembered(error, cycle, options):
    """``error`` of a machine that stopped in ``cycle``, after noting what ``make wave`` needs."""
    if cycle is None or options.engine != "rtl":
        return error
    FAILED.mkdir(exist_ok=True)
    (FAILED / "failed.json").write_text(json.dumps(
        {"settings": asdict(options), "error": {"cycle": cycle, "text": str(error)}}))
    return SimulationError(f"{error}; to see why: {COMMAND} wave RUN={typed(FAILED)} AT=error")


@contextmanager
def _scratch():
    """A folder for one run; of a failed one the simulator's log remains, in ``LOG``."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with temporary(CACHE, "run-") as folder:
        try:
            yield folder
        except SimulationError as error:
            if not (folder / "simulator.log").exists():
                raise
            shutil.copy(folder / "simulator.log", LOG)
            raise SimulationError(f"{error}; log: {typed(LOG)}") from None
        except OSError as error:
            if error.errno == errno.ENOSPC and _is_full(folder):
                raise InputError(f"{CACHE}: {error.strerror}; nothing was written") from None
            raise


def _is_full(folder):
    return shutil.disk_usage(folder).free < FULL


def _place(options):
    """Where the run goes, as :class:`golden.folders.Fresh`."""
    stamp  = time.strftime("%Y%m%d-%H%M%S")
    engine = options.sim if options.engine == "rtl" else options.engine
    name   = f"{Path(options.model).stem}-{_called(options)}-{engine}-{stamp}"
    return Fresh(options.out or places.HOME / "reports" / name, FILES, replace=bool(options.out))


def _called(options):
    return Path(options.config).stem + (CHANGED if options.set else "")


def _point_latest(place):
    """``reports/latest`` leads to the newest run."""
    latest = places.HOME / "reports" / "latest"
    latest.parent.mkdir(exist_ok=True)
    with temporary(latest.parent, ".latest-") as folder:
        (folder / "link").symlink_to(place.resolve())
        (folder / "link").replace(latest)


if __name__ == "__main__":
    sys.exit(main())
