"""``make wave``: run again, and write the waveforms of the cycles around one event.

The run is repeated from the settings in its report, stops behind the window, and leaves
``wave.fst`` in its folder, with a layout for GTKWave (``wave.gtkw``) and one for Surfer
(``wave.sucl``). Time in the file is cycle x clock period, as in ``trace.json``; under Icarus it is
the simulator's own.
"""

import re
import shlex
import shutil
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from golden.folders import temporary
from golden.places import CACHE, COMMAND
from hw.compiler import CompileError
from hw.isa import CONVS, FORMS, INSTRUCTION_BYTES, Cause, Engine, Opcode, StreamHeader
from hw.machine import text_of
from sim.compare import compare_tensors
from sim.errors import SimulationError
from sim.fst import read_fst
from sim.host import RtlEngine
from sim.measured import read_json
from sim.progress import CycleProgress
from sim.run import Options, build_machine, golden_tensors, prepare
from sim.trace import UNITS, chrome_trace
from sim.trace_file import read_trace

__all__ = ["Event", "find_event", "layout", "main", "show"]

WINDOW      = 2000
MAX_WINDOW  = 200_000
CYCLE_DIGITS = 15           # the machine's counter has 48 bits
BEFORE      = 50            # cycles between the left edge of GTKWave's window and the event
FRONT       = ("offered_valid", "cause", "layer", "retired", "retiring", "following_valid",
               "pending")
HEXADECIMAL = re.compile("addr|data")
BLOCKS      = {
    "load":      (r"chip\.load\.[^.$]*(valid|ready)", r"axi__(ar|r)(valid|ready|addr|len|last)"),
    "encoder":   (r"chip\.encoder\.[^.$]*(valid|ready)",),
    "attention": (r"chip\.attention\.[^.$]*(valid|ready)",),
    "decoder":   (r"chip\.decoder\.[^.$]*(valid|ready)",),
    "store":     (r"chip\.stores\.[^.$]*(valid|ready)",
                  r"axi__(aw|w|b)(valid|ready|addr|len|last)"),
}
ARRAYS      = (r"chip\.{}\.compute\.conv\."
               r"(sequencer\.(start|busy|weight_address)|array\.(valid|first|last))")


@dataclass(frozen=True)
class Event:
    """A cycle of the machine, and what happens in it; ``unit`` where it is one unit's."""
    cycle: int
    text:  str
    unit:  str = None


def show(run, at, *, window=WINDOW, console):
    """Write the waveforms of ``window`` cycles around the event ``at`` of the run in folder
    ``run``; returns the path of the FST file.

    Raises
    ------
    InputError, CompileError, SimulationError
        If there is no such run or event, or the run cannot be repeated.
    """
    if not 1 <= window <= MAX_WINDOW:
        raise InputError(f"Window must be 1 to {MAX_WINDOW} cycles, not {window}")
    folder, record = _record(run)
    options = _options(record["settings"], run)
    job     = prepare(options)
    machine = folder / "machine.toml"
    if machine.exists() and machine.read_text() != text_of(job.config):
        raise InputError(f"The run in {str(run)!r} cannot be repeated: {options.config} is another "
                         f"machine now; what it was is in {machine.name} there")
    CACHE.mkdir(parents=True, exist_ok=True)      # `make clean` may have been before
    with temporary(CACHE, "wave-") as scratch:

        def again():
            return _traced(options, job, scratch, console)

        event = find_event(at, record, folder, job, again)
        first = max(1, event.cycle - window // 2)
        path  = folder / "wave.fst"
        made  = scratch / path.name
        console.print(f"{event.text} is in cycle {event.cycle}; waveforms of cycles {first} to "
                      f"{first + window - 1}")
        with console.status(f"building the {job.config.name} machine for waveforms"):
            built = build_machine(job.config, options.sim, trace=True, waves=True,
                                  pins=options.pins)
        limit = first + window + 1
        with CycleProgress(console, limit) as progress:
            chip = RtlEngine(job.program, job.config, built, scratch, progress=progress,
                             arrivals=job.arrivals,
                             cycle_limit=min(limit, options.max_cycles or limit),
                             wave=(made, first, window))
            chip.load(job.frames)
            chip.start()
            try:
                chip.wait()
            except SimulationError:         # it stops behind the window, or where it did before
                if not made.exists():
                    raise
        shutil.move(made, path)
    signals = read_fst(path).signals
    groups  = layout(signals)
    period  = round(1e6 / job.config.clock_mhz)
    marker  = event.cycle * period if options.sim == "verilator" else None
    (folder / "wave.causes").write_text("".join(f"{cause.value:X} {cause.name.lower()}\n"
                                                for cause in Cause))
    (folder / "wave.gtkw").write_text(_gtkwave(path, groups, signals, marker, period, event.unit))
    (folder / "wave.sucl").write_text(_surfer(groups, marker))
    console.print(f"{path} ({path.stat().st_size / 2**20:.1f} MiB, {len(signals)} signals)",
                  soft_wrap=True, markup=False)
    for line in _viewers(path):
        console.print(line, soft_wrap=True, markup=False)
    return path


def _viewers(path):
    """Commands that open the waveforms, to be pasted."""
    for words in (("gtkwave", path.with_suffix(".gtkw")),
                  ("surfer", "--command-file", path.with_suffix(".sucl"), path)):
        yield shlex.join(map(str, words))


def find_event(at, record, folder, job, again):
    """The event that ``at`` names: ``mismatch``, ``error``, ``layer:NAME`` or a cycle.

    ``record`` is the report of the run, or what a failed run left; ``again()`` repeats it with
    events and tensors recorded, and returns ``trace.json`` and ``tensors`` of the report.

    Raises
    ------
    InputError
        If there is no such event.
    """
    if at == "mismatch":
        return _mismatch(record, job, again)
    if at == "error":
        if "error" not in record:
            raise InputError("The run ended without an error; there is none to show")
        return Event(record["error"]["cycle"], record["error"]["text"])
    cycles = record["error"]["cycle"] if "error" in record else record["cycles"]["total"]
    if at.startswith("layer:"):
        return _layer(at.removeprefix("layer:"), folder, job.program, again)
    if not (at.isascii() and at.isdigit() and len(at) <= CYCLE_DIGITS):
        raise InputError(f"AT is mismatch, error, layer:NAME or a cycle, not {at[:40]!r}")
    if int(at) >= cycles:
        raise InputError(f"Cycle {at} is beyond the end of the run, which took {cycles} cycles")
    return Event(int(at), f"cycle {at}")


def layout(signals):
    """``unit -> names``: of all ``signals``, those to begin with. Each is one of them."""
    def those(*patterns):
        wanted = [re.compile(rf"(.*\.)?top\.{pattern}") for pattern in patterns]
        return [name for pattern in wanted for name in signals if pattern.fullmatch(name)]

    groups = {"machine": those("clk", "cycle", "irq", r"chip\.controller\.(running|clear|abort)")}
    for unit, engines in UNITS.items():
        fronts = [rf"chip\.controller\.front_{engine.name.lower()}\.{name}"
                  for engine in engines for name in FRONT]
        arrays = [ARRAYS.format(unit)] if set(engines) & set(CONVS) else []
        groups[unit] = those(*fronts, *arrays, *BLOCKS[unit])
    groups["monitor"]  = those(r"monitor__(tvalid|tready|tlast|tdata|tuser)")
    groups["off-chip"] = those(r"(read_bytes|written_bytes|row_hits|row_misses|busy_cycles)",
                               r"offchip\.dram\.(offered|prepared|write|wait|refresh_left)")
    return {unit: list(dict.fromkeys(names)) for unit, names in groups.items() if names}


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, CompileError, SimulationError)


def _command(arguments):
    options = _parse(arguments)
    show(options.run, options.at, window=options.window, console=make_console())


def _parse(arguments):
    parser = Parser("sim.wave", __doc__)
    parser.add_argument("--run", default="reports/latest")
    parser.add_argument("--at", required=True)
    parser.add_argument("--window", type=int, default=WINDOW)
    return parser.parse_args(arguments)


def _record(run):
    """Folder and report of a run, or what is known of one that failed."""
    folder = Path(run).resolve()
    for name in ("report.json", "failed.json"):
        file = folder / name
        if file.exists():
            record = read_json(file)
            if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
                raise InputError(f"The run in {str(run)!r} cannot be repeated: its {name} has no "
                                 "settings; run it again")
            # Where it ended: in order, or with an error.
            end = record.get("error" if "error" in record else "cycles")
            cycle, text = ("cycle", str) if "error" in record else ("total", type(None))
            if not (isinstance(end, dict) and type(end.get(cycle)) is int and end[cycle] >= 0
                    and isinstance(end.get("text"), text)):
                raise InputError(f"The run in {str(run)!r} cannot be shown: its {name} does not "
                                 "say where it ended; run it again")
            return folder, record
    raise InputError(f"No run in {str(run)!r}; `{COMMAND} sim` leaves one in reports/latest")


def _options(settings, run):
    """The options of a run, of the types that they have."""
    known = {field.name: field for field in fields(Options)}
    for name, value in settings.items():
        right = (name in known and (value is None and known[name].default is None
                                    or type(value) is known[name].type))
        if not right:
            raise InputError(f"The run in {str(run)!r} cannot be repeated: its settings have "
                             f"{name[:40]!r} {str(value)[:40]!r}; run it again")
    return Options(**settings)


def _traced(options, job, scratch, console):
    """Repeat the run with everything recorded."""
    with console.status("golden model"):
        expected = golden_tensors(job.graph, job.frames)
    with console.status(f"building the {job.config.name} machine with its event trace"):
        built = build_machine(job.config, options.sim, trace=True, pins=options.pins)
    with CycleProgress(console, job.program.estimated_cycles) as progress:
        chip = RtlEngine(job.program, job.config, built, scratch, taps=True, trace=True,
                         arrivals=job.arrivals,
                         progress=progress)
        chip.load(job.frames)
        chip.start()
        chip.wait()
    events = chrome_trace(chip.traced(), job.program.layers, clock_mhz=job.config.clock_mhz,
                          vector=job.config.vector)
    return events, compare_tensors(expected, chip.read_back(), chip.recorded())


def _mismatch(record, job, again):
    if record.get("bit_exact", True):
        raise InputError("The run has no mismatch: " + (
            "it did not get to its end; AT=error shows why" if "error" in record
            else "every byte is as golden has it"))
    events, tensors = again()
    program = job.program
    wrong = tensors["first_mismatch"]
    if wrong is None:
        raise InputError("Run again, the machine has no differing element; name a layer or a cycle")
    layer = next(layer for layer in program.layers if layer.tensor == wrong["layer"])
    rows  = [one for one in _slices(events, layer.name)
             if one["args"]["row"] == wrong["row"]]
    count = len(rows) // program.frames
    rows  = rows[wrong["frame"] * count:(wrong["frame"] + 1) * count] or rows
    rows  = [one for one in rows if _writes(job, one, wrong["channel"])] or rows
    if not rows:
        raise InputError(f"No instruction of layer {layer.name} has row {wrong['row']}; name a "
                         "layer or a cycle")
    args = rows[0]["args"]
    return Event(args["cycle"] + args["cycles"] - 1,
                 f"The end of row {wrong['row']} of layer {layer.name} in frame {wrong['frame']}, "
                 f"where channel {wrong['channel']} of column {wrong['column']} differs first,",
                 layer.unit)


def _layer(name, folder, program, again):
    names = [layer.name for layer in program.layers]
    if name not in names:
        raise InputError(f"Unknown layer {name!r}; known are {', '.join(names)}")
    path   = folder / "trace.json"
    events = read_trace(path, ()) if path.exists() else again()[0]
    slices = _slices(events, name)
    if not slices:
        raise InputError(f"No instruction of layer {name} ran; name another layer or a cycle")
    return Event(min(one["args"]["cycle"] for one in slices), f"The start of layer {name}",
                 program.layers[names.index(name)].unit)


def _slices(events, name):
    """Of ``trace.json``, the instructions that make a layer: no loads, no descriptors."""
    engines = {(one["pid"], one["tid"]): one["name"] for one in events["otherData"]["engines"]}
    return [{**one, "engine": engines[one["pid"], one["tid"]]} for one in events["traceEvents"]
            if one["ph"] == "X" and one["name"] == name and one["args"].get("op") != "layer"
            and engines.get((one["pid"], one["tid"]), "load").split("_")[0] != "load"]


def _writes(job, one, channel):
    """Whether a convolution of ``trace.json`` writes ``channel``; True for anything else."""
    program, engine = job.program, Engine[one["engine"].upper()]
    if engine not in CONVS or one["args"].get("instructions", 1) > 1:
        return True
    outputs = list(job.config.units.values())[CONVS.index(engine)].outputs
    header  = StreamHeader.from_bits(_word(program, program.program_base
                                           + engine * INSTRUCTION_BYTES))
    conv    = FORMS[Opcode.CONV].from_bits(
        _word(program, header.address + one["args"]["index"] * INSTRUCTION_BYTES))
    return conv.first <= channel // outputs < conv.first + conv.groups


def _word(program, address):
    return int.from_bytes(program.image[address:address + INSTRUCTION_BYTES], "little")


def _gtkwave(path, groups, signals, marker, period, opened):
    """A save file: a group for each unit, of which the one of the event is open, or all are."""
    lines = ["[*] Attune", f'[dumpfile] "{path}"', "[size] 1700 1000"]
    if marker is not None:
        lines.append(f"[timestart] {max(0, marker - BEFORE * period)}")
    lines += [f"*-16.0 {marker if marker is not None else -1}", "[sst_width] 200",
              "[signals_width] 420"]
    for unit, names in groups.items():
        closed = opened is not None and unit not in ("machine", opened)
        lines += [f"@{'c00200' if closed else '800200'}", f"-{unit}"]
        for name in names:
            known  = name.endswith(".cause")        # shown by name
            wide   = "22" if known or HEXADECIMAL.search(name) else "24"
            lines += [f"@{'20' * known}{wide if signals[name] > 1 else '28'}",
                      *([f"^1 {path.parent / 'wave.causes'}"] if known else []),
                      f"+{{{_alias(name)}}} {_ranged(name, signals[name])}"]
        lines += [f"@{'1401200' if closed else '1000200'}", f"-{unit}"]
    return "\n".join(lines) + "\n"


def _alias(name):
    """The name of a signal within the group of its unit, as short as can be told apart; GTKWave
    would show only what follows the last dot."""
    name = re.sub(r"^(.*\.)?top\.(chip\.)?", "", name)
    name = re.sub(r"^(controller\.(front_)?|(encoder|attention|decoder)\.(compute\.)?)", "", name)
    return name.replace(".", " ")


def _ranged(name, width):
    return f"{name}[{width - 1}:0]" if width > 1 else name


def _surfer(groups, marker):
    """A command file."""
    lines = []
    for unit, names in groups.items():
        lines += [f"divider_add {unit}", *(f"variable_add {name}" for name in names)]
    lines += ["zoom_fit"] if marker is None else ["zoom_fit", f"cursor_set {marker}",
                                                  f"goto_time {marker}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
