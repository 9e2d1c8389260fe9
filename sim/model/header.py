"""What the cycle model takes from the machine's own description: machine_constants.hpp, and the
structures that cross from Python to C++.

Nothing of it is written in C++ by hand: instruction layouts, enumerations and sizes come from where
the hardware has them.
"""

import ctypes
from inspect import signature

from amaranth.lib import data

from hw.attention.gate import PIPELINE as GATE_PIPELINE
from hw.compute.conv import drain_delay
from hw.compute.drain import LATENCY as DRAIN_LATENCY
from hw.compute.drain import queue_depth
from hw.compute.mac_array import DEPTHWISE_LATENCY
from hw.compute.mac_array import latency as array_latency
from hw.compute.transform import STEPS
from hw.control.counters import FRAME_STAMPS, LEDGER_LAYERS, LayerField
from hw.control.fetch import ProgramFetcher
from hw.isa import (
    FORMS,
    INSTRUCTION_BITS,
    INSTRUCTION_BYTES,
    LAYER_SLOTS,
    LOADS,
    WAITS,
    Cause,
    Engine,
    FillMode,
    LoadTarget,
    Opcode,
    Source,
    Target,
    Traffic,
)
from hw.memory.axi import MAX_BURST_BEATS
from hw.memory.dram import RATE_ONE, timing_const
from hw.memory.load import LoadEngines
from hw.memory.offchip import OffchipMemory
from hw.memory.store import StoreEngine
from hw.memory.stores import GRANTS
from hw.monitor.monitor import QUEUE as MONITOR_QUEUE
from hw.top import ONCHIP_READERS, ONCHIP_WRITERS

__all__ = ["ConfigStruct", "ResultStruct", "config_struct", "header"]

ENUMS      = (Cause, Engine, FillMode, LayerField, LoadTarget, Opcode, Source, Target, Traffic)
WORD_BITS  = 64
PORTS      = {"onchip_reads": len(ONCHIP_READERS), "onchip_writes": len(ONCHIP_WRITERS)}


def _default(block, name):
    return signature(block).parameters[name].default


CONSTANTS = {
    "ENGINES":           len(Engine),
    "READERS":           len(ONCHIP_READERS),
    "WRITERS":           len(ONCHIP_WRITERS),
    **{f"READ_{name.upper()}": port for port, name in enumerate(ONCHIP_READERS)},
    **{f"WRITE_{name.upper()}": port for port, name in enumerate(ONCHIP_WRITERS)},
    "CAUSES":            len(Cause),
    "TRAFFICS":          len(Traffic),
    "WAITS":             WAITS,
    "LAYER_SLOTS":       LAYER_SLOTS,
    "INSTRUCTION_BYTES": INSTRUCTION_BYTES,
    "INSTRUCTION_WORDS": INSTRUCTION_BITS // WORD_BITS,
    "LOAD_ENGINES":      sum(1 << engine for engine in LOADS),
    "LEDGER_LAYERS":     LEDGER_LAYERS,
    "FRAME_STAMPS":      FRAME_STAMPS,
    "GATE_PIPELINE":     GATE_PIPELINE,
    "MONITOR_QUEUE":     MONITOR_QUEUE,
    "DEPTHWISE_LATENCY": DEPTHWISE_LATENCY,
    "DRAIN_LATENCY":     DRAIN_LATENCY,
    "TRANSFORM_STEPS":   STEPS,
    "FETCH_DEPTH":       _default(ProgramFetcher, "depth"),
    "FETCH_OUTSTANDING": _default(ProgramFetcher, "outstanding"),
    "LOAD_OUTSTANDING":  _default(LoadEngines, "outstanding"),
    "LOAD_WINDOW":       _default(LoadEngines, "window"),
    "STORE_BUFFER":      _default(StoreEngine, "buffer"),
    "STORE_OUTSTANDING": _default(StoreEngine, "outstanding"),
    "STORE_WINDOW":      _default(StoreEngine, "window"),
    "STORE_GRANTS":      GRANTS,
    "OFFCHIP_QUEUE":     _default(OffchipMemory, "queue"),
    "OFFCHIP_BATCH":     _default(OffchipMemory, "batch"),
    "OFFCHIP_DATA":      2 * MAX_BURST_BEATS,
    "RATE_ONE":          RATE_ONE,
}

UNIT   = ("pixels", "outputs", "drain", "banks", "transform", "gather", "taps",
          "taps_stride2", "drain_queue")
TIMING = ("column_bits", "bank_bits", "rate", "row_hit", "activate", "precharge", "turnaround",
          "refresh_busy", "refresh_interval")
CONFIG = ("vector", "gate_lanes", "onchip_banks", "pipelined", "granted_latency", "read_queue",
          "array_latency", *TIMING, "program_base", "first_cycle", "cycles_to_read", "cycle_limit",
          "arrivals", "arrived")
RESULT = {
    "cycles": (), "causes": (len(Engine), len(Cause)), "retired": (len(Engine),),
    "layers": (len(Engine), LEDGER_LAYERS, len(LayerField)), "frames": (2,),
    "frame_started": (FRAME_STAMPS,), "frame_ended": (FRAME_STAMPS,),
    "read_bytes": (len(Traffic),), "written_bytes": (len(Traffic),), "bursts": (2,),
    **{name: (count,) for name, count in PORTS.items()},
    "memory_read_bytes": (), "memory_written_bytes": (), "row_hits": (), "row_misses": (),
    "refresh_cycles": (), "busy_cycles": (),
}


def _array(shape):
    kind = ctypes.c_int64
    for size in reversed(shape):
        kind *= size
    return kind


class UnitStruct(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in UNIT]


class ConfigStruct(ctypes.Structure):
    """What the model needs of a machine, its program and its host; all numbers."""
    _fields_ = [*((name, ctypes.c_int64) for name in CONFIG), ("units", UnitStruct * 3)]


class ResultStruct(ctypes.Structure):
    """What the ledger and the off-chip memory counted."""
    _fields_ = [(name, _array(shape)) for name, shape in RESULT.items()]


def config_struct(config, **run):
    """:class:`ConfigStruct` of a machine; ``run`` has the fields that depend on the run."""
    timing = timing_const(config.timing, config.vector)
    units  = [UnitStruct(
        pixels=unit.pixels, outputs=unit.outputs, drain=unit.drain, banks=unit.banks,
        transform=unit.transform, gather=unit.gather, taps=unit.depthwise_taps(1),
        taps_stride2=unit.depthwise_taps(2),
        drain_queue=queue_depth(unit, config.vector, drain_delay(config, unit)))
        for unit in config.units.values()]
    return ConfigStruct(
        vector=config.vector, gate_lanes=config.gate_lanes, onchip_banks=config.onchip_banks,
        pipelined=config.pipelined, granted_latency=config.read_latency - config.pipelined,
        read_queue=config.read_queue, array_latency=array_latency(config.vector),
        **{name: timing[name] for name in TIMING},
        units=(UnitStruct * 3)(*units), **run)


def header():
    """The text of machine_constants.hpp."""
    lines = ["// Written by sim/model/header.py.", "#pragma once", "", "#include <cstdint>", ""]
    lines += [f"constexpr int {name} = {value};" for name, value in CONSTANTS.items()]
    for kind in ENUMS:
        lines += [f"constexpr int {kind.__name__.upper()}_{member.name} = {int(member.value)};"
                  for member in kind]
    lines += ["", "struct Wait {", "    uint32_t engine, count;", "};"]
    for opcode in Opcode:
        names = _own(opcode)
        if names:
            lines += [f"struct {opcode.name.title()} {{", f"    uint32_t {', '.join(names)};", "};"]
    lines += ["struct Instruction {", "    uint32_t opcode, layer;", "    Wait waits[WAITS];"]
    lines += [f"    {opcode.name.title()} {_member(opcode)};" for opcode in Opcode if _own(opcode)]
    lines += ["};", "", *_decoder(), "", *_struct("UnitConfig", dict.fromkeys(UNIT, ())),
              *_struct("Config", dict.fromkeys(CONFIG, ()), "    UnitConfig units[3];"),
              *_struct("Result", RESULT)]
    return "\n".join(lines) + "\n"


def _struct(name, fields, *more):
    return [f"struct {name} {{",
            *(f"    int64_t {field}{''.join(f'[{size}]' for size in shape)};"
              for field, shape in fields.items()), *more, "};"]


def _member(opcode):
    """Name of an opcode's form in an instruction; ``layer`` is taken by the header."""
    return "layer_form" if opcode is Opcode.LAYER else opcode.name.lower()


def _own(opcode):
    """The fields of an opcode beyond the header that are numbers of up to 32 bits."""
    common = FORMS[Opcode.SYNC].members
    return [name for name, shape in FORMS[opcode].members.items()
            if name not in common and not isinstance(shape, data.Layout)]


def _decoder():
    """``decode``: an instruction from its words."""
    lines = ["inline uint32_t bits(const uint64_t* words, int start, int width) {",
             "    const int word = start / 64, shift = start % 64;",
             "    uint64_t value = words[word] >> shift;",
             "    if (shift + width > 64) value |= words[word + 1] << (64 - shift);",
             "    return uint32_t(value & ((uint64_t{1} << width) - 1));", "}",
             "inline Instruction decode(const uint64_t* words) {", "    Instruction result{};"]

    def take(target, field, offset=0):
        lines.append(f"    result.{target} = bits(words, {offset + field.offset}, {field.width});")

    common = FORMS[Opcode.SYNC]
    take("opcode", common["opcode"])
    take("layer", common["layer"])
    for index in range(WAITS):
        wait = common["waits"].shape[index]
        for name in ("engine", "count"):
            take(f"waits[{index}].{name}", wait.shape.as_shape()[name],
                 common["waits"].offset + wait.offset)
    lines.append("    switch (result.opcode) {")
    for opcode in Opcode:
        if _own(opcode):
            lines.append(f"    case OPCODE_{opcode.name}:")
            for name in _own(opcode):
                take(f"{_member(opcode)}.{name}", FORMS[opcode][name])
            lines.append("        break;")
    return [*lines, "    }", "    return result;", "}"]
