import json
import random
import sys
from types import SimpleNamespace

import jsonschema
import pytest

from hw.config import preset
from hw.control.counters import Counter, LayerField
from hw.isa import Cause, Engine, Traffic
from sim.counters import ledger_engine, selectors
from sim.errors import SimulationError
from sim.occupancy import live_bytes
from sim.report import SCHEMA, _bound, make_report, write_report
from tests.sim.programs import LAYERS, program

CYCLES = 10_000


def counted(frames, seed=0):
    """Counters of an imaginary run that took ``CYCLES``."""
    rng    = random.Random(seed)
    values = {key: 0 for key in selectors(LAYERS, frames)}
    values[Counter.CYCLES,] = CYCLES
    for engine in Engine:
        cuts = sorted(rng.choices(range(CYCLES + 1), k=len(Cause) - 1))
        for cause, low, high in zip(Cause, [0, *cuts], [*cuts, CYCLES], strict=True):
            values[Counter.CAUSE, engine, cause] = high - low
        values[Counter.RETIRED, engine] = 100 + engine
    for frame in range(frames):
        values[Counter.FRAME_STARTED, frame] = 50 + 1000 * frame
        values[Counter.FRAME_ENDED, frame]   = 2050 + 1500 * frame
    for index, traffic in enumerate(Traffic):
        values[Counter.READ_BYTES, traffic]    = 16 * (index + 1)
        values[Counter.WRITTEN_BYTES, traffic] = 32 * (index + 1)
    values[Counter.ONCHIP_READS, 0], values[Counter.ONCHIP_READS, 2] = 10, 30
    values[Counter.ONCHIP_WRITES, 1] = 7
    values[Counter.LAYER, Engine.ENCODER_CONV, 1, LayerField.BUSY]   = 640
    values[Counter.LAYER, Engine.ENCODER_CONV, 1, LayerField.ISSUED] = 320
    values[Counter.LAYER, Engine.ENCODER_CONV, 1, LayerField.LAST]   = 6000
    values[Counter.LAYER, Engine.GATE, 3, LayerField.LAST]           = 9000
    return values


def report(frames=1, counters=None, offchip=None, timetable=None, knobs=None, **changes):
    comparison = {"compared": 2, "mismatched": 0, "bytes": 99, "first_mismatch": None,
                  "problems": [], **changes}
    return make_report(
        model="elec4848", program=program(frames=frames), config=preset("tiny", changes=knobs),
        engine="icarus", counters=counters or counted(frames),
        offchip={"read_bytes": 16 * 21, "written_bytes": 32 * 21, "row_hits": 1, "row_misses": 2,
                 "refresh_cycles": 3, "busy_cycles": 4, **(offchip or {})},
        timetable=timetable, comparison=comparison, seconds={"wall_s": 2.0, "cpu_s": 1.5},
        build_s=0.5,
        mask={"pixel_agreement_float": 1.0, "iou_float": 1.0, "dice_truth": None,
              "iou_truth": None})


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_report_follows_the_schema(frames):
    jsonschema.validate(report(frames), json.loads(SCHEMA.read_text()))


def test_schema_is_strict_enough_to_fail():
    broken = report()
    del broken["units"]["decoder"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, json.loads(SCHEMA.read_text()))


def test_every_stack_sums_to_the_cycles():
    units = report()["units"]
    assert len(units) == len(Engine)
    for unit in units.values():
        assert sum(unit["stack"].values()) == CYCLES
        assert unit["instructions"] == unit["stack"]["issue"]


def test_energy_is_a_frame_s_share_and_its_parts():
    one, many = report(1)["energy"], report(2)["energy"]
    assert many["frame"]["high"] == pytest.approx(many["high"] / 2)
    for each in ("units", "causes"):
        for end in ("low", "high"):
            assert sum(part[end] for part in one[each].values()) == pytest.approx(one[end])
            assert sum(part[end] for part in one["parts"]) == pytest.approx(one[end])
    assert {part["constant"] for part in one["parts"]} == set(one["constants"])
    assert one["mw"]["low"] == pytest.approx(one["low"] / (CYCLES / 100e6))     # mJ in 0.1 ms


def test_whose_figure_the_clock_is():
    assert report()["clock"] == {"mhz": 100, "source": "configured"}
    routed = report(knobs="clock_mhz=46.56 clock_source=place-and-route")
    assert routed["clock"] == {"mhz": 46.56, "source": "place-and-route"}
    jsonschema.validate(routed, json.loads(SCHEMA.read_text()))


def test_a_ledger_that_does_not_add_up_is_no_report():
    counters = counted(1)
    counters[Counter.CAUSE, Engine.GATE, Cause.CONFLICT] += 1
    with pytest.raises(SimulationError, match="^The causes of gate sum to 10001 cycles, and the run"
                                              " took 10000: the ledger of the machine is "
                                              "broken$"):
        report(counters=counters)


def test_ipc_is_instructions_per_cycle():
    one = report()
    assert one["ipc"] == pytest.approx(one["instructions"]["vector"] / CYCLES)
    assert one["cpi"] == pytest.approx(1 / one["ipc"])
    assert one["instructions"]["macro"] == sum(100 + engine for engine in Engine)


def test_latency_interval_and_utilisation():
    one, many = report(1), report(3)
    lanes, macs = preset("tiny").mac_lanes, sum(layer.macs for layer in LAYERS)
    assert one["cycles"] == {"total": CYCLES, "latency": 2000, "interval": None, "estimated": 5_000}
    assert one["mac_utilization"] == {"latency": macs / (lanes * 2000), "steady": None}
    assert many["cycles"]["interval"] == 1500
    assert many["mac_utilization"]["steady"] == macs / (lanes * 1500)
    assert one["execution_time_ms"] == pytest.approx(CYCLES / 100e6 * 1e3)


def test_products_are_the_steps_of_the_arrays_times_their_lanes():
    one = report()
    steps = {name: one["units"][name]["stack"]["issue"] for name in ("encoder", "attention",
                                                                     "decoder")}
    total = sum(steps[name] * one["lanes"][name] for name in steps)
    assert one["products"] == {"total": total, "lanes_busy": total / (one["mac_lanes"] * CYCLES)}


def test_traffic_is_summed_by_class_and_port():
    traffic = report()["traffic"]
    classes = traffic["offchip"]["classes"]
    assert classes == {kind.name.lower(): 48 * (k + 1) for k, kind in enumerate(Traffic)}
    assert traffic["offchip"]["read"] + traffic["offchip"]["write"] == sum(classes.values())
    assert traffic["offchip"]["ratio"] == sum(classes.values()) / 500
    assert traffic["onchip"] == {"read": 40 * 8, "write": 7 * 8, "read_ports": [80, 240],
                                 "write_ports": [56]}


def test_the_memory_must_have_counted_the_same_bytes():
    assert report()["traffic"]["offchip"]["counted_by_memory"] == {"read": 336, "write": 672}
    with pytest.raises(SimulationError, match="^The machine wrote 672 bytes off chip, and the "
                                              "memory counted 671 on its own pins: the traffic "
                                              "counters are broken$"):
        report(offchip={"written_bytes": 671})


@pytest.mark.parametrize("frames", [1, 3])
def test_frames_per_second_agree_with_the_time_beside_them(frames):
    """1.159 ms stood beside 893.93 frames per second, which were of the latency."""
    found = report(frames)
    whole = 1000 / found["execution_time_ms"]
    alone = found["clock"]["mhz"] * 1e6 / found["cycles"]["interval"] if frames > 1 else whole
    assert found["frames_per_second"] == pytest.approx(alone)


def test_schema_speaks_of_what_there_is():
    text = SCHEMA.read_text()
    assert "brief" not in text
    units = json.loads(text)["properties"]["units"]["description"]
    assert all(name in units for name in report()["units"])


def test_blocks_live_from_first_to_last_use_as_estimated():
    # The estimate ends in cycle 5000, and the run in 10,000; the last rows of the layers, estimated
    # in 2000 and 4000, were done in 6000 and 9000.
    assert report()["occupancy"]["over_time"] == {"source": "estimate", "peak": 160, "blocks": [
        {"name": "c1", "memory": "onchip", "bytes": 128, "first": 3000, "last": 9000},
        {"name": "d1", "memory": "feedback", "bytes": 32, "first": 6000, "last": 9000}]}
    assert [layer["first_row"] for layer in report()["layers"]] == [3000, None, 7500]


def test_blocks_live_from_first_to_last_use_as_traced():
    timetable = {engine: [0, 70, 80, 90] for engine in Engine}
    assert report(timetable=timetable)["occupancy"]["over_time"] == {
        "source": "trace", "peak": 160, "blocks": [
            {"name": "c1", "memory": "onchip", "bytes": 128, "first": 70, "last": 90},
            {"name": "d1", "memory": "feedback", "bytes": 32, "first": 80, "last": 90}]}


def test_live_bytes_step_where_blocks_begin_and_end():
    cycles, live = live_bytes([{"first": 5, "last": 9, "bytes": 4},
                               {"first": 7, "last": 9, "bytes": 2},
                               {"first": 9, "last": 11, "bytes": 1}])
    assert cycles.tolist() == [5, 7, 9, 11]
    assert live.tolist() == [4, 6, 1, 0]
    assert live_bytes([])[1].max(initial=0) == 0


@pytest.mark.parametrize("busy, issued, full, moving, bound", [
    (0, 0, 0, 99, None),            # made while rows move
    (110, 100, 99, 101, "offchip"),
    (110, 100, 99, 100, "issue"),
    (201, 100, 99, 0, "pipeline"),
    (200, 100, 74, 0, "array_shape"),
    (200, 100, 75, 0, "issue"),
    (200, 100, 0, 0, "issue"),      # a gate has no MACs
])
def test_what_bounds_a_layer(busy, issued, full, moving, bound):
    assert _bound(busy, issued, full, moving) == bound


def test_layers():
    first, pool, gated = report()["layers"]
    assert first["cycles"] == 640 and first["issued"] == 320 and first["offchip_bytes"] == 77
    assert first["mac_utilization"] == LAYERS[0].macs / (640 * 2 * 8 * 2)
    assert pool["cycles"] == 0 and pool["mac_utilization"] is None
    assert [ledger_engine(layer) for layer in LAYERS] == [Engine.ENCODER_CONV, None, Engine.GATE]
    assert gated["unit"] == "attention"
    assert [layer["engine"] for layer in (first, pool, gated)] == ["encoder", None, "gate"]
    assert first["shape"] == [4, 8, 8] and first["cpi"] == 2 and pool["cpi"] is None
    assert first["traffic"] == {"weights": 45, "frame": 32}
    assert first["bound_by"] == "issue" and pool["bound_by"] is None


def test_a_layer_that_two_units_made_adds_them_up(monkeypatch):
    lent = SimpleNamespace(**{**vars(LAYERS[0]), "lenders": ("decoder",)})
    given = SimpleNamespace(**{**vars(program()), "layers": (lent, *LAYERS[1:])})
    monkeypatch.setattr(sys.modules[__name__], "program", lambda frames: given)
    counters = counted(1)
    assert counters[Counter.LAYER, Engine.ENCODER_CONV, 1, LayerField.BUSY] == 640
    for field, value in ((LayerField.BUSY, 60), (LayerField.ISSUED, 30), (LayerField.FIRST, 7),
                         (LayerField.LAST, 6500)):
        counters[Counter.LAYER, Engine.DECODER_CONV, 1, field] = value
    first = report(counters=counters)["layers"][0]
    jsonschema.validate(report(counters=counters), json.loads(SCHEMA.read_text()))
    assert (first["engine"], first["cycles"], first["issued"]) == ("encoder", 700, 350)
    assert (first["first"], first["last"]) == (0, 6500)
    assert first["shares"] == {"encoder": {"cycles": 640, "issued": 320},
                               "decoder": {"cycles": 60, "issued": 30}}
    # Lanes of tiny: 2 x 8 x 2 and 2 x 8 x 4, by the cycles of each.
    assert first["mac_utilization"] == pytest.approx(LAYERS[0].macs / (640 * 32 + 60 * 64))
    assert "shares" not in report(counters=counters)["layers"][2]
    assert set(selectors((lent,), 1)) - set(selectors(LAYERS[:1], 1)) == {
        (Counter.LAYER, Engine.DECODER_CONV, 1, field) for field in LayerField}


def test_mismatch_is_not_exact():
    assert report()["bit_exact"] is True
    assert report(mismatched=1)["bit_exact"] is False


def test_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "report.json"
    write_report({"schema": 1}, path)
    assert json.loads(path.read_text()) == {"schema": 1}
    with pytest.raises(TypeError):
        write_report({"schema": object()}, path)
    assert json.loads(path.read_text()) == {"schema": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_selectors_are_distinct():
    numbers = list(selectors(LAYERS, 3).values())
    assert len(set(numbers)) == len(numbers)


def test_frames_beyond_the_stamps_have_none():
    assert len(selectors(LAYERS, 1000)) == len(selectors(LAYERS, 64))


def test_layer_on_another_unit_has_another_ledger():
    layer = SimpleNamespace(**{**vars(LAYERS[0]), "unit": "decoder"})
    assert ledger_engine(layer) is Engine.DECODER_CONV


def test_what_an_array_adds_up_without_weights_has_cycles():
    """A sum or a copy has no MACs of the network's; its cycles went uncounted."""
    layer = SimpleNamespace(**{**vars(LAYERS[0]), "macs": 0})
    assert ledger_engine(layer) is Engine.ENCODER_CONV
