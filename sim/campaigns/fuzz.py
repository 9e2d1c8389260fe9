"""``make fuzz``: random networks through every door, until one goes wrong.

Each goes from :mod:`golden.arbitrary` to ONNX QDQ and back, which must change nothing; is compiled
for every machine; runs, and each tensor must equal golden's, and on the RTL each counter that of
the exact cycle model. Machines are presets, files, or ``random:SEED``. One that does not fit its
machine must fit with what the refusal says to set. A network that fails is made
smaller while it still fails the same way, and printed as the command that replays it. Exit code 0:
all agree; 1: one does not; 2: it could not be done.
"""

import re
import sys
from dataclasses import dataclass, fields, replace
from functools import cache

import numpy as np
import torch

from golden import integer
from golden.arbitrary import arbitrary_graph, arbitrary_image
from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from golden.folders import temporary
from golden.onnx_export import export
from golden.places import CACHE, COMMAND
from golden.progress import bars
from golden.referee import STEP_BAR
from hw.arbitrary import PREFIX, arbitrary_machine, is_arbitrary
from hw.compiler import CompileError, compile_network
from hw.compiler.importer import import_onnx, judge
from hw.compiler.pack import padded_channels
from hw.config import MACHINES, preset
from hw.machine_file import parse_changes
from sim.compare import compare_tensors
from sim.errors import SimulationError
from sim.host import RtlEngine
from sim.interpreter import Deadlock, Interpreter
from sim.model import differences as cycle_differences
from sim.model import run_model
from sim.names import FUZZ_ENGINES
from sim.simulators import check_installed
from sim.taps import Recorded, golden_name

__all__ = ["Case", "differences", "find", "fuzz", "interpreted", "main", "shrink"]

SMALLER = {"depth": (1, 2, 3), "widest": (3, 4, 8, 16), "side": (8, 12, 16, 24)}
REFUSED = "refused"     # of a network that fits the machine only with more memory
WAY_OUT = re.compile(r"SET=(?:'([^']+)'|(\S+))")
SCALE   = 2e-6          # relative: scales of a file are float32


@dataclass(frozen=True)
class Case:
    """One network: the arguments of its generator, and the tensor at which it is ``cut``. What is
    for machines without bounds for each channel has none."""
    seed:   int
    depth:  int = None
    widest: int = 48
    side:   int = 40
    cut:    str = None
    bounds: bool = True

    def graph(self):
        graph = arbitrary_graph(self.seed, depth=self.depth, widths=(3, self.widest),
                                largest_side=self.side, bounds=self.bounds)
        return cut(graph, self.cut) if self.cut else graph

    def command(self, config, engine, referee):
        """What replays it."""
        machine = config.name.replace("random-", PREFIX)
        asked = {"SEED": self.seed, "DEPTH": self.depth, "WIDEST": self.widest, "SIDE": self.side,
                 "CUT": self.cut, "CONFIG": machine, "ENGINE": engine,
                 "REFEREE": 1 if referee else None}
        return f"{COMMAND} fuzz N=1 " + " ".join(f"{name}={value}" for name, value in asked.items()
                                           if value is not None)


def cut(graph, name):
    """The part of a graph that makes one tensor, which becomes its output."""
    if name not in graph.tensors or name == graph.input:
        raise InputError(f"CUT must be a tensor that some layer makes, not {name!r}; there are "
                         + ", ".join(x for x in graph.tensors if x != graph.input))
    needed = {name, graph.input}
    for layer in reversed(graph.layers):
        if layer.name in needed:
            needed.update(layer.inputs)
    layers = tuple(layer for layer in graph.layers if layer.name in needed)
    return replace(graph, layers=layers, output=name, outputs=(name,),
                   tensors={x: t for x, t in graph.tensors.items() if x in needed})


def differences(graph, again):
    """What is not the same in two graphs, a line each."""
    found = []
    for layer, other in zip(graph.layers, again.layers, strict=False):
        if (type(layer), layer.name) != (type(other), other.name):
            return [" became ".join(f"{type(x).__name__} {x.name!r}" for x in (layer, other))]
        for part in fields(layer):
            a, b = getattr(layer, part.name), getattr(other, part.name)
            same = (a.dtype == b.dtype and torch.equal(a, b) if isinstance(a, torch.Tensor)
                    else a == b)
            if not same:
                found.append(f"{part.name} of {layer.name!r} changed")
    if len(graph.layers) != len(again.layers):
        found.append(f"{len(graph.layers)} layers became {len(again.layers)}")
    for name, t in graph.tensors.items():
        other = again.tensors.get(name)
        if other is None or replace(other, scale=t.scale) != t or (
                abs(other.scale / t.scale - 1) > SCALE):
            found.append(f"tensor {name!r} changed")
    for part in ("network", "input", "output", "outputs"):
        if getattr(graph, part) != getattr(again, part):
            found.append(f"{part} changed")
    return found


def find(case, config, *, engine, referee=False):
    """What is wrong with a network on one machine: a short kind, and a line; None if nothing."""
    graph   = case.graph()
    image   = arbitrary_image(graph, case.seed + 1)
    imported = import_onnx(graph.network, model=export(graph))
    changed = differences(graph, imported.graph)
    if changed:
        return "import", f"the file holds another network: {changed[0]}"
    if referee:
        worst = max(judge(imported, image), key=lambda layer: layer.steps)
        if worst.steps > STEP_BAR:
            return "referee", f"ONNX Runtime differs by {worst.steps} steps in {worst.name!r}"
    golden = {name: x.numpy() for name, x in integer.run(graph, image).items()}
    try:
        program = compile_network(imported.graph, config)
    except CompileError as error:
        return ((REFUSED, str(error)) if fits_as_told(imported.graph, config, error) else
                ("compile", f"does not compile: {error}"))
    try:
        if engine == "rtl":
            outputs, recorded, otherwise = _rtl(program, config, image)
        else:
            outputs, recorded = interpreted(program, config, image, case.seed)
            otherwise = []
    except (SimulationError, Deadlock) as error:
        return "run", f"does not run: {error}"
    if otherwise:
        return "cycles", f"the cycle model differs in {len(otherwise)} counters: {otherwise[0]}"
    compared = compare_tensors([golden], [outputs], recorded)
    if compared["problems"]:
        return "tensor", compared["problems"][0]
    first = compared["first_mismatch"]
    if first:
        return "tensor", ("{layer} differs at channel {channel}, row {row}, column {column}: "
                          "{got} instead of {expected}".format(**first))
    missing = set(graph.outputs) - {golden_name(name, golden) for name in outputs}
    return ("outputs", f"no output {sorted(missing)[0]}") if missing else None


def fits_as_told(graph, config, refusal):
    """Whether a network fits a machine with what a refusal says to set; each further memory that is
    then too small is set as well."""
    told = set()
    while (found := WAY_OUT.search(str(refusal))) and found[0] not in told:
        told.add(found[0])
        try:
            config = MACHINES.change(config, parse_changes(found[1] or found[2]), "SET")
            compile_network(graph, config)
        except InputError:
            return False
        except CompileError as error:
            refusal = error
        else:
            return True
    return False


def shrink(case, fails, *, tried=lambda smaller: None):
    """A smaller case for which ``fails`` still holds: fewer levels, narrower layers, a smaller
    frame, and cut at the earliest tensor. Deterministic."""
    for name, values in SMALLER.items():
        for value in values:
            now = getattr(case, name)
            smaller = replace(case, **{name: value})
            if now is not None and value >= now:
                break
            tried(smaller)
            if fails(smaller):
                case = smaller
                break
    if case.cut is None:
        graph = case.graph()
        for layer in graph.layers:
            if layer.name == graph.output:
                break
            smaller = replace(case, cut=layer.name)
            if layer.inputs:
                tried(smaller)
                if fails(smaller):
                    return smaller
    return case


def fuzz(cases, configs, console, *, engine, referee=False):
    """Run all cases on all machines; returns the first that fails, shrunk, with its machine and
    what is wrong, or None; and the cases and machines that do not go together."""
    cases   = list(cases)
    refused = []
    with bars(console) as bar:
        task = bar.add_task(f"networks, {engine}", total=len(cases) * len(configs))
        for case, config in ((replace(case, bounds=config.channel_bounds), config)
                             for case in cases for config in configs):
            wrong = find(case, config, engine=engine, referee=referee)
            bar.advance(task)
            if wrong and wrong[0] == REFUSED:
                refused.append((case, config))
            elif wrong:
                break
        else:
            return None, refused
    kind, line = wrong
    console.print(f"seed {case.seed} on {config.name}: {line}")

    def fails(smaller):
        found = find(smaller, config, engine=engine, referee=referee)
        return found is not None and found[0] == kind

    with console.status("making it smaller") as status:
        small = shrink(case, fails, tried=lambda smaller: status.update(
            f"making it smaller: {smaller}"))
    return (small, config, find(small, config, engine=engine, referee=referee)[1]), refused


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, SimulationError)


def _command(arguments):
    options, console = _parse(arguments), make_console()
    if options.n < 1:
        raise InputError(f"N must be positive, not {options.n}")
    if options.engine == "rtl":
        check_installed("verilator")
    configs = [arbitrary_machine(name) if is_arbitrary(name) else preset(name)
               for name in options.config.split(",")]
    cases   = [Case(options.seed + index, options.depth, options.widest, options.side, options.cut)
               for index in range(options.n)]
    wrong, refused = fuzz(cases, configs, console, engine=options.engine,
                          referee=bool(options.referee))
    if wrong is None:
        console.print(f"{options.n} networks on {' and '.join(x.name for x in configs)}: every "
                      "tensor equal" + (", every counter that of the cycle model"
                                        if options.engine == "rtl" else ""))
        if refused:
            console.print(f"{len(refused)} of {len(cases) * len(configs)} do not fit, and do with "
                          "what the refusal says: " + ", ".join(
                              f"seed {case.seed} on {config.name}" for case, config in refused))
        return 0
    case, config, line = wrong
    console.print(f"{len(case.graph().layers)} layers: {line}")
    console.print("replay with")
    print(case.command(config, options.engine, options.referee))
    return 1


def _rtl(program, config, image):
    """Outputs and tensors by the hardware, and what it counted otherwise than the cycle model."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with temporary(CACHE, "fuzz-") as folder:
        chip = RtlEngine(program, config, _built(config), folder, taps=True)
        chip.load([image])
        chip.start()
        chip.wait()
        otherwise = cycle_differences(chip.counters(), chip.offchip, run_model(program, config))
        return chip.read_back()[0], chip.recorded(), otherwise


@cache
def _built(config):
    from sim.run import build_machine
    return build_machine(config, "verilator")


def interpreted(program, config, image, seed):
    """Outputs and tensors by the interpreter, with engines in a random order."""
    machine = Interpreter(config, program.image)
    blob    = program.pack_frame(image)
    start   = program.frame_address(0)
    machine.offchip[start:start + len(blob)] = np.frombuffer(blob, np.uint8)
    machine.run(program.program_base, seed=seed)
    outputs = {output.name: program.unpack(
        output, machine.offchip[output.base:][:output.bytes].tobytes()).numpy()
        for output in program.outputs}
    return outputs, [_tapped(layer, machine, config) for layer in program.layers]


def _tapped(layer, machine, config):
    positions, channels = padded_channels(layer.layout, config.vector)
    values_CHW  = np.zeros((channels, layer.height, layer.width), np.uint8)
    written_CHW = np.zeros(values_CHW.shape, int)
    for y in range(layer.height):
        for channel, columns, out_WC in machine.taps.get((layer.id, y), []):
            count = min(out_WC.shape[1], channels - channel)
            values_CHW[channel:channel + count, y, columns]   = out_WC[:, :count].T
            written_CHW[channel:channel + count, y, columns] += 1
    once = (written_CHW[positions] == 1).all()
    return Recorded(layer.tensor, 0, values_CHW[positions],
                    None if once else f"elements of {layer.tensor} were not written once")


def _parse(arguments):
    parser = Parser("sim.campaigns.fuzz", __doc__)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--config", default="tiny,edge")
    parser.add_argument("--engine", choices=FUZZ_ENGINES, default="rtl")
    parser.add_argument("--referee", type=int, choices=(0, 1), default=0)
    for part in fields(Case):
        kind = str if part.name == "cut" else int
        parser.add_argument(f"--{part.name}", type=kind, default=getattr(Case, part.name, 0))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
