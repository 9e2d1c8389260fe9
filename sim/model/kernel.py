"""The cycle model's kernel: C++, compiled once per content, and one call of it."""

import ctypes
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from hw.config import MEMORIES
from hw.control.counters import Counter, LayerField
from hw.isa import INSTRUCTION_BYTES, Cause, Engine, StreamHeader, Traffic
from sim.counters import ONCHIP_PORTS
from sim.errors import SimulationError
from sim.model.header import PORTS, ResultStruct, config_struct, header
from sim.simulators import build_library
from sim.starting import WRITE_CYCLES

__all__ = ["ModelRun", "prepare_model", "run_model"]

HERE    = Path(__file__).parent
MAIN    = HERE / "machine.cpp"
OFFCHIP = ("row_hits", "row_misses", "refresh_cycles", "busy_cycles")
LAYER_FIELDS = tuple(LayerField)      # an enumeration is slow to go through
REASON  = 500           # bytes

# Of sim/bench_run.py, in cycles: from the start of the simulation to the first of the run, in which
# the off-chip memory refreshes already; from the last of the run to the one in which the host reads
# that memory's counters.
FIRST_CYCLE    = 47
CYCLES_TO_READ = 4


@dataclass(frozen=True)
class ModelRun:
    """What one run of the model counted.

    ``counters`` are ``(counter, *indices) -> value`` of all that :func:`sim.counters.selectors` may
    ask for; ``offchip`` the counters of the off-chip memory by name, as :class:`sim.host.RtlEngine`
    has them; ``timetable`` has per engine the cycle in which it had retired 0, 1, 2 ..
    instructions. ``cpu_s`` are the processor's seconds in the kernel.
    """
    counters:  dict
    offchip:   dict
    timetable: dict
    cpu_s:     float

    @property
    def cycles(self):
        return self.counters[Counter.CYCLES,]


def prepare_model():
    """Compile the kernel, unless that was done before; returns the seconds that it took.

    Raises
    ------
    SimulationError
        If g++ is missing, or refuses.
    """
    start = time.monotonic()
    _kernel()
    return time.monotonic() - start


def run_model(program, config, *, cycle_limit=None, arrivals=(), cycles_to_read=None,
              progress=lambda cycles: None):
    """Run a :class:`hw.compiler.Program` on the model of a machine; returns :class:`ModelRun`.

    ``arrivals`` are the cycles of the run in which frames 0, 1 .. have come; those beyond lie in
    memory from the beginning. ``cycles_to_read`` is how long after the run the host reads the
    counters of the off-chip memory, which refreshes meanwhile; ``CYCLES_TO_READ`` unless given.
    ``progress`` is called with the number of cycles done, a few times a second.

    Raises
    ------
    SimulationError
        If the kernel cannot be compiled, or the program does not end: it deadlocks, or takes more
        than ``cycle_limit`` cycles (by default those of ``program.cycle_limit``).
    """
    headers = [StreamHeader.from_bits(_number(program.image,
                                              program.program_base + engine * INSTRUCTION_BYTES))
               for engine in Engine]
    words   = b"".join(program.image[at.address:at.address + at.count * INSTRUCTION_BYTES]
                       for at in headers)
    arrived = np.array(arrivals, np.int64)
    machine = config_struct(config, program_base=program.program_base,
                            first_cycle=FIRST_CYCLE + WRITE_CYCLES * bool(len(arrived)),
                            arrivals=len(arrived), arrived=arrived.ctypes.data,
                            cycles_to_read=CYCLES_TO_READ if cycles_to_read is None else (
                                cycles_to_read),
                            cycle_limit=cycle_limit or program.cycle_limit(config))
    counts    = np.array([at.count for at in headers], np.int64)
    addresses = np.array([at.address for at in headers], np.uint32)
    retired   = np.zeros(counts.sum(), np.int64)
    state     = np.zeros(2, np.int64)               # cycles done; whether to stop
    result    = ResultStruct()
    reason    = ctypes.create_string_buffer(REASON)
    kernel    = _kernel()
    done      = []

    def call():
        start = time.thread_time()
        code  = kernel.run_machine(
            ctypes.byref(machine), words, *(values.ctypes for values in (counts, addresses, state)),
            ctypes.byref(result), retired.ctypes, reason, ctypes.c_int64(REASON))
        done.append((code, time.thread_time() - start))

    thread = threading.Thread(target=call, daemon=True)     # so that Ctrl-C gets through
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
            progress(int(state[0]))
    finally:
        state[1] = 1
        thread.join()
    code, cpu_s = done[0]
    if code:
        raise SimulationError(f"The cycle model cannot run this program: {reason.value.decode()}")
    ends = np.split(retired, np.cumsum(counts)[:-1])
    return ModelRun(
        _counters(result),
        {"read_bytes": result.memory_read_bytes, "written_bytes": result.memory_written_bytes,
         **{name: getattr(result, name) for name in OFFCHIP}},
        {engine: [0, *cycles.tolist()] for engine, cycles in zip(Engine, ends, strict=True)},
        cpu_s)


def _number(image, at):
    return int.from_bytes(image[at:at + INSTRUCTION_BYTES], "little")


@cache
def _kernel():
    built = build_library(MAIN, sorted(HERE.glob("*.hpp")), {"machine_constants.hpp": header()})
    return ctypes.CDLL(str(built))


def _counters(result):
    def each(which, values, keys):
        return {(which, key): value for key, value in zip(keys, values, strict=True)}

    def ports(name):
        return [*getattr(result, name), *[0] * (ONCHIP_PORTS - PORTS[name])]

    return {
        (Counter.CYCLES,): result.cycles,
        **{(Counter.CAUSE, engine, cause): result.causes[engine][cause.value]
           for engine in Engine for cause in Cause},
        **each(Counter.RETIRED, result.retired, Engine),
        **{(Counter.LAYER, engine, layer, field): fields[field]
           for engine, layers in zip(Engine, result.layers, strict=True)
           for layer, fields in enumerate(layers) for field in LAYER_FIELDS},
        **each(Counter.FRAME_STARTED, result.frame_started, range(len(result.frame_started))),
        **each(Counter.FRAME_ENDED, result.frame_ended, range(len(result.frame_ended))),
        **each(Counter.FRAMES, result.frames, (0, 1)),
        **each(Counter.READ_BYTES, result.read_bytes, Traffic),
        **each(Counter.WRITTEN_BYTES, result.written_bytes, Traffic),
        **each(Counter.BURSTS, result.bursts, (0, 1)),
        **each(Counter.ONCHIP_READS, ports("onchip_reads"), range(ONCHIP_PORTS)),
        **each(Counter.ONCHIP_WRITES, ports("onchip_writes"), range(ONCHIP_PORTS)),
        **{(which, memory): 0 for which in (Counter.CORRECTED, Counter.UNCORRECTABLE)
           for memory in range(len(MEMORIES))},
    }
