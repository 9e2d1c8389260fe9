"""``make sim``: one run of the machine, from a frame to a report.

Golden and hardware get the same frames; their masks, and with taps all tensors, are compared byte
by byte. Exit code 0: bit exact; 1: not; 2: the run could not be done, and one line says why. The
output folder appears, or changes, only when the run is complete.
"""

import argparse
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from golden.errors import InputError
from golden.images import PHANTOM, read_image, read_truth
from golden.metrics import binary
from golden.models import load_float, load_graph
from hw.compiler import CompileError, compile_network
from hw.config import preset
from sim.compare import compare_mask, compare_tensors
from sim.errors import SimulationError
from sim.host import GoldenEngine, RtlEngine
from sim.pictures import write_pictures
from sim.progress import CycleProgress
from sim.report import make_report, write_report
from sim.simulators import CACHE, ROOT, build, check_installed
from sim.summary import print_summary

__all__ = ["Options", "main", "run"]

PAPER_SHAPE = (256, 32)
TINY_SHAPE  = (32, 4)       # what the `tiny` preset is for
LOG         = CACHE / "simulator.log"


@dataclass(frozen=True)
class Options:
    """One run; ``size`` and ``width`` default to the paper's, or the smallest useful for ``tiny``.

    ``image`` is a file, ``phantom:SEED``, or several of either with commas between; more frames
    than images take the next phantom seeds, or the same files again. ``truth`` is a mask file;
    phantoms bring their own.
    """
    model:      str       = "elec4848"
    config:     str       = "reference"
    sim:        str       = "verilator"
    image:      str       = "phantom:7"
    frames:     int       = 1
    taps:       bool      = False
    size:       int       = None
    width:      int       = None
    out:        str       = None
    truth:      str       = None
    dram:       str       = None
    max_cycles: int       = None


def run(options, console):
    """Do one run; returns the report, which is also written.

    Raises
    ------
    InputError, CompileError, SimulationError
        If it could not be done.
    """
    if options.frames < 1:
        raise InputError(f"Number of frames must be positive, not {options.frames!r}")
    check_installed(options.sim)
    config  = _preset(options)
    shape   = TINY_SHAPE if config.name == "tiny" else PAPER_SHAPE
    size    = shape[0] if options.size is None else options.size
    width   = shape[1] if options.width is None else options.width
    sources = _sources(options.image, options.frames)
    frames  = [read_image(source, size) for source in sources]
    truth   = _truth(options.truth, sources[0], size)
    graph   = load_graph(options.model, size, width)
    program = compile_network(graph, config, frames=options.frames)

    with _scratch() as scratch:
        with console.status("golden model"):
            golden = GoldenEngine(graph)
            golden.load(frames)
            golden.start()
            golden.wait()
            expected = golden.read_back()
            segment  = load_float(options.model, size, width).segment(frames[0])
        with console.status(f"building the {config.name} machine for {options.sim}"):
            built = _build(config, options.sim)
        with CycleProgress(console, program.estimated_cycles) as progress:
            chip = RtlEngine(program, config, built, scratch, taps=options.taps,
                             cycle_limit=options.max_cycles, progress=progress)
            chip.load(frames)
            chip.start()
            chip.wait()
        seen, recorded = chip.read_back(), chip.recorded()
        comparison = compare_tensors(expected, seen, recorded)
        mask_HW    = torch.from_numpy(seen[0]["mask"][0] > 127)
        report = make_report(
            model=options.model, program=program, config=config, simulator=options.sim,
            counters=chip.counters(), offchip=chip.offchip, comparison=comparison,
            mask=compare_mask(mask_HW, binary(segment), truth), seconds=chip.seconds,
            build_s=built.seconds)
        report["input"] = {"images": sources, "size": size, "width": width}

        folder = _folder(options)
        write_pictures(folder, frames[0].numpy(), expected[0],
                       {**{one.name: one.values for one in recorded if one.frame == 0}, **seen[0]})
        end = program.program_base + program.program_bytes
        (folder / "program.bin").write_bytes(program.image[program.program_base:end])
        shutil.copy(scratch / "simulator.log", folder)
        write_report(report, folder / "report.json")
    _point_latest(folder)
    print_summary(console, report, folder)
    return report


def main(arguments=None):
    """The command line; returns the exit code."""
    console = Console(highlight=False)
    try:
        options = _parse(arguments)
        report  = run(options, console)
    except (InputError, CompileError, SimulationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 2
    return 0 if report["bit_exact"] else 1


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message):
        raise InputError(f"{message}; see `make help`")


def _parse(arguments):
    parser = _Parser(prog="python -m sim.run", description=__doc__.splitlines()[0])
    for name in ("model", "config", "sim", "image", "out", "truth", "dram"):
        parser.add_argument(f"--{name}", default=getattr(Options, name))
    for name in ("frames", "size", "width", "max-cycles"):
        parser.add_argument(f"--{name}", type=int,
                            default=getattr(Options, name.replace("-", "_")))
    parser.add_argument("--taps", type=int, choices=(0, 1), default=0)
    values = vars(parser.parse_args(arguments))
    return Options(**{**values, "taps": bool(values["taps"])})


def _preset(options):
    try:
        return preset(options.config, dram=options.dram)
    except ValueError as error:
        raise InputError(str(error)) from None


def _sources(image, frames):
    """Where each frame comes from."""
    given = [part.strip() for part in str(image).split(",") if part.strip()]
    if not given:
        raise InputError("No image named; name a file, or phantom:7 for a synthetic one")
    if len(given) == 1 and given[0].startswith(PHANTOM) and given[0][len(PHANTOM):].isdigit():
        first = int(given[0][len(PHANTOM):])
        return [f"{PHANTOM}{first + index}" for index in range(frames)]
    return [given[index % len(given)] for index in range(frames)]


def _truth(truth, source, size):
    if truth is None and not source.startswith(PHANTOM):
        return None
    return read_truth(truth or source, size) > 127


def _build(config, simulator):
    # Amaranth takes long to elaborate a machine, and only `make sim` needs to.
    from sim.top import SOURCES, SimTop
    from sim.verilog import export
    start = time.monotonic()
    text  = export(SimTop(config), name="top", reset=False)
    built = build(simulator, text, top="top", sources=SOURCES)
    return built.including(time.monotonic() - start)


@contextmanager
def _scratch():
    """A folder for one run; of a failed one the simulator's log remains, in ``LOG``."""
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as name:
        folder = Path(name)
        try:
            yield folder
        except SimulationError as error:
            if not (folder / "simulator.log").exists():
                raise
            shutil.copy(folder / "simulator.log", LOG)
            raise SimulationError(f"{error}; log: {LOG.relative_to(ROOT)}") from None


def _folder(options):
    stamp  = time.strftime("%Y%m%d-%H%M%S")
    name   = f"{options.model}-{options.config}-{options.sim}-{stamp}"
    folder = Path(options.out) if options.out else ROOT / "reports" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _point_latest(folder):
    """``reports/latest`` leads to the newest run."""
    latest = ROOT / "reports" / "latest"
    latest.parent.mkdir(exist_ok=True)
    latest.unlink(missing_ok=True)
    latest.symlink_to(folder.resolve())


if __name__ == "__main__":
    sys.exit(main())
