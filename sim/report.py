"""report.json: what one run measured, in the words of the design brief."""

import json
import os
import re
import statistics
import tempfile
from pathlib import Path

from hw.control.counters import FRAME_STAMPS, Counter, LayerField
from hw.isa import Cause, Engine, Traffic
from sim.counters import ONCHIP_PORTS, ledger_engine
from sim.errors import SimulationError

__all__ = ["SCHEMA", "make_report", "write_report"]

SCHEMA     = Path(__file__).with_name("report.schema.json")
HANDED_ON  = re.compile(r"c\d+|encoding|alpha\d+|d\d+|mask")
ARRAYS     = {"encoder": Engine.ENCODER_CONV, "attention": Engine.ATTENTION_CONV,
              "decoder": Engine.DECODER_CONV}


def make_report(*, model, program, config, simulator, counters, offchip, comparison, mask, seconds,
                build_s):
    """The report of a run as a dictionary that :data:`SCHEMA` describes.

    The units ``encoder``, ``attention`` and ``decoder`` are their MAC arrays; every other engine
    stands beside them under its own name. ``comparison`` is ``tensors`` and ``mask`` is ``mask`` of
    the schema; ``seconds`` has ``wall_s`` and ``cpu_s``.

    Raises
    ------
    SimulationError
        If the causes of a unit do not sum to the cycles of the run.
    """
    total     = counters[Counter.CYCLES,]
    stamps    = range(min(program.frames, FRAME_STAMPS))
    started   = [counters[Counter.FRAME_STARTED, frame] for frame in stamps]
    ended     = [counters[Counter.FRAME_ENDED, frame] for frame in stamps]
    latency   = ended[0] - started[0]
    gaps      = [b - a for a, b in zip(ended, ended[1:], strict=False)]
    interval  = statistics.median(gaps) if gaps else None
    macs      = sum(layer.macs for layer in program.layers)
    units     = {_unit_name(engine): _unit(engine, counters, total) for engine in Engine}
    for name, unit in units.items():
        charged = sum(unit["stack"].values())
        if charged != total:
            raise SimulationError(f"The causes of {name} sum to {charged} cycles, and the run took "
                                  f"{total}: the ledger of the machine is broken")
    vectors   = sum(unit["instructions"] for unit in units.values())
    ipc       = vectors / total
    return {
        "schema":    1,
        "model":     model,
        "config":    config.name,
        "engine":    simulator,
        "frames":    program.frames,
        "bit_exact": comparison["mismatched"] == 0,
        "tensors":   comparison,
        "mask":      mask,
        "clock":     {"mhz": config.clock_mhz, "source": "configured"},
        "cycles":    {"total": total, "latency": latency, "interval": interval},
        "execution_time_ms": total / config.clock_mhz / 1e3,
        "frames_per_second": config.clock_mhz * 1e6 / (interval or latency),
        "macs":      macs,
        "mac_lanes": config.mac_lanes,
        "mac_utilization": {
            "latency": macs / (config.mac_lanes * latency),
            "steady":  macs / (config.mac_lanes * interval) if interval else None,
        },
        "instructions": {"vector": vectors,
                         "macro": sum(counters[Counter.RETIRED, engine] for engine in Engine)},
        "ipc":       ipc,
        "cpi":       1 / ipc,
        "units":     units,
        "traffic":   _traffic(program, config, counters, offchip),
        "occupancy": {**program.occupancy, "spilled": list(program.spilled)},
        "layers":    [_layer(layer, program, config, counters) for layer in program.layers],
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
            "macro": counters[Counter.RETIRED, engine], "stack": stack}


def _traffic(program, config, counters, offchip):
    read    = {kind: counters[Counter.READ_BYTES, kind] for kind in Traffic}
    written = {kind: counters[Counter.WRITTEN_BYTES, kind] for kind in Traffic}
    total   = sum(read.values()) + sum(written.values())
    reads   = [counters[Counter.ONCHIP_READS, port] * config.vector
               for port in range(ONCHIP_PORTS)]
    writes  = [counters[Counter.ONCHIP_WRITES, port] * config.vector
               for port in range(ONCHIP_PORTS)]
    return {
        "offchip": {
            "read":       sum(read.values()),
            "write":      sum(written.values()),
            "compulsory": program.compulsory_bytes,
            "ratio":      total / program.compulsory_bytes,
            "classes":    {kind.name.lower(): read[kind] + written[kind] for kind in Traffic},
            "bursts":     {"read": counters[Counter.BURSTS, 0],
                           "write": counters[Counter.BURSTS, 1]},
            "memory":     config.dram.name,
            **{name: offchip[name] for name in ("row_hits", "row_misses", "refresh_cycles",
                                                "busy_cycles")},
        },
        "onchip": {"read": sum(reads), "write": sum(writes),
                   "read_ports":  [count for count in reads if count],
                   "write_ports": [count for count in writes if count]},
    }


def _stages(program, counters):
    """Cycle in which each result that one unit hands to another was complete; of a single frame."""
    if program.frames > 1:
        return {}
    return {layer.tensor: counters[Counter.LAYER, ledger_engine(layer), layer.id, LayerField.LAST]
            for layer in program.layers if HANDED_ON.fullmatch(layer.tensor)}


def _layer(layer, program, config, counters):
    engine = ledger_engine(layer)
    fields = ({} if engine is None else
              {field.name.lower(): counters[Counter.LAYER, engine, layer.id, field]
               for field in LayerField})
    cycles = fields.get("busy", 0)
    lanes  = getattr(config, layer.unit)
    peak   = lanes.pixels * config.vector * lanes.outputs * cycles
    return {"name": layer.name, "unit": layer.unit, "macs": layer.macs, "cycles": cycles,
            "offchip_bytes": program.layer_bytes.get(layer.id, 0),
            "mac_utilization": layer.macs * program.frames / peak if peak else None, **fields}
