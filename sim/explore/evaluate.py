"""One machine: compiled for, and run on the exact cycle model. This is what workers do."""

import gc
import hashlib
import time
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from golden.errors import InputError
from golden.names import is_file
from golden.places import ROOT
from hw.compiler import CompileError, compile_network
from hw.config import MACHINES, usual_shape
from hw.network import load_network
from sim.errors import SimulationError
from sim.explore.metrics import of_run, stacks
from sim.model import run_model

__all__ = ["Network", "OtherSources", "evaluate", "evaluate_all", "network_of", "sources"]

FOLDERS  = ("golden", "hw", "sim/model")
SUFFIXES = (".py", ".hpp", ".cpp", ".toml", ".safetensors")


class OtherSources(Exception):
    """A worker runs other sources than the one who asked it."""


@dataclass(frozen=True)
class Network:
    """What every machine of a space runs."""
    model:  str
    size:   int | None
    width:  int | None
    frames: int


def network_of(space):
    """The network of a space, in the size that it usually has where the file gives none."""
    if is_file(space.model):
        return Network(space.model, space.size, space.width, space.frames)
    size, width = usual_shape(space.model, space.base)
    return Network(space.model, space.size or size, space.width or width, space.frames)


def evaluate(config, network, expected):
    """What is found out about a machine: ``status`` ``measured`` with ``metrics`` and ``units``
    (cycles by cause), or ``failed``, or ``fault``, with the ``reason``; and the ``seconds`` of CPU.

    ``expected`` are :func:`sources` of who asks.

    Raises
    ------
    OtherSources
        If those here are others.
    InputError
        If the network cannot be had.
    """
    if sources() != expected:
        raise OtherSources
    _graph(network.model, network.size, network.width)
    start = time.process_time()
    try:
        program = _program(network, _compiled_for(config))
        run     = run_model(program, config)
        found   = {"status": "measured", "reason": "", "metrics": of_run(config, program, run),
                   "units": stacks(run)}
    except (CompileError, SimulationError) as error:
        found = {"status": "failed", "reason": " ".join(str(error).split())}
    except Exception as error:          # one machine of thousands: told, and never in silence
        found = {"status": "fault", "reason": f"{type(error).__name__}: {error}"}
    return found | {"seconds": round(time.process_time() - start, 3)}


def evaluate_all(configs, network, expected):
    """:func:`evaluate` of each of several machines, in a process that does nothing else."""
    found = [evaluate(config, network, expected) for config in configs]
    _settle()
    return found


@cache
def _settle():
    """Keep Python's garbage collector from what stays: libraries, network, packed weights. Looking
    through them takes 0.3 s, each time that two dozen machines have been measured."""
    gc.collect()
    gc.freeze()


def _compiled_for(config):
    """What a program depends on: all but the machine's clock and the timing of its off-chip
    memory, which are made those of another machine, so that the compiler cannot look at them."""
    other = MACHINES.shipped["reference"]
    return replace(config, name=other.name, dram=other.dram, clock_mhz=other.clock_mhz)


@lru_cache(maxsize=2)
def _program(network, config):
    return compile_network(_graph(network.model, network.size, network.width), config,
                           frames=network.frames)


@cache
def sources():
    """A hash of everything that the figures may depend on."""
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES:
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


@cache
def _graph(model, size, width):
    try:
        return load_network(model, size, width)[0]
    except OSError as error:
        raise InputError(f"{model}: {error.strerror}") from None
