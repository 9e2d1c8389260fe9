"""``make hostile-bus``: whole frames on a bus that does whatever AXI allows, every byte compared.

Frame by frame, each drawn from SEED and its number: a network, a size, how every channel stalls,
in which order addresses, data and responses come, what the host does to the registers meanwhile.
Before some frames comes a run that is cut short: by an error on a beat or a response, a stop, a
limit, or a memory that falls silent. It must end for that reason and no other, and the frame after
it must be as if nothing had been.

Compared are all of off-chip memory and every byte of every tensor with a run on a friendly bus in
which each tensor was equal to golden's; and rows of the attention monitor with golden's maps. AXI's
rules are watched on both sides of the bus and at the chip's other ports. Exit code 0: all as it
must be; 1: a fault, with the command that repeats it; 2: it could not be done.
"""

import json
import os
import random
import shlex
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from golden.command import Parser, exit_code
from golden.errors import InputError
from golden.names import NETWORKS
from golden.places import CACHE, COMMAND
from golden.progress import bars
from hw.compiler import CompileError
from hw.config import preset
from hw.control.regmap import REGISTERS, Access, Register
from hw.isa import INSTRUCTION, INSTRUCTION_BYTES, Engine, Opcode, StreamHeader
from hw.memory.axi import Response
from hw.memory.dram import timing_plusarg
from hw.top import TAPS
from sim.compare import compare_tensors
from sim.errors import SimulationError
from sim.host import CLOCK_PERIOD, broken_rules
from sim.hostile_bus import CHANNELS, SPAN, ErrorOn, Order
from sim.run import Options, golden_tensors, prepare
from sim.simulators import build, check_installed, run
from sim.taps import meaningful, read_records, read_tensors

__all__ = ["BROKEN", "WHOLE", "campaign", "main", "plans_of", "readers"]

BENCH  = "sim.campaigns.bench_hostile_bus"
WHOLE  = ("back-pressure", "late", "disordered", "registers", "everything")
BROKEN = ("read error", "write error", "stop", "limit", "silence")
"""Behaviours under which a frame must be finished, and those that cut a run short."""

CUT_SHORT = 0.4         # frames before which a run is cut short
SIZES     = (16, 16, 16, 32)
WIDTH     = 4
PER_CHUNK = 100         # frames of one process of the simulator
SPARE     = 20          # of this many chunks, one is of each further machine
MONITORED = [name for name in Register.__members__ if name.startswith("MONITOR_")
             and REGISTERS[Register[name]].access is Access.READ_WRITE]
READ_ONLY = [register for register, entry in REGISTERS.items() if entry.access is Access.READ]
UNMAPPED  = (0x3FC, 0x800, 0xFFC)


class BusFault(Exception):
    """What went wrong in a run, and the frame to which it belongs."""

    def __init__(self, text, frame):
        super().__init__(text)
        self.frame = frame


@dataclass(frozen=True)
class Case:
    """One network, and the side of its frame."""
    network: str
    size:    int

    @property
    def name(self):
        return f"{self.network}-{self.size}"


def readers(program):
    """Who may have read an off-chip byte: (start, end, engine) of headers, streams and loads."""
    found = []
    for engine in Engine:
        at     = program.program_base + engine * INSTRUCTION_BYTES
        header = StreamHeader.from_bits(_word(program.image, at))
        found.append((at, at + INSTRUCTION_BYTES, engine.value))
        for number in range(header.count):
            where = header.address + number * INSTRUCTION_BYTES
            found.append((where, where + INSTRUCTION_BYTES, engine.value))
            one = INSTRUCTION.from_bits(_word(program.image, where))
            if one.sync.opcode == Opcode.LOAD:
                load = one.load
                found.append((load.offchip, load.offchip + load.beats * program.vector,
                              engine.value))
    return found


def _word(image, at):
    return int.from_bytes(image[at:at + INSTRUCTION_BYTES], "little")


def plans_of(seed, frame, cases):
    """The plans of one frame: perhaps a run that is cut short, then the frame itself. ``cases`` are
    the known facts of each case, by case; a case that is not known yet is only named."""
    rng   = random.Random(f"{seed}/{frame}")
    plans = []
    if rng.random() < CUT_SHORT:
        plans.append(_plan(rng, frame, rng.choice(BROKEN), _case(rng), cases))
    plans.append(_plan(rng, frame, rng.choice(WHOLE), _case(rng), cases))
    return plans


def _case(rng):
    return Case(rng.choice(list(NETWORKS)), rng.choice(SIZES))


def _plan(rng, frame, kind, case, cases):
    seed  = rng.getrandbits(32)
    facts = cases.get(case, {"cycles": 1, "read_beats": 1, "responses": 1})
    rng   = random.Random(seed)
    plan  = {"frame": frame, "kind": kind, "case": case.name, "seed": seed,
             "hostility": _hostility(rng, kind, facts), "actions": [], "reset": rng.random() < 0.1,
             "stall_limit": rng.randrange(3000, 6000) if kind == "silence" else 0,
             "frozen_start": kind == "silence" and rng.random() < 0.5}
    if kind in ("registers", "everything"):
        plan["actions"] = _actions(rng, facts["cycles"])
    elif kind in ("stop", "limit", "silence"):
        name = {"stop": rng.choice(("stop", "stop", "start_and_stop")), "limit": "limit",
                "silence": "freeze"}[kind]
        when = rng.choice((0, 3, rng.randrange(200), rng.randrange(facts["cycles"])))
        plan["actions"] = [[when, name]]
    return plan


def _hostility(rng, kind, facts):
    one = {"seed": rng.getrandbits(32), "garbage": rng.randrange(2),
           "reorder": rng.randrange(2), "order": rng.choice(list(Order)).value}
    for channel in CHANNELS:
        if kind in ("late", "everything") and rng.random() < 0.6:
            odds, span = rng.randrange(2, 20), rng.randrange(5, SPAN + 1)
            if channel == "t":
                span = min(span, 7)
        else:
            odds, span = rng.choice((0, rng.randrange(100), rng.randrange(220))), rng.randrange(4)
        one |= {f"{channel}_odds": odds, f"{channel}_span": span}
    if kind == "disordered":
        one |= {"reorder": 1, "garbage": 1, "order": rng.choice(list(Order)[1:]).value}
    one["error_on"] = 0
    if kind in ("read error", "write error"):
        reads = kind == "read error"
        total = facts["read_beats" if reads else "responses"]
        one |= {"error_on": (ErrorOn.READ if reads else ErrorOn.WRITE).value,
                "error_at": rng.choice((0, rng.randrange(min(total, 100)), rng.randrange(total))),
                "errors": rng.choice((1, 1, rng.randrange(2, 40))),
                "response": rng.choice((Response.SLVERR, Response.DECERR)).value}
    return one


def _actions(rng, cycles):
    """What the host does to the registers in a run that must not notice."""
    actions, when = [], 0
    for _ in range(rng.randrange(1, 12)):
        when += rng.choice((1, 7, rng.randrange(1 + cycles // 4)))
        kind  = rng.choice(("start", "base", "window", "aim", "look", "scribble", "interrupts",
                            "clear", "count"))
        values = {
            "base":     lambda: [rng.getrandbits(32)],
            "aim":      lambda: [rng.choice(MONITORED), rng.getrandbits(rng.choice((1, 4, 11)))],
            "look":     lambda: [rng.choice((*REGISTERS, *UNMAPPED))],
            "scribble": lambda: [rng.choice((*READ_ONLY, *UNMAPPED)), rng.getrandbits(32)],
            "count":    lambda: [rng.getrandbits(16)],
        }.get(kind, list)()
        if kind == "interrupts":
            actions.append([when, "interrupts", 0])
            when  += rng.randrange(50)
            values = [1]
        actions.append([when, kind, *values])
    return actions


class Machine:
    """One preset in one folder, with what is known of its cases."""

    def __init__(self, config, built, folder, memory):
        self.config, self.built, self.folder = config, built, folder
        self.folder.mkdir()
        self.memory = memory
        self.facts, self.maps, self.records = {}, {}, {}
        rng = np.random.default_rng(0)
        self._pattern = rng.integers(0, 256, memory, np.uint8)
        (folder / "pattern").write_bytes(self._pattern.tobytes())

    def learn(self, case):
        """Run a case on a friendly bus, and compare every tensor with golden."""
        job     = prepare(Options(model=case.network, config=self.config.name, size=case.size,
                                  width=WIDTH))
        program = job.program
        image   = self._pattern.copy()
        image[:len(program.image)] = np.frombuffer(program.image, np.uint8)
        blob    = program.pack_frame(job.frames[0])
        start   = program.frame_address(0)
        image[start:start + len(blob)] = np.frombuffer(blob, np.uint8)
        path    = self.folder / f"{case.name}.image"
        path.write_bytes(image.tobytes())
        facts   = {"name": case.name, "image": str(path), "program_base": program.program_base,
                   "expected": str(self.folder / f"{case.name}.expected"),
                   "cycles": program.estimated_cycles, "bytes": self.memory,
                   "registers": dict(zip(("WRITE_BASE", "WRITE_LIMIT"), program.writable,
                                         strict=True)),
                   "readers": readers(program)}
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            scratch = Path(scratch)
            seen = list(self._simulate({"reference": True, "cases": [facts], "plans": []}, scratch))
            for one in seen:
                if "fault" in one:
                    raise BusFault(f"{case.name}: {one['fault']}", 0)
            facts |= seen[0]
            self.records[case.name] = [
                (raw, meaningful(raw, program.layers, self.config.vector))
                for raw in self._tapped(scratch)]
            recorded = read_tensors(scratch / "taps", program.layers, frames=1,
                                    vector=self.config.vector)
        after   = np.fromfile(facts["expected"], np.uint8)
        outputs = {out.name: program.unpack(out, after[out.base:][:out.bytes].tobytes()).numpy()
                   for out in program.outputs}
        golden  = golden_tensors(job.graph, job.frames)
        compared = compare_tensors(golden, [outputs], recorded)
        if compared["mismatched"]:
            raise BusFault(f"{case.name} differs from golden on a friendly bus", 0)
        # Loads and dumps go as far as the program does; beyond, the pattern is of the process.
        changed = np.flatnonzero(after != self._pattern)
        facts["bytes"] = -(-int(changed[-1] + 1) // self.config.vector) * self.config.vector
        for name in ("image", "expected"):
            os.truncate(facts[name], facts["bytes"])
        self.maps[case.name] = {layer.id: golden[0][layer.tensor]
                                for layer in program.layers if layer.tensor in golden[0]}
        self.facts[case] = facts

    def run(self, plans):
        """Outcomes of ``plans``, each as it comes; then their monitored rows are judged.

        Raises
        ------
        BusFault
        """
        used     = {plan["case"] for plan in plans}
        outcomes = []
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            scratch = Path(scratch)
            job     = {"reference": False, "plans": plans, "pattern": str(self.folder / "pattern"),
                       "cases": [facts for facts in self.facts.values() if facts["name"] in used]}
            try:
                with closing(self._simulate(job, scratch)) as found:
                    for outcome in found:
                        if "fault" in outcome:
                            plan = plans[min(len(outcomes), len(plans) - 1)]
                            raise BusFault(self._describe(plan, outcome["fault"], scratch),
                                           plan["frame"])
                        outcomes.append(outcome)
                        yield plans[outcome["number"]], outcome
            except SimulationError as error:
                plan = plans[min(len(outcomes), len(plans) - 1)]
                raise BusFault(self._describe(plan, str(error), scratch), plan["frame"]) from None
            self._judge_rows(plans, outcomes, np.fromfile(scratch / "monitor.tap", "<u4"))
            self._judge_tensors(plans, outcomes, self._tapped(scratch))

    def _describe(self, plan, text, scratch):
        rules = broken_rules(scratch / "simulator.log")
        return (f"{plan['case']} on {self.config.name}, {plan['kind']}: {text}"
                + (f": {rules[0]}" if rules else ""))

    def _tapped(self, scratch):
        return [read_records(scratch / "taps" / f"{name}.tap", self.config.vector)
                for name in TAPS]

    def _judge_tensors(self, plans, outcomes, tapped):
        """Every byte that whole frames show at the taps, in the order in which it came. What an
        engine still did of a run that was cut short comes before the frame's own."""
        cut = False
        for plan, outcome in zip(plans, outcomes, strict=True):
            after_cut, cut = cut, not outcome["complete"]
            if cut:
                continue
            for number, (tap, seen) in enumerate(zip(TAPS, tapped, strict=True)):
                first, last = (counts[1 + number] for counts in outcome["recorded"])
                expected, mask = self.records[plan["case"]][number]
                if after_cut:
                    first = max(first, last - len(expected))
                got = seen[first:last]
                if len(got) != len(expected) or ((got != expected) & mask).any():
                    raise BusFault(f"{plan['case']} on {self.config.name}, {plan['kind']}: tensors "
                                   f"at the tap {tap} are wrong", plan["frame"])

    def _judge_rows(self, plans, outcomes, words):
        """Every row that the monitor sent is of one row of one map, and as golden has it where the
        monitor was not re-aimed and its sink kept up; no row may be left without its end."""
        for plan, outcome in zip(plans, outcomes, strict=True):
            first, last = (counts[0] for counts in outcome["recorded"])
            mine  = words[first:last]
            parts = np.split(mine, np.flatnonzero(mine >> 28 & 1) + 1)
            for number, part in enumerate(parts):
                if not part.size:
                    continue
                if (part >> 8 & 0xFFFFF != part[0] >> 8 & 0xFFFFF).any():
                    raise BusFault(f"{plan['case']}, {plan['kind']}: the monitor sent a row of "
                                   "several rows", plan["frame"])
                steady = not plan["actions"] and plan["hostility"]["t_odds"] == 0
                if steady and 0 < number < len(parts) - 1:
                    layer, row = int(part[0] >> 8 & 0xFF), int(part[0] >> 16 & 0xFFF)
                    right = self.maps[plan["case"]][layer][0, row]
                    if not np.array_equal(part & 0xFF, right):
                        raise BusFault(f"{plan['case']}, {plan['kind']}: row {row} of layer "
                                       f"{layer} left the monitor wrong", plan["frame"])

    def _simulate(self, job, scratch):
        """Outcomes from the simulator, as they come. Closed early, it waits for the simulator,
        which ends after a fault, and would write into a folder that is gone."""
        (scratch / "taps").mkdir()
        job = {**job, "clock": self.built.simulator != "verilator", "vector": self.config.vector,
               "memory": self.memory, "image": str(scratch / "image.bin"),
               "dump": str(scratch / "dump.bin")}
        (scratch / "job.json").write_text(json.dumps(job))
        plusargs = [timing_plusarg(self.config), f"+offchip_image={job['image']}",
                    f"+offchip_dump={job['dump']}", f"+monitor={scratch}",
                    f"+taps={scratch / 'taps'}", f"+clock={CLOCK_PERIOD}"]
        failures = []

        def simulate(pipe):
            try:
                with (scratch / "simulator.log").open("wb") as log:
                    run(self.built, BENCH, folder=scratch, plusargs=plusargs, output=log,
                        pass_fds=(pipe,), env={"ATTUNE_JOB": scratch / "job.json",
                                               "ATTUNE_PROGRESS": pipe})
            except SimulationError as error:
                failures.append(error)
            finally:
                os.close(pipe)

        read, write = os.pipe()
        thread = threading.Thread(target=simulate, args=(write,), daemon=True)
        thread.start()
        try:
            with os.fdopen(read) as lines:
                for line in lines:
                    yield json.loads(line)
        finally:
            thread.join()
        if failures:
            raise failures[0]


def campaign(frames, seed, first, configs, console):
    """Run ``frames`` frames from number ``first``; the tally, and the fault or None."""
    tally = Counter()
    with (tempfile.TemporaryDirectory(dir=_cache(), prefix="bus-") as folder,
          bars(console) as bar):
        task     = bar.add_task("building", total=frames)
        machines = {}
        for number, chunk in enumerate(_chunks(first, frames)):
            config = configs[_which(number, len(configs))]
            if config.name not in machines:
                bar.update(task, description=f"building the hostile {config.name}")
                machines[config.name] = Machine(config, _built(config),
                                                Path(folder) / config.name, config.offchip_bytes)
            machine = machines[config.name]
            try:
                for plan in (plan for frame in chunk for plan in plans_of(seed, frame, {})):
                    case = _named(plan["case"])
                    if case not in machine.facts:
                        bar.update(task, description=f"learning {case.name} on {config.name}")
                        machine.learn(case)
                bar.update(task, description=f"frames on {config.name}")
                plans = [plan for frame in chunk
                         for plan in plans_of(seed, frame, machine.facts)]
                for plan, outcome in machine.run(plans):
                    network = _named(plan["case"]).network
                    whole   = plan["kind"] in WHOLE
                    tally[network, plan["kind"]] += 1
                    tally["cycles"] += outcome["cycles"]
                    tally["frames"] += outcome["complete"]
                    tally["cut short"] += not outcome["complete"]
                    if whole:
                        bar.advance(task)
            except BusFault as fault:
                return tally, fault
    return tally, None


def _chunks(first, frames):
    """Numbers of frames, one list for each process of the simulator."""
    return [range(at, min(at + PER_CHUNK, first + frames))
            for at in range(first, first + frames, PER_CHUNK)]


def _which(chunk, configs):
    """The machine of a chunk: nearly always the first."""
    return chunk % SPARE if 0 < chunk % SPARE < configs else 0


def _named(name):
    network, _, size = name.rpartition("-")
    return Case(network, int(size))


def _built(config):
    from hw.verilog import export
    from sim.top import SOURCES, SimTop
    return build("verilator", export(SimTop(config, hostile=True), name="top", reset=False),
                 top="top", sources=SOURCES)


def _cache():
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, CompileError, SimulationError)


def _command(arguments):
    options, console = _parse(arguments), Console(highlight=False)
    if options.frames < 1:
        raise InputError(f"FRAMES must be positive, not {options.frames}")
    check_installed("verilator")
    configs = [preset(name) for name in options.config.split(",")]
    start   = time.monotonic()
    tally, fault = campaign(options.frames, options.seed, options.first, configs, console)
    seconds = time.monotonic() - start
    console.print(_table(tally))
    if fault is None:
        console.print(f"{tally['frames']} frames, every byte right; {tally['cut short']} runs cut "
                      f"short, each for its reason; {tally['cycles'] / 1e6:.1f} M cycles in "
                      f"{seconds:.0f} s; no rule of AXI broken")
        return 0
    console.print(f"frame {fault.frame}: {fault}")
    console.print("repeat with")
    print(shlex.join([COMMAND, "hostile-bus", "FRAMES=1", f"FIRST={fault.frame}",
                      f"SEED={options.seed}", f"CONFIG={options.config}"]))
    return 1


def _table(tally):
    table = Table("runs", *NETWORKS, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for kind in (*WHOLE, *BROKEN):
        table.add_row(kind, *(str(tally[network, kind]) for network in NETWORKS))
    return table


def _parse(arguments):
    parser = Parser("sim.campaigns.bus_campaign", __doc__)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--config", default="tiny,edge")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
