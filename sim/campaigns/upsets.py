"""``make faults``: bits of registers and memories flipped in the middle of whole frames.

Every class of state gets as many upsets; within a class each bit and each cycle of the run is as
likely as any other. A run that was disturbed is compared with golden: the mask, every other output
and what the monitor showed. Exit code 0: done; 1: wrong output without a word although the memory
that was hit is protected; 2: it could not be done.
"""

import csv
import io
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch

from golden import places
from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from golden.metrics import dice
from golden.places import CACHE, COMMAND
from golden.progress import bars
from hw.compiler import CompileError
from hw.config import MEMORIES
from hw.control.regmap import Register, Status
from hw.isa import Engine, Error
from hw.memory.dram import timing_plusarg
from sim.campaigns import state
from sim.campaigns.upset_report import SILENT, print_table, summarise, write_picture
from sim.errors import SimulationError
from sim.run import Options, golden_tensors, prepare
from sim.simulators import Harness, build, check_installed

__all__ = ["Upset", "Victim", "allocate", "build_victim", "campaign", "main", "sample",
           "read_upsets", "silent_in_protected", "write_upsets"]

MAIN      = Path(__file__).with_name("upsets.cpp")
INTERVALS = 64          # snapshots of the undisturbed run
STALL     = 10_000      # cycles without progress that end a run: far more than any wait for DRAM
ERRORS    = re.compile(r"\.ledger\.(corrected|uncorrectable)_\d+$")
ARRAY     = ("mem", "read_word", "loaded", "dumped")    # state of offchip_array.v


@dataclass(frozen=True)
class Upset:
    """One disturbed run: which bit in which cycle, and what became of it.

    ``dice`` is that of the mask with the right one, 1 where nothing changed; ``pixels`` is how many
    of its pixels changed sides.
    """
    kind:      str
    path:      str
    row:       int
    bit:       int
    cycle:     int
    outcome:   str
    error:     str   = ""
    place:     str   = ""       # engine or memory of the error
    cycles:    int   = 0        # until the run was over, or equal to the undisturbed one
    corrected: int   = 0
    dice:      float = 1.0
    pixels:    int   = 0


class Victim:
    """A machine with one program, run again and again by ``upsets.cpp``.

    Parameters
    ----------
    job : sim.run.Job
    built : sim.simulators.Build
        Of :func:`build_victim`.
    folder : Path
        Where its image goes.

    Attributes
    ----------
    cycles : int
        Of the undisturbed run.
    targets : list of sim.campaigns.state.Target

    Raises
    ------
    SimulationError
        If the undisturbed run is not right, or a snapshot does not lead to the next.
    """

    def __init__(self, job, built, folder):
        program       = job.program
        self._program = program
        self.targets  = state.read_table(built.folder)
        golden        = golden_tensors(job.graph, job.frames)[0]
        self._golden  = {output.name: golden[output.name] for output in program.outputs}
        self._at      = min(output.base for output in program.outputs)
        size          = max(output.base + output.bytes for output in program.outputs) - self._at
        image         = bytearray(program.image)
        blob          = program.pack_frame(job.frames[0])
        start         = program.frame_address(0)
        image[start:start + len(blob)] = blob
        image.extend(bytes(-len(image) % job.config.vector))
        (Path(folder) / "image.bin").write_bytes(image)
        settings = {"offchip_image": Path(folder) / "image.bin", "intervals": INTERVALS,
                    "program_base": program.program_base, "stall_limit": STALL,
                    "cycle_limit": 2 * program.estimated_cycles + 10 * STALL,
                    "outputs_at": self._at, "outputs_bytes": size}
        self._process = subprocess.Popen(
            [str(built.folder / "simulate"), timing_plusarg(job.config), *(f"+{name}={value}"
                                               for name, value in settings.items())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        cycles, status, _, _, outputs = self._answer()
        self.cycles = int(cycles)
        if Status.from_bits(int(status)).error is not Error.NONE or self._changed(outputs):
            self.close()
            raise SimulationError("The undisturbed run does not give golden's outputs")

    def run(self, cycle, flips):
        """Flip ``(target, row, bit)`` in ``cycle``; returns a dictionary of the later fields of
        :class:`Upset`."""
        words = [cycle, *(number for flip in flips for number in flip)]
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        *numbers, outputs = self._answer()
        _, interrupt, answers, status, cycles, maps, corrected, detected = map(int, numbers)
        ended = Status.from_bits(status)
        found = {"cycles": cycles, "corrected": corrected}
        if not (interrupt and answers):
            return {**found, "outcome": "hang"}
        if ended.error is not Error.NONE:
            outcome = ("watchdog" if ended.error in (Error.STALLED, Error.CYCLE_LIMIT)
                       else "detected" if ended.error is Error.MEMORY else "error")
            return {**found, "outcome": outcome, "error": ended.error.name,
                    "place": MEMORIES[ended.memory] if ended.error is Error.MEMORY
                    else _name(ended.engine)}
        changed = {} if outputs == "=" else self._changed(outputs)
        if "mask" in changed:
            right_HW, wrong_HW = (torch.from_numpy(x[0] > 127)
                                  for x in (self._golden["mask"], changed["mask"]))
            return {**found, "outcome": "mask", "dice": dice(wrong_HW, right_HW),
                    "pixels": int((wrong_HW != right_HW).sum())}
        if changed or maps:
            return {**found, "outcome": "other"}
        return {**found, "outcome": "corrected" if corrected else "masked"}

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise SimulationError(f"The simulator ended with exit code {code}")
        return line.split()

    def _changed(self, outputs):
        """The outputs in a dump that are not golden's."""
        blob, found = bytes.fromhex(outputs), {}
        for output in self._program.outputs:
            start = output.base - self._at
            got   = self._program.unpack(output, blob[start:start + output.bytes]).numpy()
            if not np.array_equal(got, self._golden[output.name]):
                found[output.name] = got
        return found


def build_victim(config):
    """The simulation of a machine whose state can be reached, made now or kept from before."""
    from hw.verilog import export
    from sim.top import SOURCES, SimTop

    array, *others = SOURCES
    verilog, found = state.mark(export(SimTop(config, check=False), name="top", reset=False))
    text = array.read_text()
    for name in ARRAY:
        head, declared, rest = text.partition(f" {name};")
        if not declared:
            head, declared, rest = text.partition(f" {name} [0:DEPTH-1];")
        text = f"{head}{declared[:-1]}{state.MARK};{rest}"
    word   = config.vector * 8
    found += [("top.offchip.store", name, *shape) for name, shape in zip(
        ARRAY, ((word, config.offchip_words, True), (word, 1, False), (1, 1, False), (1, 1, False)),
        strict=True)]
    return build("verilator", verilog + text, top="top", sources=others,
                 harness=Harness(MAIN, partial(_tables, found=found),
                                 Path(state.__file__).read_text() + repr(list(Register))))


def allocate(targets, n):
    """Upsets per class of state, as even as can be: ``n`` in all."""
    kinds = sorted({(target.memory, target.kind) for target in targets if target.kind})
    return {kind: n // len(kinds) + (number < n % len(kinds))
            for number, (_, kind) in enumerate(kinds)}


def sample(targets, cycles, n, *, seed, bits=1):
    """``n`` upsets: a class, a cycle, and which bits, as :meth:`Victim.run` takes them.

    Deterministic. With more than one of ``bits`` they are neighbours in a row or register, as many
    as it has.
    """
    random, chosen = np.random.default_rng(seed), []
    for kind, count in allocate(targets, n).items():
        mine = [number for number, target in enumerate(targets) if target.kind == kind]
        ends = np.cumsum([targets[number].bits for number in mine])
        for at, cycle in zip(random.integers(ends[-1], size=count),
                             random.integers(cycles, size=count), strict=True):
            place  = int(np.searchsorted(ends, at, side="right"))
            target = targets[mine[place]]
            row, bit = divmod(int(at - (ends[place] - target.bits)), target.width)
            first  = min(bit, max(0, target.width - bits))
            chosen.append((kind, int(cycle), [
                (mine[place], row, first + index) for index in range(min(bits, target.width))]))
    order = random.permutation(len(chosen))     # so that a run that is broken off is a sample too
    return [chosen[index] for index in order]


def campaign(job, n, *, seed, bits=1, processes=2, console, log=None):
    """Run ``n`` upsets; returns the list of :class:`Upset`, the targets, and the cycles of the
    undisturbed run. Each goes to the CSV file ``log`` as soon as it is known: what is there of a
    campaign that was broken off is a sample, too."""
    with console.status(f"building the {job.config.name} machine"):
        built = build_victim(job.config)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="faults-") as folder:
        with ThreadPoolExecutor(processes) as pool:
            with console.status("the undisturbed run"):
                victims = list(pool.map(lambda _: Victim(job, built, folder), range(processes)))
            try:
                targets, cycles = victims[0].targets, victims[0].cycles
                chosen = sample(targets, cycles, n, seed=seed, bits=bits)
                with bars(console) as bar:
                    task = bar.add_task("upsets", total=n)
                    mine, free = threading.local(), victims[:]

                    if log:
                        write_upsets(log, [])

                    def disturb(one):
                        if not hasattr(mine, "victim"):
                            mine.victim = free.pop()
                        kind, cycle, flips = one
                        number, row, bit   = flips[0]
                        found = Upset(kind, targets[number].path, row, bit, cycle,
                                      **mine.victim.run(cycle, flips))
                        bar.advance(task)
                        if log:
                            write_upsets(log, [found], more=True)
                        return found

                    return list(pool.map(disturb, chosen)), targets, cycles
            finally:
                for victim in victims:
                    victim.close()


def write_upsets(path, upsets, *, more=False):
    """One line for each, after those that are there if ``more``."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    if not more:
        rows.writerow(part.name for part in fields(Upset))
    rows.writerows(astuple(upset) for upset in upsets)
    with Path(path).open("a" if more else "w", newline="") as file:
        file.write(text.getvalue())     # one piece, as several threads write


def read_upsets(path):
    """What :func:`write_upsets` wrote.

    Raises
    ------
    InputError
        If the file is another, or a line of it is not whole.
    """
    types = [part.type for part in fields(Upset)]
    with Path(path).open(newline="", errors="replace") as file:
        head, *rows = csv.reader(file) or [[]]
    try:
        if head != [part.name for part in fields(Upset)]:
            raise ValueError
        return [Upset(*(kind(text) for kind, text in zip(types, row, strict=True)))
                for row in rows]
    except ValueError:
        raise InputError(f"{path} is no list of upsets that `{COMMAND} faults` wrote") from None


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, CompileError, SimulationError)


def _command(arguments):
    options, console = _parse(arguments), make_console()
    for name in ("n", "bits", "processes"):
        if getattr(options, name) < 1:
            raise InputError(f"{name.upper()} must be positive, not {getattr(options, name)}")
    kind   = (options.protection or "none").replace(",", "-")
    name   = f"faults-{options.config}-{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(options.out) if options.out else places.HOME / "reports" / name
    if folder.exists():
        raise InputError(f"OUT must not exist yet; {options.out} does")
    check_installed("verilator")
    job = prepare(Options(model=options.model, config=options.config, image=options.image,
                          size=options.size, width=options.width, protection=options.protection))
    if all(output.name != "mask" for output in job.program.outputs):
        raise InputError(f"Faults need a network with an output called mask; {options.model} has "
                         + ", ".join(output.name for output in job.program.outputs))
    earlier = [upset for one in (options.add or "").split(",") if one
               for upset in read_upsets(Path(one) / "upsets.csv")]
    start = time.monotonic()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        fresh = Path(scratch) / "out"
        fresh.mkdir()
        upsets, targets, cycles = campaign(job, options.n, seed=options.seed, bits=options.bits,
                                           processes=options.processes, console=console,
                                           log=fresh / "upsets.csv")
        upsets += earlier
        seconds = time.monotonic() - start
        summary = {"settings": vars(options), "cycles": cycles, "seconds": round(seconds, 1),
                   **summarise(upsets, targets)}
        write_upsets(fresh / "upsets.csv", upsets)
        (fresh / "faults.json").write_text(json.dumps(summary, indent=1) + "\n")
        write_picture(fresh / "faults.png", summary)
        fresh.rename(folder)
    print_table(summary)
    wrong = silent_in_protected(upsets, job.config)
    print(f"{options.n} upsets in {seconds:.0f} s; {folder}")
    if job.config.protected:
        print(f"{wrong} of them changed an output without a word from a protected memory")
    return 1 if wrong else 0


def silent_in_protected(upsets, config):
    """How many upsets of one bit in a protected memory made an output wrong without a word."""
    return sum(upset.outcome in SILENT and upset.kind in state.GUARDED
               and config.protects(state.GUARDED[upset.kind]) != "none" for upset in upsets)


def _tables(folder, c_folder, *, found):
    header  = (c_folder / "Vtop___024root.h").read_text()
    targets = state.find_targets(found, header)
    state.write_table(folder, c_folder, targets,
                      observers=[target.path for target, _ in targets
                                 if ERRORS.search(target.path)])
    memory  = next(member for target, member in targets if target.path == "top.offchip.store.mem")
    (c_folder / "machine.inc").write_text(
        f"#define OFFCHIP {memory}\n"
        + "".join(f"constexpr uint32_t {one.name} = {one.value};\n" for one in Register))


def _name(engine):
    return Engine(engine).name.lower() if engine in [one.value for one in Engine] else str(engine)


def _parse(arguments):
    parser = Parser("sim.campaigns.upsets", __doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bits", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--model", default="elec4848")
    parser.add_argument("--config", default="tiny")
    parser.add_argument("--protection")
    parser.add_argument("--image", default="phantom:7")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--add")
    parser.add_argument("--out")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
