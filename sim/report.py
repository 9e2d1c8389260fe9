"""report.json: what one run measured, in the words of ``sim/page/words.py``."""

import json
import os
import re
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path

from hw.config import MEMORIES
from hw.control.counters import FRAME_STAMPS, Counter, LayerField
from hw.cost.energy import NOT_COUNTED, energy_of, grouped, total
from hw.isa import Cause, Engine, Traffic
from sim.counters import CONV_OF, ONCHIP_PORTS, ledger_engine, ledger_engines
from sim.errors import SimulationError
from sim.occupancy import over_time, stretch

__all__ = ["SCHEMA", "make_report", "write_report"]

SCHEMA     = Path(__file__).with_name("report.schema.json")
HANDED_ON  = re.compile(r"c\d+|encoding|alpha\d+|d\d+|mask")
ARRAYS     = CONV_OF
MJ         = 1e-9       # of a pJ
IDLE_LANES = 0.75       # an array that uses fewer of its lanes is bound by the layer's shape


def make_report(*, model, program, config, engine, counters, offchip, comparison, mask, seconds,
                build_s, timetable=None, timed_by="trace"):
    """The report of a run as a dictionary that :data:`SCHEMA` describes.

    The units ``encoder``, ``attention`` and ``decoder`` are their MAC arrays; every other engine
    stands beside them under its own name. ``comparison`` is ``tensors`` and ``mask`` is ``mask`` of
    the schema; ``seconds`` has ``wall_s`` and ``cpu_s``. ``timetable`` is per engine the cycle in
    which it had retired 0, 1, 2 .. instructions, as ``timed_by`` says from a ``trace`` or the cycle
    ``model``; None: estimated.

    Raises
    ------
    SimulationError
        If the causes of a unit do not sum to the cycles of the run, or the machine and its off-chip
        memory counted different bytes.
    """
    total     = counters[Counter.CYCLES,]
    stamps    = range(min(program.frames, FRAME_STAMPS))
    started   = [counters[Counter.FRAME_STARTED, frame] for frame in stamps]
    ended     = [counters[Counter.FRAME_ENDED, frame] for frame in stamps]
    latency   = ended[0] - started[0]
    gaps      = [b - a for a, b in zip(ended, ended[1:], strict=False)]
    interval  = statistics.median(gaps) if gaps else None
    macs      = sum(layer.macs for layer in program.layers)
    to_run    = stretch(program, counters)
    estimate  = {engine: to_run(cycles) for engine, cycles in program.timetable.items()}
    units     = {_unit_name(engine): _unit(engine, counters, total) for engine in Engine}
    for name, unit in units.items():
        charged = sum(unit["stack"].values())
        if charged != total:
            raise SimulationError(f"The causes of {name} sum to {charged} cycles, and the run took "
                                  f"{total}: the ledger of the machine is broken")
    products  = sum(units[name]["stack"]["issue"] * _lanes(config, name) for name in ARRAYS)
    vectors   = sum(unit["instructions"] for unit in units.values())
    ipc       = vectors / total
    return {
        "schema":    1,
        "model":     model,
        "config":    config.name,
        "machine":   {"base": config.base or config.name,
                      "changes": [dict(zip(("knob", "was", "is"), change, strict=True))
                                  for change in config.changes]},
        "engine":    engine,
        "frames":    program.frames,
        "bit_exact": comparison["mismatched"] == 0 if comparison["compared"] else None,
        "tensors":   comparison,
        "mask":      mask,
        "clock":     {"mhz": config.clock_mhz, "source": config.clock_source},
        "cycles":    {"total": total, "latency": latency, "interval": interval,
                      "estimated": program.estimated_cycles},
        "execution_time_ms": total / config.clock_mhz / 1e3,
        "frames_per_second": config.clock_mhz * 1e6 / (interval or total),
        "macs":      macs,
        "mac_lanes": config.mac_lanes,
        "lanes":     {name: _lanes(config, name) for name in config.units},
        "mac_utilization": {
            "latency": macs / (config.mac_lanes * latency),
            "steady":  macs / (config.mac_lanes * interval) if interval else None,
        },
        "products":  {"total": products, "lanes_busy": products / (config.mac_lanes * total)},
        "instructions": {"vector": vectors,
                         "macro": sum(counters[Counter.RETIRED, engine] for engine in Engine)},
        "ipc":       ipc,
        "cpi":       1 / ipc,
        "units":     units,
        "traffic":   _traffic(program, config, counters, offchip),
        "energy":    _energy(program, config, counters, offchip),
        "protection": {memory: {
            "kind": config.protects(memory), "corrected": counters[Counter.CORRECTED, number],
            "uncorrectable": counters[Counter.UNCORRECTABLE, number]}
            for number, memory in enumerate(MEMORIES) if config.protects(memory) != "none"},
        "occupancy": {**program.occupancy, "spilled": list(program.spilled),
                      "over_time": over_time(
                          program, config, timetable or estimate,
                          source=timed_by if timetable else "estimate")},
        "layers":    [_layer(layer, program, config, counters, to_run)
                      for layer in program.layers],
        "stages":    _stages(program, counters),
        "simulation": {**seconds, "cycles_per_s": total / seconds["wall_s"], "build_s": build_s},
    }


def write_report(report, path):
    """Write the file in one piece: it is complete, or it does not exist."""
    path = Path(path)
    text = json.dumps(report, indent=2) + "\n"
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".report-")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(scratch).chmod(0o644)
    Path(scratch).replace(path)


def _unit_name(engine):
    return next((name for name, array in ARRAYS.items() if array is engine), engine.name.lower())


def _unit(engine, counters, total):
    stack = {cause.name.lower(): counters[Counter.CAUSE, engine, cause] for cause in Cause}
    return {"instructions": stack["issue"], "ipc": stack["issue"] / total,
            "cpi": total / stack["issue"] if stack["issue"] else None,
            "macro": counters[Counter.RETIRED, engine], "stack": stack}


def _traffic(program, config, counters, offchip):
    read    = {kind: counters[Counter.READ_BYTES, kind] for kind in Traffic}
    written = {kind: counters[Counter.WRITTEN_BYTES, kind] for kind in Traffic}
    total   = sum(read.values()) + sum(written.values())
    for verb, ours, theirs in (("read", read, "read_bytes"), ("wrote", written, "written_bytes")):
        if sum(ours.values()) != offchip[theirs]:
            raise SimulationError(f"The machine {verb} {sum(ours.values())} bytes off chip, and "
                                  f"the memory counted {offchip[theirs]} on its own pins: the "
                                  "traffic counters are broken")
    reads   = [counters[Counter.ONCHIP_READS, port] * config.vector
               for port in range(ONCHIP_PORTS)]
    writes  = [counters[Counter.ONCHIP_WRITES, port] * config.vector
               for port in range(ONCHIP_PORTS)]
    return {
        "offchip": {
            "read":       sum(read.values()),
            "write":      sum(written.values()),
            "total":      total,
            "counted_by_memory": {"read": offchip["read_bytes"], "write": offchip["written_bytes"]},
            "compulsory": program.compulsory_bytes,
            "ratio":      total / program.compulsory_bytes,
            "classes":    {kind.name.lower(): read[kind] + written[kind] for kind in Traffic},
            "bursts":     {"read": counters[Counter.BURSTS, 0],
                           "write": counters[Counter.BURSTS, 1]},
            "memory":     config.dram.name,
            "peak_bytes_per_cycle": config.peak_bytes_per_cycle,
            "measured_bytes_per_cycle": total / offchip["busy_cycles"],
            **{name: offchip[name] for name in ("row_hits", "row_misses", "refresh_cycles",
                                                "busy_cycles")},
        },
        "onchip": {"read": sum(reads), "write": sum(writes),
                   "read_ports":  [count for count in reads if count],
                   "write_ports": [count for count in writes if count]},
    }


def _energy(program, config, counters, offchip):
    """Of the run, in mJ, and what it is made of."""
    parts   = energy_of(config, program, counters, offchip)
    whole   = total(parts) * MJ
    seconds = counters[Counter.CYCLES,] / config.clock_mhz / 1e6
    return {
        **asdict(whole),
        "frame":  asdict(whole * (1 / program.frames)),
        "mw":     asdict(whole * (1 / seconds)),
        "units":  {name: asdict(sum_ * MJ) for name, sum_ in grouped(parts, "unit").items()},
        "causes": {name: asdict(sum_ * MJ) for name, sum_ in grouped(parts, "cause").items()},
        "parts":  [{"unit": part.unit, "cause": part.cause, "events": asdict(part.events),
                    "constant": part.constant.name, **asdict(part.energy * MJ)} for part in parts],
        "constants": {part.constant.name: {
            **asdict(part.constant.value), "unit": part.constant.unit,
            "source": part.constant.source} for part in parts},
        "not_counted": NOT_COUNTED,
    }


def _stages(program, counters):
    """Cycle in which each result that one unit hands to another was complete; of a single frame."""
    if program.frames > 1:
        return {}
    return {layer.tensor: max(counters[Counter.LAYER, engine, layer.id, LayerField.LAST]
                              for engine in ledger_engines(layer))
            for layer in program.layers
            if HANDED_ON.fullmatch(layer.tensor) and ledger_engines(layer)}


def _layer(layer, program, config, counters, to_run):
    engine = ledger_engine(layer)
    each   = {_unit_name(engine): {field: counters[Counter.LAYER, engine, layer.id, field]
                                   for field in LayerField}
              for engine in ledger_engines(layer)}
    fields = {field.name.lower(): _over_units(field, [of[field] for of in each.values()])
              for field in LayerField if each}
    cycles = fields.get("busy", 0)
    issued = fields.get("issued", 0)
    moved  = program.layer_traffic.get(layer.id, {})
    macs   = layer.macs * program.frames
    # Of the units that made it, by the cycles of each.
    lanes  = (sum(of[LayerField.BUSY] * _lanes(config, name) for name, of in each.items()) / cycles
              if macs and cycles else _lanes(config, layer.unit))
    return {"name": layer.name, "unit": layer.unit,
            "engine": None if engine is None else _unit_name(engine),
            "shape": [layer.channels, layer.height, layer.width],
            "macs": layer.macs, "cycles": cycles, "cpi": cycles / issued if issued else None,
            "offchip_bytes": program.layer_bytes.get(layer.id, 0),
            "traffic": {kind.name.lower(): moved[kind] for kind in Traffic if moved.get(kind)},
            "mac_utilization": macs / (lanes * cycles) if cycles and macs else None,
            "bound_by": _bound(cycles, issued, macs / lanes,
                               sum(moved.values()) / config.peak_bytes_per_cycle),
            "first_row": (int(to_run(program.layer_spans[layer.id][0]))
                          if layer.id in program.layer_spans else None),
            **({"shares": {name: {"cycles": of[LayerField.BUSY], "issued": of[LayerField.ISSUED]}
                           for name, of in each.items()}} if len(each) > 1 else {}),
            **fields}


def _over_units(field, values):
    """A field of a layer that several units made: cycles and instructions add up."""
    return {LayerField.FIRST: min, LayerField.LAST: max}.get(field, sum)(values)


def _lanes(config, unit):
    return config.units[unit].pixels * config.vector * config.units[unit].outputs


def _bound(busy, issued, full, moving):
    """What a layer cannot be faster than: see ``bound_by`` of the schema. ``full`` are the cycles
    that all lanes would need, ``moving`` those that its off-chip bytes take at the peak rate."""
    if not busy:
        return None
    if moving > issued:
        return "offchip"
    if busy > 2 * issued:
        return "pipeline"
    return "array_shape" if full and full < IDLE_LANES * issued else "issue"
