"""``make hostile-code``: spoiled programs on the chip, until one gets through.

Small networks, compiled for ``tiny``, are spoiled at random (:mod:`.mutations`) and run on the
RTL of the whole machine. Each must end within its limits: by finishing, with an error, or by a
watchdog. After each, the whole off-chip memory outside of the window that the host made writable
must be what it was, byte for byte; no rule of a bus may be broken; and a good program that follows
must leave every byte right. Exit code 0: all of it held; 1: a case did not; 2: it could not be
done.
"""

import json
import os
import pickle
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from amaranth import ClockSignal, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from rich.table import Table

from golden import integer
from golden.arbitrary import arbitrary_graph, arbitrary_image
from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from golden.places import CACHE, COMMAND
from golden.progress import bars
from hw.compiler.build import SCHEDULES, finish, plan, spillable
from hw.compiler.ops import lower
from hw.config import TINY
from hw.isa import Error
from hw.memory.dram import timing_plusarg
from hw.verilog import export
from sim.campaigns.mutations import KINDS, Base
from sim.errors import SimulationError
from sim.interpreter import Interpreter
from sim.names import SIMULATORS
from sim.simulators import build, check_installed, run
from sim.top import SOURCES, SimTop

__all__ = ["CheckedTop", "bases", "main", "spoil"]

BENCH    = "sim.campaigns.bench_hostile_code"
CHECKER  = Path(__file__).with_name("offchip_checker.v")
NETWORKS = (0, 3, 5, 8, 12)     # seeds of small networks that use every engine
GARBAGE  = 3                    # contents of memory that a good run must not depend on
WATCHDOG = (Error.STALLED.name, Error.CYCLE_LIMIT.name)
SHOWN    = 20                   # faults that are printed in full


class CheckedTop(wiring.Component):
    """What is simulated, and a checker of the whole off-chip memory.

    Members
    -------
    Those of :class:`sim.top.SimTop`, and ``check``, ``first``, ``count``, ``strays``, ``stray`` as
    ``offchip_checker.v`` says.
    """

    def __init__(self, config):
        self.config = config
        self.sim    = SimTop(config)
        super().__init__({**self.sim.signature.members, "check": In(1), "first": In(32),
                          "count": In(32), "strays": Out(32), "stray": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.sim = inner = self.sim
        for name, member in inner.signature.members.items():
            ours, theirs = getattr(self, name), getattr(inner, name)
            if member.is_signature:
                connect(m, flipped(ours), theirs)
            elif member.flow is In:
                m.d.comb += theirs.eq(ours)
            else:
                m.d.comb += ours.eq(theirs)
        m.submodules.checker = Instance(
            "offchip_checker", p_BYTES=self.config.vector, p_DEPTH=self.config.offchip_words,
            i_clk=ClockSignal(), i_load=self.load, i_check=self.check, i_first=self.first,
            i_count=self.count, o_strays=self.strays, o_stray=self.stray)
        return m


def bases(seeds=NETWORKS, config=TINY):
    """Good programs of small networks, each with its frame and what it leaves behind.

    The largest map of those with an odd seed is spilled, so that both STORE engines have work; the
    others have a window of outputs alone. What a run leaves is
    the interpreter's, whose outputs must be golden's.
    """
    return [_base(seed, config) for seed in seeds]


def _base(seed, config):
    graph   = arbitrary_graph(seed, depth=1, widths=(3, 6), largest_side=12)
    image   = arbitrary_image(graph, seed + 1)
    network = lower(graph)
    _, machine = plan(network, config, 1, spillable(network)[:seed % 2], SCHEDULES[-2][0])
    program = finish(machine)
    start   = program.frame_address(0)
    blob    = program.pack_frame(image)
    memory  = bytearray(program.image)
    memory[start:start + len(blob)] = blob
    memory.extend(bytes(-len(memory) % config.vector))
    golden  = {name: x.numpy() for name, x in integer.run(graph, image).items()}
    first, limit = program.writable
    left = []
    for garbage in range(GARBAGE):
        after = Interpreter(config, memory)
        _litter(after, np.random.default_rng(garbage))
        after.run(program.program_base, seed=garbage)
        for output in program.outputs:
            found = program.unpack(output, after.offchip[output.base:][:output.bytes].tobytes())
            name  = output.name.removesuffix("_stored").removesuffix("_packed")
            if not np.array_equal(found.numpy(), golden[name]):
                raise SimulationError(f"The interpreter's {output.name} of network {seed} is not "
                                      f"golden's; `{COMMAND} fuzz` looks into that")
        left.append(after.offchip[first:limit])
    decided = np.where((np.array(left) == left[0]).all(axis=0), 0xFF, 0).astype(np.uint8)
    return Base(f"network {seed}", bytes(memory), program.program_base, program.writable,
                left[0].tobytes(), decided.tobytes(), program.estimated_cycles)


def _litter(machine, rng):
    """Fill every memory of activations with what earlier runs might have left."""
    for memory in (machine.onchip, machine.feedback, machine.alpha,
                   *(unit.rows for unit in machine.units.values())):
        memory[:] = rng.integers(0, 256, memory.shape, np.uint8)


def spoil(n, seed, *, simulator="verilator", protected=True, told=lambda case: None):
    """Run cases ``seed`` .. ``seed + n - 1``; ``told`` gets each as the bench tells it. Not
    ``protected``, programs may write everywhere, which the checker must notice."""
    check_installed(simulator)
    built = build(simulator, export(CheckedTop(TINY), name="top", reset=False), top="top",
                  sources=(*SOURCES, CHECKER))
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="hostile-") as name:
        folder = Path(name)
        (folder / "bases").write_bytes(pickle.dumps(bases()))
        (folder / "job").write_text(json.dumps({
            "bases": str(folder / "bases"), "n": n, "seed": seed, "vector": TINY.vector,
            "protected": protected,
            "clock": simulator != "verilator", "image": str(folder / "image"),
            "dump": str(folder / "dump")}))
        plusargs = [timing_plusarg(TINY), f"+offchip_image={folder / 'image'}",
                    f"+offchip_dump={folder / 'dump'}"]
        if simulator == "verilator":
            plusargs.append("+clock=10000")
        cases = _Cases(told)
        try:
            with (folder / "log").open("wb") as log:
                run(built, BENCH, folder=folder, plusargs=plusargs, output=log,
                    pass_fds=(cases.pipe,),
                    env={"ATTUNE_JOB": folder / "job", "ATTUNE_PROGRESS": cases.pipe})
        except SimulationError as error:
            kept = CACHE / "hostile-code.log"
            kept.write_bytes((folder / "log").read_bytes())
            raise SimulationError(f"{error}; its messages are in {kept}") from None
        finally:
            cases.close()
    if cases.ready:
        raise SimulationError(f"Before anything was spoiled, {cases.ready[0]}")
    return cases.found


class _Cases:
    """Reads what the bench tells, in a thread."""

    def __init__(self, told):
        self.found, self.ready, self._told = [], [], told
        read, self.pipe = os.pipe()
        self._thread = threading.Thread(target=self._listen, args=(read,), daemon=True)
        self._thread.start()

    def _listen(self, read):
        with os.fdopen(read) as lines:
            for line in lines:
                case = json.loads(line)
                if "ready" in case:
                    self.ready = case["ready"]
                else:
                    self.found.append(case)
                    self._told(case)

    def close(self):
        os.close(self.pipe)
        self._thread.join(timeout=30)


def outcome(case):
    """``same`` or ``other`` result, ``error``, or ``watchdog``."""
    if case["error"] == Error.NONE.name:
        return "same" if case["kept"] else "other"
    return "watchdog" if case["error"] in WATCHDOG else "error"


def table(cases):
    """Outcomes by kind of mutation."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("spoiled")
    columns = ("cases", "same result", "other result", "error", "watchdog", "faults")
    for column in columns:
        shown.add_column(column, justify="right")
    for kind in (*KINDS, "all"):
        mine  = [case for case in cases if kind in (case["kind"], "all")]
        count = Counter(map(outcome, mine))
        shown.add_row(kind, *map(str, (len(mine), count["same"], count["other"], count["error"],
                                       count["watchdog"], sum(bool(c["faults"]) for c in mine))))
    return shown


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, SimulationError)


def _command(arguments):
    options, console = _parse(arguments), make_console()
    if options.n < 1:
        raise InputError(f"N must be positive, not {options.n}")
    if options.seed < 0:
        raise InputError(f"SEED must not be negative, not {options.seed}")
    start = time.monotonic()
    with bars(console) as bar:
        task = bar.add_task("programs", total=options.n)
        cases = spoil(options.n, options.seed, simulator=options.sim,
                      told=lambda case: bar.advance(task))
    minutes = (time.monotonic() - start) / 60
    console.print(table(cases))
    errors = Counter(case["error"] for case in cases if case["error"] != Error.NONE.name)
    console.print("errors: " + ", ".join(f"{name} {count}"
                                         for name, count in errors.most_common()))
    guilty = [case for case in cases if case["faults"]]
    for case in guilty[:SHOWN]:
        console.print(f"\n{case['what']}: {'; '.join(case['faults'])}; replay with")
        print(f"{COMMAND} hostile-code N=1 SEED={case['case']} SIM={options.sim}")
    if len(guilty) > SHOWN:
        console.print(f"\nand {len(guilty) - SHOWN} more")
    if len(cases) < options.n:
        console.print(f"\nthe machine hung, so {options.n - len(cases)} programs were not run")
    if guilty or len(cases) < options.n:
        return 1
    console.print(f"{len(cases)} spoiled programs, {len(cases)} good ones after them, in "
                  f"{minutes:.1f} minutes: each ended within its limits, nothing outside the "
                  "window was written, every good run was right")
    return 0


def _parse(arguments):
    parser = Parser("sim.campaigns.hostile_code", __doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sim", choices=SIMULATORS, default="verilator")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
