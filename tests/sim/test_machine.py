"""Whole frames through the RTL of the whole chip: every byte, every cycle, and what they cost.

Cycles and off-chip bytes are pinned in ``pins.json``: more of either fails; fewer is told at the
end, and ``make pins`` writes it into the file, to be committed.
"""

import json
from dataclasses import replace

import jsonschema
import pytest
from rich.console import Console

from hw.compiler import build
from hw.config import TINY
from hw.machine import text_of
from sim import run
from sim.report import SCHEMA
from tests.conftest import PINS

RUNS = {        # two on the same machine apart, so that no worker waits for the other's build
    "reference-64":    {"config": "reference", "taps": True, "size": 64, "width": 8, "frames": 2},
    "tiny":            {"config": "tiny", "taps": True},
    "tiny-icarus-16":  {"config": "tiny", "taps": True, "sim": "icarus", "size": 16, "width": 4},
    "tiny-3":          {"config": "tiny", "taps": True, "frames": 3},
    "tiny-ddr4":       {"config": "tiny", "taps": True, "dram": "ddr4-2400"},
    "edge-16":         {"config": "edge", "taps": True, "size": 64, "width": 16},
    "edge-64":         {"config": "edge", "taps": True, "size": 64},
    **{f"tiny-{model}": {"config": "tiny", "taps": True, "model": model, "size": 32, "width": 8}
       for model in ("elec4848-ds", "elec4848-ds-published", "elec4848-classes", "unet-busi",
                     "attunet-nuclei", "attunet-ct")},
    "reference-frame": {"config": "reference", "taps": True},
}
SLOW = ("edge-64", "wide", "narrow", "banked")      # minutes each
BARS = {"reference-frame": {"traffic": 1.2}}


def slow_if_long(name, *values):
    """The parameters of a case, which `make stream` runs if it is in ``SLOW``, not `make test`."""
    return pytest.param(*(values or (name,)), id=name,
                        marks=pytest.mark.slow if name in SLOW else ())


@pytest.mark.cosim
@pytest.mark.parametrize("name", [slow_if_long(name) for name in RUNS])
def test_frames_through_the_whole_machine(tmp_path, record_property, name):
    check(name, RUNS[name], tmp_path, record_property)


@pytest.mark.cosim
@pytest.mark.slow
def test_a_frame_at_the_pins_of_an_sdram(tmp_path):
    """Byte by byte, no rule of the data sheet broken, and hardly another cycle than with the memory
    that every report is made with: bytes and instructions are the same."""
    report = run.run(run.Options(config="tiny", dram="sdr-ulx3s", set="clock_mhz=50", taps=True,
                                 pins=True, out=str(tmp_path / "run")), Console(quiet=True))
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert report["bit_exact"], report["tensors"]["first_mismatch"]
    model = report["cycle_model"]
    assert (model["margin"], model["differences"]) == (run.PINS_MARGIN, [])


@pytest.mark.cosim
@pytest.mark.slow
def test_stream_of_three_frames_in_steady_state(tmp_path, record_property):
    report = check("reference-3", {"config": "reference", "frames": 3}, tmp_path, record_property)
    assert report["mac_utilization"]["steady"] >= 0.92
    assert report["traffic"]["offchip"]["ratio"] <= 1.2


@pytest.mark.cosim
def test_a_frame_of_which_every_unit_makes_shares(tmp_path, monkeypatch, record_property):
    """On ``tiny`` this takes fewer cycles, but more bytes, so that it is not done unasked."""
    monkeypatch.setattr(build, "moved", lambda machine: 0)
    report = check("tiny-lent", {"config": "tiny", "taps": True}, tmp_path, record_property)
    shares = {layer["name"]: layer["shares"] for layer in report["layers"] if "shares" in layer}
    assert shares["c1"].keys() == {"encoder", "attention", "decoder"}
    assert all(share["cycles"] for share in shares["c1"].values())


@pytest.mark.cosim
@pytest.mark.slow
def test_a_frame_of_which_every_unit_makes_its_own(tmp_path, record_property):
    report = check("reference-pure", {"config": "reference", "pure": True}, tmp_path,
                   record_property)
    assert not any("shares" in layer for layer in report["layers"])


@pytest.mark.cosim
def test_a_run_past_its_limit_is_one_line_and_no_report(tmp_path, capsys):
    code = run.main(["--config", "tiny", "--size", "16", "--width", "4", "--max-cycles", "5000",
                     "--out", str(tmp_path / "run")])
    line = capsys.readouterr().err
    assert code == 2
    assert line.startswith("error: The machine stopped at its limit of 5000 cycles; load_encoder "
                           "was still at work")
    assert line.count("\n") == 1
    assert not (tmp_path / "run").exists()


SHAPES = [
    replace(TINY, name="wide", vector=16, gate_lanes=4, pipelined=True,
            encoder=replace(TINY.encoder, pixels=4, outputs=4, drain=8, gather=True),
            attention=replace(TINY.attention, outputs=8, drain=8, gather=True),
            decoder=replace(TINY.decoder, pixels=1, outputs=16, drain=16)),
    replace(TINY, name="narrow", gate_lanes=1,
            encoder=replace(TINY.encoder, pixels=1, outputs=1, drain=1, weight_words=4096,
                            params=128),
            attention=replace(TINY.attention, outputs=1, drain=2, weight_words=2048, params=128),
            decoder=replace(TINY.decoder, pixels=4, outputs=2, drain=2, weight_words=2048)),
    replace(TINY, name="banked", onchip_banks=8, feedback_bytes=1024, gate_lanes=8,
            encoder=replace(TINY.encoder, pixels=4, outputs=8, drain=8),
            attention=replace(TINY.attention, pixels=2, outputs=4)),
    replace(TINY, name="short", onchip_bytes=4096, feedback_bytes=512, onchip_banks=1,
            pipelined=True,
            encoder=replace(TINY.encoder, weight_words=512, row_words=64, gather=True),
            attention=replace(TINY.attention, weight_words=320, row_words=128),
            decoder=replace(TINY.decoder, weight_words=384, row_words=128)),
]


@pytest.mark.cosim
@pytest.mark.parametrize("shape", [slow_if_long(shape.name, shape) for shape in SHAPES])
def test_other_shapes(tmp_path, shape):
    file = tmp_path / f"{shape.name}.toml"
    file.write_text(text_of(shape))
    report = simulate({"config": str(file), "sim": "icarus", "size": 16, "width": 4, "taps": True},
                      tmp_path)
    assert report["config"] == shape.name


@pytest.mark.cosim
def test_one_build_serves_every_memory_and_clock(tmp_path):
    """`make bench` built a machine once for each off-chip timing."""
    file = tmp_path / "slow.toml"
    file.write_text('base = "sdr-ulx3s"\nbytes_per_second = "50 MB/s"\n')
    first  = simulate({"config": "tiny", "size": 16, "width": 2}, tmp_path / "1")
    second = simulate({"config": "tiny", "size": 16, "width": 2, "dram": str(file),
                       "set": "clock_mhz=50"}, tmp_path / "2")
    assert second["simulation"]["build_s"] == 0.0
    assert second["cycles"]["total"] > first["cycles"]["total"]
    assert second["traffic"]["offchip"]["total"] == first["traffic"]["offchip"]["total"]
    assert second["traffic"]["offchip"]["peak_bytes_per_cycle"] == 1
    assert second["machine"] == {"base": "tiny", "changes": [
        {"knob": "dram", "was": "ddr3-1600", "is": "slow"},
        {"knob": "clock_mhz", "was": "100 MHz", "is": "50 MHz"}]}
    page = (tmp_path / "2" / "run" / "report.html").read_text()
    assert "dram ddr3-1600 → slow; clock_mhz 100 MHz → 50 MHz" in " ".join(page.split())


def simulate(options, folder):
    """A run that must be bit exact, and cycle exact with the model; its report must keep the schema
    and the ledger."""
    report = run.run(run.Options(out=str(folder / "run"), **options), Console(quiet=True))
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert report["bit_exact"], report["tensors"]["first_mismatch"] or report["tensors"]["problems"]
    assert report["cycle_model"]["differences"] == []
    assert report["cycle_model"]["cycles"] == report["cycles"]["total"]
    for name, unit in report["units"].items():
        assert sum(unit["stack"].values()) == report["cycles"]["total"], name
    offchip = report["traffic"]["offchip"]
    assert sum(offchip["classes"].values()) == offchip["read"] + offchip["write"]
    return report


def check(name, options, folder, record_property):
    """A run as :func:`simulate` does it, that costs no more than its pins say."""
    report  = simulate(options, folder)
    offchip = report["traffic"]["offchip"]
    now     = {"cycles": report["cycles"]["total"], "interval": report["cycles"]["interval"],
               "offchip_bytes": offchip["read"] + offchip["write"]}
    pins    = json.loads(PINS.read_text())
    pinned  = pins.get(name, {})
    worse   = {key: (value, pinned[key]) for key, value in now.items()
               if value is not None and key in pinned and value > pinned[key]}
    assert not worse, f"{name} became worse (now, pinned): {worse}"
    assert pinned, f"{name} has no pins; they would be {now}"
    if now != pinned:
        record_property("pins", {name: now})
    for bar, limit in BARS.get(name, {}).items():
        assert {"traffic": offchip["ratio"]}[bar] <= limit
    return report
