"""Small frames on a machine full of mutants: which of them nobody would notice in a frame."""

import json
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from golden import integer
from golden.arbitrary import arbitrary_image
from golden.models import load_graph
from hw.compiler import compile_network
from sim.campaigns.mutants.machine import MutantTop
from sim.simulators import CACHE, build, run
from sim.top import SOURCES
from sim.verilog import export

__all__ = ["NETWORKS", "survey"]

BENCH    = "sim.campaigns.mutants.bench_frames"
NETWORKS = ("elec4848-ds", "attunet-nuclei", "elec4848", "unet-busi")
"""Run in this order, until one shows the mutant: quick ones first."""

SIDE, WIDTH = 16, 4
PERIOD_PS   = 10_000


def survey(config, mutants, *, jobs=1, progress=lambda done: None):
    """How small frames show each of ``mutants``; None where they do not.

    Returns a dictionary from mutant to a line. Simulates under Verilator in ``jobs`` processes;
    ``progress`` is told about once a second how many are done.

    Raises
    ------
    SimulationError
        If the machine without a mutant does not run, or runs otherwise after all others.
    """
    built = build("verilator", export(MutantTop(config, mutants), name="top", reset=False),
                  top="top", sources=SOURCES)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="mutants-") as scratch:
        folder = Path(scratch)
        frames = [_frame(name, config, folder) for name in NETWORKS]
        shares = [list(range(1, len(mutants) + 1))[job::jobs] for job in range(jobs)]
        ended  = threading.Event()
        files  = [folder / f"results-{job}" for job in range(jobs)]

        def watch():
            while not ended.wait(1):
                progress(sum(len(_lines(file)) for file in files))

        threading.Thread(target=watch, daemon=True).start()
        try:
            with ThreadPoolExecutor(jobs) as pool:
                found = list(pool.map(lambda job: _simulate(
                    built, folder / f"job-{job}", files[job], shares[job], frames), range(jobs)))
        finally:
            ended.set()
    return {mutants[line["mutant"] - 1]: line["how"] and f"{line['frame']}: {line['how']}"
            for lines in found for line in lines}


def _frame(name, config, folder):
    """A frame of ``name`` in its image, and what must come out of it."""
    graph   = load_graph(name, size=SIDE, width=WIDTH)
    program = compile_network(graph, config)
    frame   = arbitrary_image(graph, 1)
    image   = bytearray(program.image)
    blob    = program.pack_frame(frame)
    image[program.frame_address(0):program.frame_address(0) + len(blob)] = blob
    image  += bytes(-len(image) % 64)
    output, = program.outputs
    mask_HW = integer.run(graph, frame)[output.name][0].numpy()
    outputs = b"".join(row.tobytes().ljust(output.row_bytes, b"\0") for row in mask_HW)
    (folder / f"{name}.image").write_bytes(image)
    (folder / f"{name}.outputs").write_bytes(outputs)
    return {"name": name, "image": str(folder / f"{name}.image"),
            "outputs": str(folder / f"{name}.outputs"), "program_base": program.program_base,
            "limit": 4 * program.estimated_cycles + 20_000, "pins": {},
            "dump_first": output.base // config.vector, "dump_count": len(outputs) // config.vector}


def _simulate(built, folder, results, numbers, frames):
    folder.mkdir()
    results.touch()
    (folder / "job.json").write_text(json.dumps(
        {"mutants": [0, *numbers, 0], "frames": frames, "results": str(results),
         "image": str(folder / "image"), "dump": str(folder / "dump")}))
    with (folder / "log").open("wb") as log:
        run(built, BENCH, folder=folder, output=log, env={"ATTUNE_JOB": folder / "job.json"},
            plusargs=[f"+offchip_image={folder / 'image'}", f"+offchip_dump={folder / 'dump'}",
                      f"+monitor={folder}", f"+clock={PERIOD_PS}"])
    first, *found, last = _lines(results)
    for sound in (first, last):
        assert sound["how"] is None, f"the machine without a mutant: {sound}"
    return found


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
