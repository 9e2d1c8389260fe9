"""What is known of a machine in a space: every figure, once."""

import statistics
from dataclasses import dataclass

from hw.control.counters import FRAME_STAMPS, Counter
from hw.cost.cells import cells_of_machine
from hw.cost.energy import energy_of, total
from hw.isa import Cause, Engine, Requant, Traffic
from sim.counters import CONV_OF

__all__ = ["METRICS", "Metric", "STATIC", "of_machine", "of_run", "stacks"]

PARAM_BYTES = Requant.as_shape().size // 8
TABLE_BYTES = 256


@dataclass(frozen=True)
class Metric:
    """A figure: what it means, its unit, and whether it is known before anything runs. The less the
    better, unless it is no ``objective``."""
    text:      str
    unit:      str  = ""
    static:    bool = False
    objective: bool = True


METRICS = {
    "cycles":       Metric("from the start to the last mask", "cycles"),
    "latency":      Metric("from the start of the first frame to its mask", "cycles"),
    "interval":     Metric("between two masks of a stream; their median", "cycles"),
    "milliseconds": Metric("a frame at the machine's clock: its interval in a stream, else its "
                           "latency", "ms"),
    "offchip_bytes_moved": Metric("read and written off chip in the whole run", "bytes"),
    "utilisation":  Metric("MACs of the network over MAC lanes x cycles of a frame",
                           objective=False),
    "energy_low":   Metric("a frame, its run over its frames; at least", "mJ"),
    "energy_high":  Metric("the same; at most", "mJ"),
    "mac_lanes":    Metric("MACs that the arrays can do per cycle", static=True),
    "multipliers":  Metric("MAC lanes, requantisers, and the two of each gate lane", static=True),
    "memory_bytes": Metric("all memories on chip that hold maps, weights and parameters", "bytes",
                           static=True),
    "luts":         Metric("of an ECP5, by a model of its blocks", static=True),
    "dsps":         Metric("multipliers of an ECP5, likewise", static=True),
    "block_rams":   Metric("block memories of an ECP5, likewise", static=True),
    "offchip_peak": Metric("that off-chip memory moves at best", "bytes/cycle", static=True,
                           objective=False),
}
STATIC = tuple(name for name, metric in METRICS.items() if metric.static)


def of_machine(config):
    """The static metrics of a machine."""
    units = config.units.values()
    cells = cells_of_machine(config)
    return {
        "mac_lanes":    config.mac_lanes,
        "multipliers":  (config.mac_lanes + sum(unit.drain for unit in units)
                         + 2 * config.gate_lanes),
        "memory_bytes": (config.onchip_bytes + config.feedback_bytes
                         + sum(_unit_bytes(unit, config.vector) for unit in units)
                         + config.alpha_words * config.vector
                         + config.gate_lanes * config.gate_param_words * PARAM_BYTES),
        "luts":         cells["LUT4"],
        "dsps":         cells["MULT18X18D"],
        "block_rams":   cells["DP16KD"],
        "offchip_peak": config.peak_bytes_per_cycle,
    }


def _unit_bytes(unit, vector):
    params = -(-unit.params * unit.outputs // unit.drain) * unit.drain
    return (unit.banks * unit.row_words * vector + unit.outputs * unit.weight_words * vector
            + params * PARAM_BYTES + TABLE_BYTES)


def of_run(config, program, run):
    """The other metrics, of a program and the :class:`sim.model.ModelRun` of it."""
    stamps  = range(min(program.frames, FRAME_STAMPS))
    ended   = [run.counters[Counter.FRAME_ENDED, frame] for frame in stamps]
    gaps    = [after - before for before, after in zip(ended, ended[1:], strict=False)]
    latency = ended[0] - run.counters[Counter.FRAME_STARTED, 0]
    frame   = statistics.median(gaps) if gaps else latency
    energy  = total(energy_of(config, program, run.counters, run.offchip)) * (
        1e-9 / program.frames)
    return {
        "cycles":       run.cycles,
        "latency":      latency,
        "interval":     frame if gaps else None,
        "milliseconds": frame / config.clock_mhz / 1e3,
        "offchip_bytes_moved": sum(run.counters[which, kind] for kind in Traffic for which in
                                   (Counter.READ_BYTES, Counter.WRITTEN_BYTES)),
        "energy_low":   energy.low,
        "energy_high":  energy.high,
        "utilisation":  sum(layer.macs for layer in program.layers) / (config.mac_lanes * frame),
    }


def stacks(run):
    """The cycles of every engine by cause, in the order of :class:`hw.isa.Cause`; the units
    ``encoder``, ``attention`` and ``decoder`` are their MAC arrays."""
    named = {array: unit for unit, array in CONV_OF.items()}
    return {named.get(engine, engine.name.lower()):
            [run.counters[Counter.CAUSE, engine, cause] for cause in Cause] for engine in Engine}
