import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from golden.errors import InputError
from hw.compiler import compile_network
from hw.config import TINY
from hw.isa import FORMS, PROGRAM_MAGIC, Engine, Opcode, StreamHeader
from sim import run, simulators, wave
from sim.errors import SimulationError
from sim.fst import read_fst
from sim.run import Options
from sim.simulators import check_waves
from sim.wave import Event, find_event, layout

LAYERS = [SimpleNamespace(id=1, name="e1a", tensor="e1a", unit="encoder"),
          SimpleNamespace(id=2, name="p1", tensor="p1", unit="encoder")]
SMALL  = Options(config="tiny", size=16, width=4)
RECORD = {"bit_exact": True, "cycles": {"total": 5000}, "settings": asdict(SMALL)}
FAILED = {"settings": asdict(SMALL),
          "error": {"cycle": 777, "text": "The machine stopped with error BAD_OPCODE of gate"}}


def never():
    raise AssertionError("the run was repeated")


def job(layers=LAYERS, frames=1, image=b""):
    return SimpleNamespace(config=TINY, program=SimpleNamespace(
        layers=layers, frames=frames, image=image, program_base=0))


def trace(*slices):
    """``trace.json`` with slices of layer e1a on the encoder's array."""
    return {"otherData": {"engines": [{"name": "encoder_conv", "pid": 3, "tid": 6},
                                      {"name": "encoder_fill", "pid": 3, "tid": 5},
                                      {"name": "load_encoder", "pid": 2, "tid": 1}]},
            "traceEvents": [{"ph": "X", "pid": 3, "tid": 6, "name": "e1a", **one}
                            for one in slices]}


def conv(cycle, row, *, index=0, op="conv", cycles=10, **other):
    return {"args": {"cycle": cycle, "cycles": cycles, "op": op, "row": row, "index": index},
            **other}


def find(at, record=RECORD, folder=Path("none"), job=None, again=never):
    return find_event(at, record, folder, job or globals()["job"](), again)


def test_a_cycle():
    assert find("0") == Event(0, "cycle 0")
    assert find("4999") == Event(4999, "cycle 4999")


def test_a_layer_starts_with_what_makes_it(tmp_path):
    events = trace(conv(60, 0, name="p1", op="layer"), conv(70, 0, tid=1, pid=2, name="p1"),
                   conv(90, 1, tid=5, name="p1"), conv(80, 0, tid=5, name="p1"))
    start = Event(80, "The start of layer p1", "encoder")
    assert find("layer:p1", again=lambda: (events, None)) == start
    (tmp_path / "trace.json").write_text(json.dumps(events))
    assert find("layer:p1", folder=tmp_path) == start


def test_an_error():
    assert find("error", FAILED) == Event(777, FAILED["error"]["text"])
    assert find("776", FAILED).cycle == 776


def test_a_layer_that_never_ran():
    with pytest.raises(InputError, match="^No instruction of layer p1 ran; name another layer or "
                                         "a cycle$"):
        find("layer:p1", again=lambda: (trace(conv(60, 0, name="p1", op="layer")), None))


@pytest.mark.parametrize("at, record, line", [
    ("5000", RECORD, "Cycle 5000 is beyond the end of the run, which took 5000 cycles"),
    ("777", FAILED, "Cycle 777 is beyond the end of the run, which took 777 cycles"),
    ("layer:c9", RECORD, "Unknown layer 'c9'; known are e1a, p1"),
    ("noon", RECORD, "AT is mismatch, error, layer:NAME or a cycle, not 'noon'"),
    ("-1", RECORD, "AT is mismatch, error, layer:NAME or a cycle, not '-1'"),
    ("error", RECORD, "The run ended without an error; there is none to show"),
    ("mismatch", RECORD, "The run has no mismatch: every byte is as golden has it"),
    ("mismatch", FAILED,
     "The run has no mismatch: it did not get to its end; AT=error shows why"),
])
def test_what_is_not_there(at, record, line):
    with pytest.raises(InputError) as error:
        find(at, record)
    assert str(error.value) == line


def mismatch(events, *, row=1, channel=0, frame=0, frames=1, image=b""):
    tensors = {"first_mismatch": {"layer": "e1a", "frame": frame, "row": row, "column": 4,
                                  "channel": channel, "expected": 1, "got": 2}}
    return find("mismatch", {**RECORD, "bit_exact": False},
                job=job(frames=frames, image=image), again=lambda: (events, tensors))


def program(*convs):
    """An image whose encoder's array has these instructions, from address 1024 on."""
    headers = b"".join(StreamHeader.const({
        "magic": PROGRAM_MAGIC, "engine": engine, "count": len(convs),
        "address": 1024}).as_bits().to_bytes(32, "little") for engine in Engine)
    return headers.ljust(1024, b"\0") + b"".join(
        FORMS[Opcode.CONV].const({"opcode": Opcode.CONV, **fields}).as_bits().to_bytes(
            32, "little") for fields in convs)


def test_a_mismatch_is_the_end_of_its_row():
    image = program({}, {"first": 0, "groups": 2}, {"first": 0, "groups": 2})
    event = mismatch(trace(conv(5, 1, op="layer"), conv(100, 0, index=1), conv(200, 1, index=2)),
                     image=image)
    assert event == Event(209, "The end of row 1 of layer e1a in frame 0, where channel 0 of "
                               "column 4 differs first,", "encoder")


def test_a_mismatch_in_a_tile_of_channels():
    outputs = TINY.encoder.outputs
    image   = program({"first": 0, "groups": 2}, {"first": 2, "groups": 1})
    events  = trace(conv(100, 1, index=0), conv(200, 1, index=1))
    assert mismatch(events, channel=2 * outputs - 1, image=image).cycle == 109
    assert mismatch(events, channel=2 * outputs, image=image).cycle == 209


def test_a_mismatch_in_a_later_frame():
    image  = program({"groups": 1}, {"groups": 1})
    events = trace(conv(100, 1, index=0), conv(200, 1, index=1))
    assert mismatch(events, frame=1, frames=2, image=image).cycle == 209


def test_a_mismatch_that_does_not_come_back():
    with pytest.raises(InputError, match="^Run again, the machine has no differing element; name "
                                         "a layer or a cycle$"):
        find("mismatch", {**RECORD, "bit_exact": False},
             again=lambda: (trace(), {"first_mismatch": None}))


@pytest.mark.parametrize("files, arguments, line", [
    ({}, ["--at", "5"], "No run in '{run}'; `make sim` leaves one in reports/latest"),
    ({"report.json": {"cycles": {"total": 9}}}, ["--at", "5"],
     "The run in '{run}' cannot be repeated: its report.json has no settings; run it again"),
    ({"report.json": RECORD}, ["--at", "5", "--window", "0"],
     "Window must be 1 to 200000 cycles, not 0"),
    ({"report.json": RECORD}, [], "the following arguments are required: --at; see `make help`"),
    ({"report.json": RECORD}, ["--at", "5000"],
     "Cycle 5000 is beyond the end of the run, which took 5000 cycles"),
    ({"failed.json": FAILED}, ["--at", "layer:nine"], "Unknown layer 'nine'; known are e1a"),
])
def test_bad_input_is_one_line(tmp_path, capsys, files, arguments, line):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert wave.main(["--run", str(tmp_path), *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {line.format(run=tmp_path)}")
    assert printed.count("\n") == 1
    assert not (tmp_path / "wave.fst").exists()


def test_layout_groups_signals_by_unit():
    front   = "top.chip.controller.front_{}.cause".format
    signals = {name: 1 for name in (
        "top.cycle", "top.chip.encoder.load__valid", "top.chip.encoder.compute.fill.deep",
        front("gate"), front("store"), front("load_decoder"), "top.axi__wvalid",
        "top.axi__wvalid$3", "$rootio.cycle", "top.monitor__tvalid",
        "top.chip.decoder.compute.conv.array.valid", "top.chip.controller.trace.held")}
    assert layout(signals) == {
        "machine": ["top.cycle"], "load": [front("load_decoder")],
        "encoder": ["top.chip.encoder.load__valid"], "attention": [front("gate")],
        "decoder": ["top.chip.decoder.compute.conv.array.valid"],
        "store": [front("store"), "top.axi__wvalid"], "monitor": ["top.monitor__tvalid"]}


def test_failed_run_leaves_what_make_wave_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "FAILED", tmp_path / "failed")
    error = run._remembered(SimulationError("It stopped"), 42, SMALL)
    assert str(error) == f"It stopped; to see why: make wave RUN={tmp_path / 'failed'} AT=error"
    record = json.loads((tmp_path / "failed" / "failed.json").read_text())
    assert Options(**record["settings"]) == SMALL
    assert find("error", record) == Event(42, "It stopped")


def test_failure_without_a_cycle_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "FAILED", tmp_path / "failed")
    error = SimulationError("It never ran")
    assert run._remembered(error, None, SMALL) is error
    assert not (tmp_path / "failed").exists()


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.setattr(simulators.subprocess, "run",
                        lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(SimulationError, match="^Waveforms under Verilator need liblz4-dev and "
                                              "zlib1g-dev; `make setup` installs them, or take "
                                              "SIM=icarus$"):
        check_waves()


@pytest.mark.parametrize("at", ["2000", "layer:d1"])
def test_frames_of_a_live_run_come_again_when_they_came(tmp_path, monkeypatch, at):
    """Its waveforms would else be of other cycles; also where a layer is found by a run with
    everything recorded."""
    class Stopped(Exception):
        pass

    def engine(*_, arrivals=(), **__):
        raise Stopped(arrivals)

    settings = asdict(replace(SMALL, frames=3, fps=500.0))
    (tmp_path / "report.json").write_text(json.dumps(RECORD | {"settings": settings}))
    monkeypatch.setattr(wave, "build_machine", lambda *_, **__: None)
    monkeypatch.setattr(wave, "RtlEngine", engine)
    with pytest.raises(Stopped) as stopped:
        wave.show(tmp_path, at, console=Console(quiet=True))
    assert stopped.value.args == ((200_000, 400_000),)      # cycles of 100 MHz


@pytest.fixture
def verilator():
    try:
        check_waves()
    except SimulationError as error:
        pytest.skip(str(error))


def names_of(folder):
    """Signals that the two layouts name."""
    gtkwave = [line.split("} ")[1].split("[")[0]
               for line in (folder / "wave.gtkw").read_text().splitlines() if line[:2] == "+{"]
    surfer  = [line.removeprefix("variable_add ")
               for line in (folder / "wave.sucl").read_text().splitlines()
               if line.startswith("variable_add ")]
    assert gtkwave == surfer
    return gtkwave


def test_a_run_is_shown_after_make_clean(tmp_path, monkeypatch):
    (tmp_path / "report.json").write_text(json.dumps(RECORD))
    monkeypatch.setattr(wave, "CACHE", tmp_path / ".build")
    with pytest.raises(InputError, match="^Cycle 5000 is beyond the end of the run"):
        wave.show(tmp_path, "5000", console=Console(quiet=True))


GROUPS  = {"machine": ["top.cycle"],
           "encoder": ["top.chip.controller.front_encoder_conv.cause",
                       "top.chip.encoder.compute.conv.sequencer.weight_address"],
           "decoder": ["top.chip.decoder.fill__i__valid"]}
SIGNALS = dict(zip(sum(GROUPS.values(), []), (48, 3, 13, 1), strict=True))


def test_gtkwave_shows_the_unit_of_the_event_with_causes_by_name():
    lines = wave._gtkwave(Path("/run/wave.fst"), GROUPS, SIGNALS, 1000, 10, "encoder").splitlines()
    assert "[timestart] 500" in lines
    assert lines[lines.index("@800200"):] == [
        "@800200", "-machine", "@24", "+{cycle} top.cycle[47:0]", "@1000200", "-machine",
        "@800200", "-encoder", "@2022", "^1 /run/wave.causes",
        "+{encoder_conv cause} top.chip.controller.front_encoder_conv.cause[2:0]", "@22",
        ("+{conv sequencer weight_address} "
         "top.chip.encoder.compute.conv.sequencer.weight_address[12:0]"), "@1000200", "-encoder",
        "@c00200", "-decoder", "@28", "+{fill__i__valid} top.chip.decoder.fill__i__valid",
        "@1401200", "-decoder"]


def test_gtkwave_opens_every_unit_where_the_event_has_none():
    text = wave._gtkwave(Path("/run/wave.fst"), GROUPS, SIGNALS, None, 10, None)
    assert text.count("@800200") == len(GROUPS) and "@c00200" not in text
    assert "[timestart]" not in text and "\n*-16.0 -1\n" in text


@pytest.mark.cosim
@pytest.mark.slow           # the run that ends in an error is one, too
def test_window_of_a_run_under_verilator(tmp_path, verilator):
    (tmp_path / "report.json").write_text(json.dumps(RECORD))
    path   = wave.show(tmp_path, "2000", window=600, console=Console(quiet=True))
    file   = read_fst(path)
    period = 10_000         # of 100 MHz, in picoseconds
    assert (file.timescale, file.start, file.end) == (-12, 1700 * period,
                                                      2299 * period + period // 2)
    assert 10_000 < path.stat().st_size < 4_000_000
    names = names_of(tmp_path)
    assert set(names) <= set(file.signals)
    for engine in Engine:
        assert f"top.chip.controller.front_{engine.name.lower()}.cause" in names
    marker = 2000 * period
    assert f"cursor_set {marker}\n" in (tmp_path / "wave.sucl").read_text()
    assert f"\n*-16.0 {marker}\n" in (tmp_path / "wave.gtkw").read_text()


@pytest.mark.cosim
def test_window_of_a_run_under_icarus(tmp_path):
    record = {**RECORD, "settings": asdict(replace(SMALL, sim="icarus"))}
    (tmp_path / "report.json").write_text(json.dumps(record))
    path = wave.show(tmp_path, "300", window=200, console=Console(quiet=True))
    file = read_fst(path)
    assert (file.end - file.start) * 10 ** (file.timescale + 12) == pytest.approx(
        200 * 10_000, abs=20_000)
    assert 10_000 < path.stat().st_size < 4_000_000
    assert names_of(tmp_path) and set(names_of(tmp_path)) <= set(file.signals)


@pytest.mark.cosim
def test_a_mismatch_tells_how_to_see_it_and_is_shown(tmp_path, monkeypatch, capsys, verilator):
    def tampered(graph, config, **how):
        layers = [replace(layer, bias=layer.bias + 4000) if layer.name == "c2" else layer
                  for layer in graph.layers]
        return compile_network(replace(graph, layers=tuple(layers)), config, **how)

    monkeypatch.setattr(run, "compile_network", tampered)
    folder = tmp_path / "run"
    code   = run.main(["--config", "tiny", "--size", "16", "--width", "4", "--out", str(folder)])
    assert code == 1
    assert f"to see why: make wave RUN={folder} AT=mismatch\n" in capsys.readouterr().out

    assert wave.main(["--run", str(folder), "--at", "mismatch", "--window", "400"]) == 0
    printed = capsys.readouterr().out
    assert "The end of row 0 of layer c2 in frame 0, where channel " in printed
    report = json.loads((folder / "report.json").read_text())
    layer  = next(layer for layer in report["layers"] if layer["name"] == "c2")
    file   = read_fst(folder / "wave.fst")
    middle = (file.start + file.end) / 2 / 10_000
    assert layer["first"] < middle <= layer["last"] + 1
    assert (file.end - file.start) == 400 * 10_000 - 5_000


@pytest.mark.cosim
def test_an_error_tells_how_to_see_it_and_is_shown(tmp_path, monkeypatch, capsys, verilator):
    monkeypatch.setattr(run, "FAILED", tmp_path / "failed")
    code = run.main(["--config", "tiny", "--size", "16", "--width", "4", "--max-cycles", "3000",
                     "--out", str(tmp_path / "run")])
    assert code == 2
    assert f"to see why: make wave RUN={tmp_path / 'failed'} AT=error; log: " in (
        capsys.readouterr().err)
    assert wave.main(["--run", str(tmp_path / "failed"), "--at", "error", "--window", "100"]) == 0
    file = read_fst(tmp_path / "failed" / "wave.fst")
    assert file.start // 10_000 < 3000 < file.end // 10_000


def test_commands_can_be_pasted():
    """`gtkwave my attune (1)/wave.gtkw` could not."""
    assert list(wave._viewers(Path("my attune (1)/wave.fst"))) == [
        "gtkwave 'my attune (1)/wave.gtkw'",
        "surfer --command-file 'my attune (1)/wave.sucl' 'my attune (1)/wave.fst'"]
