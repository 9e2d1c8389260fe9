"""Small frames on a machine full of mutants: which of them nobody would notice in a frame."""

import json
import random
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from golden import integer
from golden.arbitrary import arbitrary_image
from golden.models import load_graph
from golden.places import CACHE
from hw.compiler import compile_network
from hw.memory.dram import timing_plusarg
from hw.verilog import export
from sim.campaigns.mutants.machine import MutantTop
from sim.errors import SimulationError
from sim.simulators import build, run
from sim.top import SOURCES
from tests.sim.test_errors import FAULTS, Image

__all__ = ["NETWORKS", "survey"]

BENCH    = "sim.campaigns.mutants.bench_frames"
NETWORKS = ("elec4848-ds", "attunet-nuclei", "elec4848", "unet-busi")
"""Run in this order, until one shows the mutant: quick ones first."""

SIDE, WIDTH = 16, 4
PERIOD_PS   = 10_000


def survey(config, mutants, asked, *, spoiled=False, jobs=1):
    """Run small frames, or with ``spoiled`` what :func:`_spoiled` runs, with each of ``asked``;
    yields it, and how they show it or None, as soon as it is known. Simulates under Verilator in
    ``jobs`` processes, in an order that makes those answered at any time a sample of all.

    ``mutants``, of which they are some, are in the machine: with the same list it is built once.

    Raises
    ------
    SimulationError
        If the machine without a mutant does not run.
    """
    built = build("verilator", export(MutantTop(config, mutants), name="top", reset=False),
                  top="top", sources=SOURCES)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="mutants-") as scratch:
        folder = Path(scratch)
        frames = (_spoiled(config, folder) if spoiled else
                  [_frame(name, config, folder) for name in NETWORKS])
        number = {mutant: index for index, mutant in enumerate(mutants, start=1)}
        order  = random.Random(0).sample([number[mutant] for mutant in asked], len(asked))
        shares = [order[job::jobs] for job in range(jobs)]
        files  = [folder / f"results-{job}" for job in range(jobs)]
        seen   = [0] * jobs
        with ThreadPoolExecutor(jobs) as pool:
            running = {pool.submit(_simulate, built, timing_plusarg(config), folder / f"job-{job}",
                                   files[job], shares[job], frames) for job in range(jobs)}
            while running:
                ended, running = wait(running, timeout=1)
                for future in ended:
                    future.result()
                for job, file in enumerate(files):
                    lines = _lines(file)[seen[job]:]
                    seen[job] += len(lines)
                    for line in lines:
                        if line["mutant"]:
                            how = line["how"] and f"{line['frame']}: {line['how']}"
                            yield mutants[line["mutant"] - 1], how


def _frame(name, config, folder):
    """A frame of ``name`` in its image, and what must come out of it."""
    program, frame, outputs = _compiled(name, config)
    return _run(name, program, bytes(Image(program, frame).bytes), outputs, config, folder)


def _spoiled(config, folder):
    """Runs that end badly, those of tests/sim/test_errors.py among them, and good ones after them,
    with the monitor on a part of the map."""
    name = NETWORKS[0]
    program, frame, outputs = _compiled(name, config)
    image = Image(program, frame)
    runs  = [_run(f"spoiled, {what}", program, bytes(spoil(Image(program, frame)).bytes), outputs,
                  config, folder, error=error) for what, spoil, error, _ in FAULTS]
    for what, more in {
        "stopped":         {"meddle": "stop"},
        "read error":      {"meddle": "read", "pins": {"error": "AXI_READ"}},
        "write error":     {"meddle": "write", "pins": {"error": "AXI_WRITE"}},
        "cycle limit":     {"cycle_limit": 5000, "pins": {"error": "CYCLE_LIMIT"}},
        "all counters":    {"ledger": True},
        "part of a map":   {"monitor": {"MONITOR_X0": 1, "MONITOR_Y0": 2, "MONITOR_WIDTH": 2,
                                        "MONITOR_HEIGHT": 5}},
        "every other row": {"monitor": {"MONITOR_DECIMATE": 1}},
        "no map":          {"monitor": {"MONITOR_ENABLE": 0}},
    }.items():
        runs.append({**_run(what, program, bytes(image.bytes), outputs, config, folder), **more})
    return runs


def _compiled(name, config):
    """The program of a network, a frame, and the bytes that it leaves."""
    graph   = load_graph(name, size=SIDE, width=WIDTH)
    program = compile_network(graph, config)
    frame   = arbitrary_image(graph, 1)
    output, = program.outputs
    mask_HW = integer.run(graph, frame)[output.name][0].numpy()
    return program, frame, b"".join(row.tobytes().ljust(output.row_bytes, b"\0")
                                    for row in mask_HW)


def _run(name, program, image, outputs, config, folder, *, error="NONE"):
    file = folder / name.replace(" ", "-")
    file.with_suffix(".image").write_bytes(image + bytes(-len(image) % 64))
    file.with_suffix(".outputs").write_bytes(outputs)
    return {"name": name, "image": str(file.with_suffix(".image")),
            "outputs": str(file.with_suffix(".outputs")), "program_base": program.program_base,
            "limit": 4 * program.estimated_cycles + 20_000, "pins": {"error": error},
            "dump_first": program.outputs[0].base // config.vector,
            "dump_count": len(outputs) // config.vector}


def _simulate(built, timing, folder, results, numbers, frames):
    folder.mkdir()
    results.touch()
    (folder / "job.json").write_text(json.dumps(
        {"mutants": [0, *numbers], "frames": frames, "results": str(results),
         "image": str(folder / "image"), "dump": str(folder / "dump")}))
    with (folder / "log").open("wb") as log:
        run(built, BENCH, folder=folder, output=log, env={"ATTUNE_JOB": folder / "job.json"},
            plusargs=[timing, f"+offchip_image={folder / 'image'}",
                      f"+offchip_dump={folder / 'dump'}", f"+monitor={folder}",
                      f"+clock={PERIOD_PS}"])
    sound, *_ = _lines(results)
    if sound["how"] is not None:
        raise SimulationError(f"the machine without a mutant: {sound['frame']}: {sound['how']}")


def _lines(path):
    """The whole lines of a file that may be growing."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]
