"""The hardware's event stream: reads the files of ``sim/event_recorder.v``, writes ``trace.json``.

``trace.json`` is in the Chrome trace format, which Perfetto and ``chrome://tracing`` open; the
README of this package says what is in it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hw.control.counters import Counter, LayerField
from hw.isa import LOADS, STORES, Cause, Engine, Opcode, Traffic
from sim.counters import ledger_engines
from sim.errors import SimulationError

__all__ = ["SAMPLES", "UNITS", "Instructions", "Trace", "check_trace", "chrome_trace", "interval",
           "read_trace", "write_trace"]

SAMPLES    = 2000       # of a long run, about
MAX_SLICES = 100_000    # of trace.json; beyond, instructions of one layer in a row share a slice

EVENT = np.dtype([("cycle", "<u4"), ("cycle_high", "<u2"), ("head", "u1", 6),
                  ("spent", "<u4", len(Cause))])
HEAD  = (("number", 18), ("layer", 8), ("row", 12), ("opcode", 4), ("cause", 3), ("start", 1),
         ("retire", 1), ("sample", 1))

UNITS = {
    "load":      LOADS,
    "encoder":   (Engine.ENCODER_FILL, Engine.ENCODER_CONV),
    "attention": (Engine.ATTENTION_FILL, Engine.ATTENTION_CONV, Engine.GATE),
    "decoder":   (Engine.DECODER_FILL, Engine.DECODER_CONV),
    "store":     STORES,
}
COUNTERS = ("cycle", "onchip_vectors", "read_bytes", "written_bytes", "row_hits", "row_misses",
            "refresh_cycles", "busy_cycles",
            *(f"{name}_{kind.name.lower()}" for name in ("read_bytes", "written_bytes")
              for kind in Traffic))


@dataclass(frozen=True)
class Instructions:
    """Retired instructions of one engine, in order; an element of each array is one of them.

    ``start`` and ``retire`` are its first and last cycle. ``spent`` is N x causes: cycles between
    the two, both included; ``waited``, those since the previous retirement.
    """
    opcode: np.ndarray
    layer:  np.ndarray
    row:    np.ndarray
    start:  np.ndarray
    retire: np.ndarray
    spent:  np.ndarray
    waited: np.ndarray

    def __len__(self):
        return len(self.start)


@dataclass(frozen=True)
class Trace:
    """What a run showed of itself.

    ``counters`` has arrays by name, one element per sample, beginning with zeros and ending after
    the run; ``spent``, per engine, samples x causes. ``unfinished`` maps an engine to the layer,
    row and first cycle of an instruction that never retired. Of a row that the monitor sent,
    ``monitor`` has layer, row, first and last cycle.
    """
    cycles:     int
    engines:    dict[Engine, Instructions]
    unfinished: dict[Engine, tuple[int, int, int]]
    counters:   dict[str, np.ndarray]
    spent:      dict[Engine, np.ndarray]
    started:    tuple[int, ...]
    ended:      tuple[int, ...]
    monitor:    np.ndarray

    def timetable(self):
        """Per engine, the cycle in which it had retired 0, 1, 2 .. instructions."""
        return {engine: [0, *done.retire.tolist()] for engine, done in self.engines.items()}


def interval(estimated_cycles):
    """Cycles between samples for a run of about so many."""
    return max(256, estimated_cycles // SAMPLES)


def read_trace(folder):
    """The trace of one run.

    Raises
    ------
    SimulationError
        If the events of an engine are not those of one instruction after another.
    """
    folder   = Path(folder)
    counters = {name: _words(folder, name) for name in COUNTERS}
    samples  = min(len(values) for values in counters.values())
    counters = {name: np.concatenate([[0], values[:samples]])
                for name, values in counters.items()}
    engines, unfinished, spent = {}, {}, {}
    for engine in Engine:
        engines[engine], left, spent[engine] = _engine(folder, engine, samples)
        if left is not None:
            unfinished[engine] = left
    started, ended = _words(folder, "monitor_started"), _words(folder, "monitor_ended")
    rows, count    = _words(folder, "monitor_rows"), len(ended)
    monitor = np.stack([ended >> 48 & 0xFF, rows[:count], started[:count] & (1 << 48) - 1,
                        ended & (1 << 48) - 1], axis=1)
    return Trace(
        cycles=int(counters["cycle"][-1]), engines=engines, unfinished=unfinished,
        counters=counters, spent=spent, monitor=monitor,
        started=tuple(_words(folder, "frame_started").tolist()),
        ended=tuple(_words(folder, "frame_ended").tolist()))


def check_trace(trace, layers, counters):
    """Refuse a trace that contradicts the counters of its run, ``(counter, *indices) -> value``.

    Raises
    ------
    SimulationError
        The first contradiction: cycles, instructions or causes of an engine, cycles of a layer,
        bytes of a traffic class, or frames.
    """
    def equal(what, got, key):
        if got != counters[key]:
            raise SimulationError(f"The event trace has {got} {what}, and the ledger has "
                                  f"{counters[key]}: the trace is broken")

    equal("cycles", trace.cycles, (Counter.CYCLES,))
    for engine, done in trace.engines.items():
        name = engine.name.lower()
        equal(f"instructions of {name}", len(done), (Counter.RETIRED, engine))
        for cause in Cause:
            equal(f"{cause.name} cycles of {name}", int(trace.spent[engine][-1, cause.value]),
                  (Counter.CAUSE, engine, cause))
    for layer in layers:
        for engine in ledger_engines(layer):
            done = trace.engines[engine]
            mine = (done.layer == layer.id)
            busy = int((done.retire[mine] - done.start[mine] + 1).sum())
            equal(f"cycles of layer {layer.name}", busy,
                  (Counter.LAYER, engine, layer.id, LayerField.BUSY))
    for kind in Traffic:
        name = kind.name.lower()
        for direction, counter in (("read", Counter.READ_BYTES),
                                   ("written", Counter.WRITTEN_BYTES)):
            equal(f"{direction} bytes of class {name}",
                  int(trace.counters[f"{direction}_bytes_{name}"][-1]), (counter, kind))
    for cycles, counter in ((trace.started, Counter.FRAME_STARTED),
                            (trace.ended, Counter.FRAME_ENDED)):
        for frame, cycle in enumerate(cycles):
            if (counter, frame) in counters:
                equal(f"as the cycle of {counter.name} {frame}", cycle, (counter, frame))


def chrome_trace(trace, layers, *, clock_mhz, vector):
    """``trace.json`` as a dictionary."""
    names  = {layer.id: layer.name for layer in layers}
    build  = _Events(clock_mhz)
    stride = -(-sum(map(len, trace.engines.values())) // MAX_SLICES)

    build.process(1, "frames")
    build.thread(1, 1, "frames")
    for frame, cycle in enumerate(trace.started):
        build.instant(f"frame {frame} starts", cycle, frame)
    for frame, cycle in enumerate(trace.ended):
        build.instant(f"frame {frame} ends", cycle, frame)
        build.span(f"frame {frame}", trace.started[frame], cycle, frame)

    engines = []
    for pid, (unit, members) in enumerate(UNITS.items(), 2):
        build.process(pid, unit)
        for engine in members:
            name = engine.name.lower()
            build.thread(pid, engine + 1, name)
            _add_slices(build, pid, engine, trace.engines[engine], names, stride)
            _add_causes(build, pid, f"{name}: cycles by cause", trace, engine)
            engines.append({"name": name, "unit": unit, "pid": pid, "tid": engine + 1,
                            "instructions": len(trace.engines[engine])})

    pid = len(UNITS) + 2
    build.process(pid, "monitor")
    build.thread(pid, 1, "attention rows sent")
    for layer, row, start, end in trace.monitor.tolist():
        build.slice(pid, 1, names.get(layer, "monitor"), start, end, {"row": row})

    pid += 1
    build.process(pid, "off-chip memory")
    counters, cycles = trace.counters, trace.counters["cycle"]
    kinds = [kind.name.lower() for kind in Traffic]
    build.counter(pid, "off-chip bytes read", cycles,
                  {kind: counters[f"read_bytes_{kind}"] for kind in kinds})
    build.counter(pid, "off-chip bytes written", cycles,
                  {kind: counters[f"written_bytes_{kind}"] for kind in kinds})
    build.counter(pid, "off-chip row accesses", cycles,
                  {"hits": counters["row_hits"], "misses": counters["row_misses"]})
    build.counter(pid, "off-chip cycles", cycles,
                  {"busy": counters["busy_cycles"], "refresh": counters["refresh_cycles"]})
    build.process(pid + 1, "on-chip memory")
    build.counter(pid + 1, "on-chip bytes moved", cycles,
                  {"bytes": counters["onchip_vectors"] * vector})

    return {
        "displayTimeUnit": "ns",
        "otherData": {
            "clock_mhz": clock_mhz, "cycles": trace.cycles, "engines": engines,
            "layers": [{"id": layer.id, "name": layer.name, "unit": layer.unit,
                        "tensor": layer.tensor, "macs": layer.macs} for layer in layers],
            "frames": [{"start": start, "end": end}
                       for start, end in zip(trace.started, trace.ended, strict=False)],
            "interval": int(cycles[1]) if len(cycles) > 1 else trace.cycles,
            "instructions_per_slice": max(1, stride),
        },
        "traceEvents": build.events,
    }


def write_trace(path, trace, layers, *, clock_mhz, vector):
    """Write the file: one event per line."""
    whole  = chrome_trace(trace, layers, clock_mhz=clock_mhz, vector=vector)
    events = whole.pop("traceEvents")
    head   = json.dumps(whole, separators=(",", ":"))[:-1]
    lines  = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    Path(path).write_text(f'{head},"traceEvents":[\n{lines}\n]}}\n')


class _Events:
    """Events in the Chrome format. Times lie on whole nanoseconds, so that slices that follow each
    other never overlap; ``args`` have the cycles."""

    def __init__(self, clock_mhz):
        self._clock_mhz = clock_mhz
        self.events     = []

    def microseconds(self, cycle):
        return int(cycle * 1000 / self._clock_mhz) / 1000

    def _duration(self, start, end):
        return round(self.microseconds(end + 1) - self.microseconds(start), 3)

    def process(self, pid, name):
        self.events += [
            {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}},
            {"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}]

    def thread(self, pid, tid, name):
        self.events += [
            {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}},
            {"ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index",
             "args": {"sort_index": tid}}]

    def instant(self, name, cycle, frame):
        self.events.append({"ph": "i", "pid": 1, "tid": 1, "s": "g", "name": name,
                            "ts": self.microseconds(cycle),
                            "args": {"cycle": cycle, "frame": frame}})

    def span(self, name, start, end, frame):
        """Of a frame; they may overlap."""
        head = {"pid": 1, "tid": 1, "cat": "frame", "id": frame, "name": name}
        self.events += [
            {"ph": "b", **head, "ts": self.microseconds(start),
             "args": {"frame": frame, "cycle": start, "cycles": end - start + 1}},
            {"ph": "e", **head, "ts": self.microseconds(end + 1)}]

    def slice(self, pid, tid, name, start, end, args):
        self.events.append({"ph": "X", "pid": pid, "tid": tid, "name": name,
                            "ts": self.microseconds(start), "dur": self._duration(start, end),
                            "args": {"cycle": start, "cycles": end - start + 1, **args}})

    def counter(self, pid, name, cycles, series):
        """Increments per sample of cumulative ``series``, each at the start of its interval."""
        steps = {key: np.diff(values).tolist() for key, values in series.items()
                 if values[-1] or len(series) <= 2}
        times = [self.microseconds(cycle) for cycle in cycles.tolist()]
        for index, time in enumerate(times[:-1]):
            self.events.append({"ph": "C", "pid": pid, "name": name, "ts": time,
                                "args": {key: values[index] for key, values in steps.items()}})
        self.events.append({"ph": "C", "pid": pid, "name": name, "ts": times[-1],
                            "args": {key: 0 for key in steps}})


def _add_slices(build, pid, engine, done, names, stride):
    opcodes = {opcode.value: opcode.name.lower() for opcode in Opcode}
    causes  = [cause.name.lower() for cause in Cause]
    columns = (done.opcode, done.layer, done.row, done.start, done.retire, done.spent, done.waited)
    opcode, layer, row, start, retire, spent, waited = (column.tolist() for column in columns)

    def nonzero(cycles):
        return {cause: count for cause, count in zip(causes, cycles, strict=True) if count}

    for first, last in _groups(opcode, layer, stride):
        args = {"op": opcodes[opcode[first]], "row": row[first], "index": first}
        if last > first:
            args["instructions"] = last - first + 1
            args["busy"] = sum(end - begin + 1 for begin, end in
                               zip(start[first:last + 1], retire[first:last + 1], strict=True))
        args["by_cause"] = nonzero(map(sum, zip(*spent[first:last + 1], *waited[first + 1:last + 1],
                                                strict=True)))
        before = nonzero(waited[first])
        if before:
            args["waited"] = before
        name = names.get(layer[first]) or opcodes[opcode[first]]
        build.slice(pid, engine + 1, name, start[first], retire[last], args)


def _groups(opcode, layer, stride):
    """First and last index of up to ``stride`` instructions in a row of one opcode and layer."""
    first = 0
    for index in range(1, len(layer) + 1):
        if (index == len(layer) or index - first >= stride or layer[index] != layer[first]
                or opcode[index] != opcode[first]):
            yield first, index - 1
            first = index


def _add_causes(build, pid, name, trace, engine):
    spent  = trace.spent[engine]
    series = {cause.name.lower(): spent[:, cause.value] for cause in Cause}
    build.counter(pid, name, trace.counters["cycle"], series)


def _words(folder, name):
    return np.fromfile(folder / f"{name}.tap", "<u8").astype(np.int64)


def _engine(folder, engine, samples):
    """Instructions of one engine; layer, row and start of one that never retired; samples."""
    raw    = np.fromfile(folder / f"{engine.name.lower()}.tap", np.uint8)
    raw    = raw[:len(raw) // EVENT.itemsize * EVENT.itemsize].view(EVENT)
    head   = np.concatenate([raw["head"], np.zeros((len(raw), 2), np.uint8)], axis=1)
    head   = np.ascontiguousarray(head).view("<u8")[:, 0].astype(np.int64)
    fields = {"cycle": raw["cycle"].astype(np.int64)
                       | raw["cycle_high"].astype(np.int64) << 32}
    offset = 0
    for name, width in HEAD:
        fields[name] = head >> offset & (1 << width) - 1
        offset      += width
    spent = raw["spent"].astype(np.int64)

    # An event counts the cycles before its own; a retirement's own belongs to the instruction.
    start, retire = fields["start"] == 1, fields["retire"] == 1
    begun, ended  = np.flatnonzero(start), np.flatnonzero(retire)
    count         = len(ended)
    kept          = begun[:count]
    if (not 0 <= len(begun) - count <= 1 or (kept > ended[:len(kept)]).any()
            or (begun[1:] <= ended[:len(begun) - 1]).any()
            or (fields["number"][kept] != np.arange(count)).any()):
        raise SimulationError(f"The event trace of {engine.name.lower()} is not one instruction "
                              "after another: the trace is broken")
    through = spent[ended].copy()
    through[np.arange(count), fields["cause"][ended]] += 1
    before  = np.concatenate([np.zeros((1, len(Cause)), np.int64), through])[:count]
    done    = Instructions(
        opcode=fields["opcode"][kept], layer=fields["layer"][kept], row=fields["row"][kept],
        start=fields["cycle"][kept], retire=fields["cycle"][ended],
        spent=through - spent[kept], waited=spent[kept] - before)
    left = None
    if len(begun) > count:
        left = tuple(int(fields[name][begun[-1]]) for name in ("layer", "row", "cycle"))
    sampled = spent[fields["sample"] == 1][:samples]
    return done, left, np.concatenate([np.zeros((1, len(Cause)), np.int64), sampled])
