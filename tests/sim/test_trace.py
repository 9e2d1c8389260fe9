import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from golden.images import read_image
from golden.models import load_graph
from hw.compiler import compile_network
from hw.config import TINY
from hw.control.counters import Counter, LayerField
from hw.control.trace import event_layout
from hw.isa import Cause, Engine, Opcode, Traffic
from sim import trace as module
from sim.counters import ledger_engine
from sim.errors import SimulationError
from sim.names import SIMULATORS
from sim.trace import (
    COUNTERS,
    HEAD,
    UNITS,
    check_trace,
    chrome_trace,
    interval,
    read_trace,
    write_trace,
)
from tests.sim.trace_format import assert_chrome_trace

CONV  = Engine.ENCODER_CONV
LAYER = SimpleNamespace(id=1, name="e1a", unit="encoder", macs=900, tensor="e1a", lenders=(),
                        by_array=True)


def event(cycle, spent=(), **fields):
    """A record of ``event_recorder.v``; ``spent`` by cause, before ``cycle``."""
    head, offset = 0, 0
    for name, width in HEAD:
        head   |= fields.get(name, 0) << offset
        offset += width
    return (cycle.to_bytes(6, "little") + head.to_bytes(6, "little")
            + b"".join(count.to_bytes(4, "little") for count in (*spent, *[0] * 7)[:7]))


def started(cycle, number, spent, **fields):
    return event(cycle, spent, number=number, start=1, layer=1, opcode=Opcode.CONV.value, **fields)


def retired(cycle, number, spent, **fields):
    return event(cycle, spent, number=number, retire=1, layer=1, opcode=Opcode.CONV.value,
                 **fields)


RUN = [
    started(4, 0, (0, 4), row=2), retired(6, 0, (2, 4), row=2),
    event(8, (3, 5), sample=1),
    event(8, (3, 5), number=1, start=1, retire=1, cause=Cause.DEPENDENCY.value,
          opcode=Opcode.SYNC.value),
    started(9, 2, (3, 6), row=3, cause=Cause.FILL_DRAIN.value),
    retired(11, 2, (4, 6, 0, 0, 0, 1), row=3),
    event(16, (5, 6, 0, 0, 0, 1, 4), sample=1),
]
"""16 cycles of the encoder's array: two rows of layer 1 and, between them, a SYNC."""


def write(folder, events=RUN, **words):
    """The files of a run in which only the encoder's array did anything."""
    samples = {"cycle": [8, 16], "read_bytes": [64, 96], "read_bytes_weights": [64, 96],
               "row_hits": [2, 3], "onchip_vectors": [5, 9]}
    idle    = event(8, (0, 0, 0, 0, 0, 0, 8), sample=1) + event(16, (0, 0, 0, 0, 0, 0, 16),
                                                               sample=1)
    for engine in Engine:
        (folder / f"{engine.name.lower()}.tap").write_bytes(
            b"".join(events) if engine is CONV else idle)
    for name in (*COUNTERS, "frame_started", "frame_ended", "monitor_started", "monitor_ended",
                 "monitor_rows"):
        values = words.get(name, samples.get(name, [0, 0] if name in COUNTERS else []))
        (folder / f"{name}.tap").write_bytes(np.array(values, "<u8").tobytes())
    return folder


def counted():
    """What the ledger has to say of the same run."""
    counters = {(Counter.CYCLES,): 16,
                **{(Counter.CAUSE, engine, cause): 0 for engine in Engine for cause in Cause},
                **{(Counter.CAUSE, engine, Cause.NO_WORK): 16 for engine in Engine},
                **{(Counter.RETIRED, engine): 0 for engine in Engine},
                **{(counter, kind): 0 for counter in (Counter.READ_BYTES, Counter.WRITTEN_BYTES)
                   for kind in Traffic}}
    for cause, cycles in zip(Cause, (5, 6, 0, 0, 0, 1, 4), strict=True):
        counters[Counter.CAUSE, CONV, cause] = cycles
    counters[Counter.RETIRED, CONV] = 3
    counters[Counter.LAYER, CONV, 1, LayerField.BUSY] = 6
    counters[Counter.READ_BYTES, Traffic.WEIGHTS] = 96
    counters[Counter.FRAME_STARTED, 0], counters[Counter.FRAME_ENDED, 0] = 3, 15
    return counters


def test_instructions_are_rebuilt(tmp_path):
    trace = read_trace(write(tmp_path))
    done  = trace.engines[CONV]
    assert trace.cycles == 16 and trace.unfinished == {}
    assert done.start.tolist() == [4, 8, 9] and done.retire.tolist() == [6, 8, 11]
    assert done.row.tolist() == [2, 0, 3] and done.layer.tolist() == [1, 0, 1]
    assert done.spent.tolist() == [[3, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0],
                                   [2, 0, 0, 0, 0, 1, 0]]
    assert done.waited.tolist() == [[0, 4, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [0] * 7]
    assert trace.timetable()[CONV] == [0, 6, 8, 11]


def test_what_never_retired_is_told(tmp_path):
    trace = read_trace(write(tmp_path, [*RUN[:5], RUN[6]]))
    assert len(trace.engines[CONV]) == 2
    assert trace.unfinished == {CONV: (1, 3, 9)}


def test_half_a_record_at_the_end_is_left_out(tmp_path):
    assert len(read_trace(write(tmp_path, [*RUN, RUN[0][:17]])).engines[CONV]) == 3


@pytest.mark.parametrize("events", [
    [RUN[1], RUN[0]],                   # retires before it starts
    [RUN[0], RUN[0], RUN[1]],           # starts twice
    [*RUN[:2], *RUN[:2]],               # the same number twice
    [*RUN[:4], RUN[0], *RUN[4:]],
])
def test_events_out_of_order_are_refused(tmp_path, events):
    with pytest.raises(SimulationError, match="^The event trace of encoder_conv is not one "
                                              "instruction after another: the trace is broken$"):
        read_trace(write(tmp_path, events))


def test_trace_agrees_with_the_ledger(tmp_path):
    trace = read_trace(write(tmp_path, frame_started=[3], frame_ended=[15]))
    check_trace(trace, [LAYER], counted())


@pytest.mark.parametrize("key, value, line", [
    ((Counter.CYCLES,), 17, "16 cycles, and the ledger has 17"),
    ((Counter.RETIRED, CONV), 2, "3 instructions of encoder_conv, and the ledger has 2"),
    ((Counter.CAUSE, CONV, Cause.ISSUE), 6,
     "5 ISSUE cycles of encoder_conv, and the ledger has 6"),
    ((Counter.LAYER, CONV, 1, LayerField.BUSY), 7,
     "6 cycles of layer e1a, and the ledger has 7"),
    ((Counter.READ_BYTES, Traffic.WEIGHTS), 95,
     "96 read bytes of class weights, and the ledger has 95"),
    ((Counter.WRITTEN_BYTES, Traffic.MASK), 8,
     "0 written bytes of class mask, and the ledger has 8"),
    ((Counter.FRAME_ENDED, 0), 14, "15 as the cycle of FRAME_ENDED 0, and the ledger has 14"),
])
def test_contradiction_is_an_error(tmp_path, key, value, line):
    trace = read_trace(write(tmp_path, frame_started=[3], frame_ended=[15]))
    with pytest.raises(SimulationError, match=f"^The event trace has {line}: the trace is "
                                              "broken$"):
        check_trace(trace, [LAYER], {**counted(), key: value})


def test_json(tmp_path):
    trace = read_trace(write(tmp_path, frame_started=[3], frame_ended=[15],
                             monitor_started=[1 << 48 | 5], monitor_ended=[1 << 48 | 7],
                             monitor_rows=[9]))
    path  = tmp_path / "trace.json"
    write_trace(path, trace, [LAYER], clock_mhz=250, vector=16)
    whole  = json.loads(path.read_text())
    assert_chrome_trace(whole)
    events = whole["traceEvents"]
    slices = [(one["name"], one["ts"], one["dur"], one["args"])
              for one in events if one["ph"] == "X"]
    assert slices == [
        ("e1a", 0.016, 0.012, {"cycle": 4, "cycles": 3, "op": "conv", "row": 2, "index": 0,
                               "by_cause": {"issue": 3}, "waited": {"dependency": 4}}),
        ("sync", 0.032, 0.004, {"cycle": 8, "cycles": 1, "op": "sync", "row": 0, "index": 1,
                                "by_cause": {"dependency": 1}, "waited": {"dependency": 1}}),
        ("e1a", 0.036, 0.012, {"cycle": 9, "cycles": 3, "op": "conv", "row": 3, "index": 2,
                               "by_cause": {"issue": 2, "fill_drain": 1}}),
        ("e1a", 0.02, 0.012, {"cycle": 5, "cycles": 3, "row": 9}),
    ]
    assert [(one["name"], one["ts"]) for one in events if one["ph"] == "i"] == [
        ("frame 0 starts", 0.012), ("frame 0 ends", 0.06)]
    assert [(one["ph"], one["ts"]) for one in events if one.get("cat") == "frame"] == [
        ("b", 0.012), ("e", 0.064)]
    assert [(one["ts"], one["args"]) for one in events
            if one["name"] == "off-chip bytes read"] == [
        (0.0, {"weights": 64}), (0.032, {"weights": 32}), (0.064, {"weights": 0})]
    assert whole["displayTimeUnit"] == "ns"
    other = whole["otherData"]
    assert (other["clock_mhz"], other["cycles"], other["interval"]) == (250, 16, 8)
    assert other["frames"] == [{"start": 3, "end": 15}]
    assert [engine["name"] for engine in other["engines"]] == [
        engine.name.lower() for members in UNITS.values() for engine in members]


def test_every_engine_has_one_unit():
    assert sorted(engine for members in UNITS.values() for engine in members) == list(Engine)


def test_long_runs_share_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_SLICES", 3)
    trace = read_trace(write(tmp_path))
    done  = trace.engines[CONV]
    rows  = replace(done, **{name: np.tile(getattr(done, name)[:1], shape)
                             for name, shape in (("opcode", 5), ("layer", 5), ("row", 5),
                                                 ("spent", (5, 1)), ("waited", (5, 1)))},
                    start=np.arange(5) * 10 + 4, retire=np.arange(5) * 10 + 6)
    whole  = chrome_trace(replace(trace, engines={**trace.engines, CONV: rows}), [LAYER],
                          clock_mhz=100, vector=8)
    slices = [one["args"] for one in whole["traceEvents"] if one["ph"] == "X"]
    assert whole["otherData"]["instructions_per_slice"] == 2
    assert [args.get("instructions", 1) for args in slices] == [2, 2, 1]
    assert [args.get("busy", args["cycles"]) for args in slices] == [6, 6, 3]
    assert [args["cycles"] for args in slices] == [13, 13, 3]
    assert slices[0]["by_cause"] == {"issue": 6, "dependency": 4}


def first(whole, phase):
    return next(event for event in whole["traceEvents"] if event["ph"] == phase)


@pytest.mark.parametrize("spoil", [
    lambda whole: whole.update(displayTimeUnit="us"),
    lambda whole: first(whole, "X").pop("dur"),
    lambda whole: first(whole, "X").update(dur=-0.004),
    lambda whole: first(whole, "X").update(dur=0.0041),
    lambda whole: first(whole, "X").update(dur=3.0),
    lambda whole: first(whole, "X").update(tid=99),
    lambda whole: first(whole, "X").update(pid="2"),
    lambda whole: first(whole, "X").update(name=""),
    lambda whole: first(whole, "i").pop("s"),
    lambda whole: first(whole, "C")["args"].update(issue="8"),
    lambda whole: first(whole, "C")["args"].update(one_more=8),
    lambda whole: first(whole, "C").update(ts=0.048),
    lambda whole: first(whole, "M")["args"].clear(),
    lambda whole: whole["traceEvents"].remove(first(whole, "e")),
])
def test_the_format_is_looked_at_closely(tmp_path, spoil):
    whole = chrome_trace(read_trace(write(tmp_path, frame_started=[3], frame_ended=[15])), [LAYER],
                         clock_mhz=250, vector=8)
    assert_chrome_trace(whole)
    spoil(whole)
    with pytest.raises((AssertionError, KeyError)):
        assert_chrome_trace(whole)


def test_interval():
    assert interval(40_000_000) == 20_000
    assert interval(1000) == 256


class Recorded(wiring.Component):
    """Plays ``RUN`` to the recorder: a cycle counter, and what happens in which cycle."""
    enable: In(1)

    def elaborate(self, platform):
        m      = Module()
        cycle  = Signal(48)
        shown  = Signal(event_layout())
        sample = Signal()
        running = Signal()
        m.d.comb += running.eq(self.enable & (cycle < 16))
        with m.If(running):
            m.d.sync += cycle.eq(cycle + 1)
        conv = {"opcode": Opcode.CONV, "layer": 1}
        sync = {"opcode": Opcode.SYNC, "number": 1, "start": 1, "retire": 1}
        what = {
            4: {"start": 1, "row": 2, **conv}, 6: {"retire": 1, "row": 2, **conv}, 8: sync,
            9: {"start": 1, "row": 3, "number": 2, **conv},
            11: {"retire": 1, "row": 3, "number": 2, **conv}}
        causes = [*[Cause.DEPENDENCY] * 4, *[Cause.ISSUE] * 3, Cause.DEPENDENCY, Cause.DEPENDENCY,
                  Cause.FILL_DRAIN, *[Cause.ISSUE] * 2, *[Cause.NO_WORK] * 4]
        with m.Switch(cycle):
            for number, cause in enumerate(causes):
                with m.Case(number):
                    m.d.comb += shown.eq(event_layout().const(
                        {"cause": cause, **what.get(number, {})}))
        m.submodules.sampler = Instance("event_sampler", i_clk=ClockSignal(), i_running=running,
                                        o_sample=sample)
        m.submodules.recorder = Instance(
            "event_recorder", p_NAME="encoder_conv", i_clk=ClockSignal(), i_running=running,
            i_cycle=cycle, i_sample=sample,
            **{f"i_{field}": getattr(shown, field) for field, _ in event_layout()})
        return m


@pytest.mark.cosim
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_recorder_writes_what_the_reader_reads(cosimulate, tmp_path, simulator):
    from sim.top import SOURCES
    folder = tmp_path / "trace (of a run)"
    folder.mkdir()
    write(folder, [])
    cosimulate(Recorded(), "tests.sim.bench_trace", simulator=simulator, sources=SOURCES[1:],
               plusargs=[f"+trace={folder}", "+trace_interval=8"])
    done, left, spent = module._engine(folder, CONV, 2)
    assert left is None
    assert done.start.tolist() == [4, 8, 9] and done.retire.tolist() == [6, 8, 11]
    assert done.layer.tolist() == [1, 0, 1] and done.row.tolist() == [2, 0, 3]
    assert done.spent.tolist() == [[3, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0],
                                   [2, 0, 0, 0, 0, 1, 0]]
    assert done.waited.tolist() == [[0, 4, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [0] * 7]
    assert spent.tolist() == [[0] * 7, [3, 5, 0, 0, 0, 0, 0], [5, 6, 0, 0, 0, 1, 4]]


@pytest.mark.cosim
def test_recorder_is_silent_without_its_plusarg(cosimulate, tmp_path):
    from sim.top import SOURCES
    cosimulate(Recorded(), "tests.sim.bench_trace", sources=SOURCES[1:])
    assert not list(tmp_path.rglob("*.tap"))


@pytest.mark.cosim
def test_trace_of_a_frame_sums_to_its_counters(tmp_path):
    from sim.host import RtlEngine
    from sim.run import build_machine
    program = compile_network(load_graph("elec4848", 16, 4), TINY)
    chip    = RtlEngine(program, TINY, build_machine(TINY, "verilator", trace=True), tmp_path,
                        trace=True)
    chip.load([read_image("phantom:5", 16)])
    chip.start()
    chip.wait()
    trace, counters = chip.traced(), chip.counters()

    total = counters[Counter.CYCLES,]
    for engine, done in trace.engines.items():
        assert len(done) == counters[Counter.RETIRED, engine]
        assert (done.retire >= done.start).all() and (done.retire < total).all()
        assert (done.start[1:] > done.retire[:-1]).all()
        assert (done.spent.sum(axis=1) == done.retire - done.start + 1).all()
    assert set(trace.unfinished) == set()
    for layer in program.layers:
        engine = ledger_engine(layer)
        if engine is not None:
            done = trace.engines[engine]
            mine = done.layer == layer.id
            for field, cycle in ((LayerField.FIRST, done.start[mine].min()),
                                 (LayerField.LAST, done.retire[mine].max()),
                                 (LayerField.ISSUED, done.spent[mine][:, 0].sum())):
                assert counters[Counter.LAYER, engine, layer.id, field] == cycle, layer.name

    whole  = chrome_trace(trace, program.layers, clock_mhz=100, vector=TINY.vector)
    assert_chrome_trace(whole)
    events = whole["traceEvents"]

    def summed(name):
        return sum(sum(one["args"].values()) for one in events
                   if one["ph"] == "C" and one["name"] == name)

    assert summed("off-chip bytes read") == chip.offchip["read_bytes"]
    assert summed("off-chip bytes written") == chip.offchip["written_bytes"]
    assert summed("off-chip row accesses") == (chip.offchip["row_hits"]
                                               + chip.offchip["row_misses"])
    assert summed("on-chip bytes moved") == TINY.vector * sum(
        value for (counter, *_), value in counters.items()
        if counter in (Counter.ONCHIP_READS, Counter.ONCHIP_WRITES))
    for engine in Engine:
        assert summed(f"{engine.name.lower()}: cycles by cause") == total
    rows = [layer.height for layer in program.layers if layer.tensor.startswith("alpha")]
    assert len(trace.monitor) == sum(rows)
    assert (trace.monitor[:, 3] < total).all()
