"""The performance counters that a run reads, by name instead of number."""

from hw.config import MEMORIES
from hw.control.counters import FRAME_STAMPS, Counter, LayerField, counter_index
from hw.isa import Cause, Engine, Traffic

__all__ = ["ONCHIP_PORTS", "ledger_engine", "ledger_engines", "selectors"]

ONCHIP_PORTS = 16
CONV_OF      = {"encoder": Engine.ENCODER_CONV, "attention": Engine.ATTENTION_CONV,
                "decoder": Engine.DECODER_CONV}


def ledger_engine(layer):
    """The engine whose ledger has the cycles of ``layer``; None for what is made while filling."""
    if layer.by_array:
        return CONV_OF[layer.unit]
    return Engine.GATE if layer.unit == "attention" else None


def ledger_engines(layer):
    """That engine, and those that made shares of the layer."""
    own = ledger_engine(layer)
    return [] if own is None else [own, *(CONV_OF[unit] for unit in layer.lenders)]


def selectors(layers, frames, *, protected=False):
    """``(counter, *indices) -> COUNTER_SELECT`` of everything that a report needs; of a machine
    with ``protected`` memories also what became of their errors."""
    stamps = range(min(frames, FRAME_STAMPS))
    wanted = [
        (Counter.CYCLES,),
        *((Counter.CAUSE, engine, cause) for engine in Engine for cause in Cause),
        *((Counter.RETIRED, engine) for engine in Engine),
        *((Counter.LAYER, engine, layer.id, field)
          for layer in layers for engine in ledger_engines(layer) for field in LayerField),
        *((Counter.FRAME_STARTED, frame) for frame in stamps),
        *((Counter.FRAME_ENDED, frame) for frame in stamps),
        *((Counter.READ_BYTES, traffic) for traffic in Traffic),
        *((Counter.WRITTEN_BYTES, traffic) for traffic in Traffic),
        *((Counter.BURSTS, direction) for direction in (0, 1)),
        *((Counter.ONCHIP_READS, port) for port in range(ONCHIP_PORTS)),
        *((Counter.ONCHIP_WRITES, port) for port in range(ONCHIP_PORTS)),
        *((which, memory) for which in (Counter.CORRECTED, Counter.UNCORRECTABLE)
          for memory in range(len(MEMORIES)) if protected),
    ]
    return {key: counter_index(*key) for key in wanted}
