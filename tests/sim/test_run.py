import errno
import json
import os
import signal
import warnings
from fnmatch import fnmatch

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from golden import integer, places
from golden.images import read_image
from golden.models import MODELS, load_graph
from hw.compiler.importer import import_onnx
from sim import run
from sim.names import SIMULATORS
from sim.progress import CycleProgress
from sim.report import SCHEMA
from tests.hw.compiler.onnx_models import Model


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """Runs write here, and nothing simulates."""
    def nothing_runs(*_, **__):
        raise AssertionError("the run got as far as building")

    monkeypatch.setattr(places, "HOME", tmp_path)
    monkeypatch.setattr(run, "CACHE", tmp_path / ".build")
    monkeypatch.setattr(run, "build", nothing_runs)
    return tmp_path


@pytest.mark.parametrize("arguments, line", [
    (["--image", "none.png"],
     "No file 'none.png'; name an image, or phantom:SEED for a synthetic one"),
    (["--image", "."],
     "Folder '.' has no PNG, JPEG or BMP image; name another folder, or a file"),
    (["--image", ","],
     "No image named; name a file, a folder, or phantom:7 for a synthetic one"),
    (["--model", "resnet"], f"No model 'resnet'; known: {', '.join(MODELS)}"),
    (["--config", "huge"], ("Unknown machine 'huge'; known are reference, edge, tiny, large, "
                            "or the path of a .toml file")),
    (["--dram", "hbm"],
     ("Unknown off-chip memory 'hbm'; known are ddr4-2400, ddr3-1600, lpddr4-3200, sdr-ulx3s, "
      "or the path of a .toml file")),
    (["--sim", "vcs"], "Unknown simulator 'vcs'; known are verilator, icarus"),
    (["--frames", "0"], "Number of frames must be positive, not 0"),
    (["--frames", "two"], "argument --frames: invalid int value: 'two'; see `make help`"),
    (["--size", "0"], "Frame size must be a positive multiple of 16, not 0; try 16"),
    (["--calibration", "phantom:2"],
     ("CALIBRATION is for float ONNX files; 'elec4848' is a network of this project, and is "
      "quantised already")),
    (["--fps", "20"],
     ("FPS is the rate, above 0, at which the frames of a stream come to a machine; give FRAMES=2 "
      "or more and no ENGINE=golden, not FPS=20 FRAMES=1 ENGINE=rtl")),
    (["--fps", "0", "--frames", "2"],
     ("FPS is the rate, above 0, at which the frames of a stream come to a machine; give FRAMES=2 "
      "or more and no ENGINE=golden, not FPS=0 FRAMES=2 ENGINE=rtl")),
    (["--freeze", "1"],
     "FREEZE takes statistics of the pictures of CALIBRATION; give that, too"),
    (["--model", "net.onnx", "--freeze", "1"],
     "FREEZE takes statistics of the pictures of CALIBRATION; give that, too"),
    (["--width", "0"],
     "Network width must be positive, not 0; it is the number of filters of the first level"),
    (["--colour", "blue"], "unrecognized arguments: --colour blue; see `make help`"),
])
def test_bad_input_is_one_line(reports, capsys, arguments, line):
    assert run.main(["--config", "tiny", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err == f"error: {line}\n"
    assert printed.out == ""
    assert not (reports / "reports").exists()


def test_network_too_large_for_the_machine(reports, capsys, monkeypatch):
    def refuse(graph, config, **_):
        raise run.CompileError(f"{graph.network} does not fit {config.name}")

    monkeypatch.setattr(run, "compile_network", refuse)
    assert run.main(["--config", "tiny"]) == 2
    assert capsys.readouterr().err == "error: elec4848 does not fit tiny\n"
    assert not (reports / "reports").exists()


def test_out_is_looked_at_before_anything_else(reports, capsys, monkeypatch):
    """A file as OUT was refused after the simulation."""
    def prepared(options):
        raise AssertionError("the run began")

    monkeypatch.setattr(run, "prepare", prepared)
    (reports / "file").write_text("")
    for out, line in {
        "file":     f"'{reports / 'file'}' is a file; name a folder with OUT",
        "file/run": f"{reports / 'file/run'}: Not a directory; name another folder with OUT",
        ".":        (f"'{reports}' holds 'file', which is no output of this command and would be "
                     "lost; name another folder with OUT"),
    }.items():
        assert run.main(["--out", str(reports / out)]) == 2
        assert capsys.readouterr().err == f"error: {line}\n"
    assert [path.name for path in reports.iterdir()] == ["file"]


class Chip:
    """Stands for :class:`sim.host.RtlEngine`: a machine that agrees with golden."""

    def __init__(self, program, config, built, folder, **_):
        self.offchip, self.seconds, self.arrived, self.cycles_to_read = {}, {}, [], 0
        (folder / "simulator.log").write_text("")

    load = start = wait = traced = counters = lambda *_: None

    def recorded(self):
        return []

    def read_back(self):
        return Chip.golden

    @property
    def cycles(self):
        return 1


@pytest.fixture
def machine(reports, monkeypatch):
    """Everything of a run but the machine and its report."""
    def expected(graph, frames):
        Chip.golden = golden(graph, frames)
        return Chip.golden

    def report(**_):
        return {"bit_exact": True, "schema": 1}

    golden = run.golden_tensors
    (reports / ".build").mkdir()
    monkeypatch.setattr(run, "golden_tensors", expected)
    monkeypatch.setattr(run, "build_machine", lambda *_, **__: run.Config)
    monkeypatch.setattr(run.Config, "seconds", 0.0, raising=False)
    monkeypatch.setattr(run, "RtlEngine", Chip)
    for name, value in (("make_report", report), ("frame_times", lambda *_: {}),
                        ("compare_tensors", lambda *_: {}), ("environment", lambda *_: {}),
                        ("beside", lambda *_, **__: ({"cycles": 1, "differences": []}, None)),
                        ("write_page", lambda folder, **_: (folder / "report.html").write_text("")),
                        ("print_summary", lambda *_: None)):
        monkeypatch.setattr(run, name, value)
    return reports


TINY = ["--config", "tiny", "--size", "16", "--width", "2"]


def test_nothing_of_an_earlier_run_remains(machine):
    """The trace of one run and the mask of another stood on one page under "bit exact"."""
    out = machine / "out"
    assert run.main([*TINY, "--out", str(out)]) == 0
    for name in ("trace.json", "alpha9-hardware.png", "wave.fst"):
        (out / name).write_text("of the first run")
    assert run.main([*TINY, "--out", str(out), "--model", "unet-busi"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "input.png", "machine.toml", "mask-difference.png", "mask-golden.png", "mask-hardware.png",
        "overlay.png", "program.bin", "report.html", "report.json", "sheet.png", "simulator.log",
        "truth.png"]
    assert all(any(fnmatch(path.name, name) for name in run.FILES) for path in out.iterdir())


def test_cycles_other_than_the_model_s_fail_the_run(machine, monkeypatch):
    wrong = {"cycles": 1, "differences": ["cycles: 2 in the hardware, 1 in the model"]}
    monkeypatch.setattr(run, "beside", lambda *_, **__: (wrong, None))
    assert run.main([*TINY, "--out", str(machine / "out")]) == 1


def test_golden_alone_draws_its_masks_and_measures_nothing(machine, capsys):
    out = machine / "out"
    assert run.main([*TINY, "--engine", "golden", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *(f"alpha{level}-golden.png" for level in (1, 2, 3, 4)),
        "input.png", "machine.toml", "mask-golden.png", "overlay.png", "sheet.png", "truth.png"]
    assert "masks of the golden integer model" in capsys.readouterr().out
    assert not (machine / "reports" / "latest").exists()


def test_only_make_sim_moves_latest(machine):
    """`make test` and `make bench` had moved it to folders of their own."""
    latest = machine / "reports" / "latest"
    run.run(run.Options(config="tiny", size=16, width=2, out=str(machine / "one")),
            Console(quiet=True))
    assert not latest.is_symlink()
    for name in ("two", "three"):
        assert run.main([*TINY, "--out", str(machine / name)]) == 0
        assert latest.resolve() == machine / name


def test_runs_of_one_second_have_folders_of_their_own(machine, monkeypatch):
    monkeypatch.setattr(run.time, "strftime", lambda *_: "now")
    for _ in range(2):
        assert run.main(TINY) == 0
    assert sorted(path.name for path in (machine / "reports").iterdir()) == [
        "elec4848-tiny-verilator-now", "elec4848-tiny-verilator-now-2", "latest"]


@pytest.mark.parametrize("full", ["report.json", "sheet.png", "program.bin"])
def test_a_full_disk_leaves_nothing_behind_and_is_named(machine, monkeypatch, capsys, full):
    def no_space(path, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    target = {"report.json": (run, "write_report"), "sheet.png": (run, "write_pictures"),
              "program.bin": (run.shutil, "copy")}[full]
    monkeypatch.setattr(*target, no_space)
    (machine / "out").mkdir()
    assert run.main([*TINY, "--out", str(machine / "out")]) == 2
    assert capsys.readouterr().err == (f"error: {machine / 'out'}: No space left on device; "
                                       "nothing was written there\n")
    assert sorted(path.name for path in machine.rglob("*")) == [".build", "out"]


def test_a_full_disk_under_the_build_is_not_called_a_difference(machine, monkeypatch, capsys):
    """The simulator writes what it can and says nothing."""
    monkeypatch.setattr(run, "_is_full", lambda folder: True)
    assert run.main([*TINY, "--out", str(machine / "out")]) == 2
    assert capsys.readouterr().err == (f"error: {machine / '.build'}: No space left on device; "
                                       "nothing was written\n")
    assert not (machine / "out").exists()


def test_sigterm_leaves_nothing_behind(machine, monkeypatch, capsys):
    """What `timeout` sends ended Python in its tracks."""
    monkeypatch.setattr(Chip, "wait", lambda self: os.kill(os.getpid(), signal.SIGTERM))
    assert run.main([*TINY, "--out", str(machine / "out")]) == 2
    assert capsys.readouterr().err == "error: ended by SIGTERM\n"
    assert [path.name for path in machine.rglob("*")] == [".build"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.cosim
def test_a_file_whose_frames_are_not_square(tmp_path, monkeypatch):
    small = Model(frame=(3, 10, 28))
    x = small.quantised(small.conv(small.image(), (5, 3, 3, 3), pads=[1] * 4))
    onnx.save(small.output(small.quantised(small.conv(x, (1, 5, 1, 1)))).model(),
              tmp_path / "wide.onnx")
    monkeypatch.setattr(places, "HOME", tmp_path)
    options = run.Options(model=str(tmp_path / "wide.onnx"), config="tiny", taps=True, frames=2,
                          out=str(tmp_path / "run"))
    report = run.run(options, Console(quiet=True))
    assert report["bit_exact"]
    assert (report["input"]["size"], report["input"]["columns"]) == (10, 28)
    assert "SIZE" not in report["command"]
    for picture in ("input", "truth", "mask-golden", "mask-hardware", "overlay"):
        assert Image.open(tmp_path / "run" / f"{picture}.png").size == (28, 10)


@pytest.mark.cosim
def test_frames_that_do_not_divide_are_padded_and_masks_cropped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(places, "HOME", tmp_path)
    out = tmp_path / "run"
    assert run.main(["--config=tiny", "--width=4", "--size=20", f"--out={out}"]) == 0
    report = json.loads((out / "report.json").read_text())
    given  = report["input"]
    assert (given["size"], given["columns"], given["frame"]) == (20, 20, [32, 32])
    assert "SIZE=20" in report["command"] and report["bit_exact"]
    line = ("the network takes no pictures of 20 x 20: the host pads them to 32 x 32, repeating "
            "their last row and column, and crops the mask\n")
    assert line in capsys.readouterr().out
    assert "by the host to" in (out / "report.html").read_text()
    pictures = [*out.glob("alpha*.png"), *(out / f"{name}.png" for name in (
        "input", "truth", "mask-golden", "mask-hardware", "mask-difference", "overlay"))]
    assert len(pictures) == 10
    assert all(Image.open(path).size == (20, 20) for path in pictures)
    # The mask is that of the frame with its last row and column repeated, and nothing else.
    frame  = np.pad(read_image("phantom:7", 20).numpy(), ((0, 0), (0, 12), (0, 12)), mode="edge")
    graph  = load_graph("elec4848", 32, 4)
    values = integer.run(graph, torch.from_numpy(frame))[graph.output][0, :20, :20].numpy()
    assert np.array_equal(np.array(Image.open(out / "mask-hardware.png")), values)


class Skipped(nn.Module):
    """Two halvings, and skips that must meet again."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.c, self.d = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)

    def forward(self, x):
        a = torch.relu(self.a(x))
        b = torch.relu(self.b(self.pool(a)))
        c = torch.relu(self.c(torch.cat([self.up(self.pool(b)), b], 1)))
        return torch.sigmoid(self.d(torch.cat([self.up(c), a], 1)))


@pytest.mark.cosim
def test_a_float_file_of_open_size_is_quantised_and_padded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(places, "HOME", tmp_path)
    torch.manual_seed(3)
    path = tmp_path / "skipped.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Skipped().eval(), (torch.rand(1, 3, 16, 16),), path, opset_version=17,
                          input_names=["image"], output_names=["mask"], dynamo=False,
                          dynamic_axes={"image": {2: "rows", 3: "columns"}})
    (tmp_path / "pictures").mkdir()
    for seed in range(3):
        picture = read_image(f"phantom:{seed}", 40).permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{seed}.png")
    out  = tmp_path / "run"
    tiny = ["--config=tiny", f"--model={path}", "--size=18", "--taps=1", f"--out={out}"]
    assert run.main(tiny) == 2
    assert capsys.readouterr().err == (
        f"error: {path}: a float model, without QuantizeLinear and DequantizeLinear; with "
        "CALIBRATION=folder of pictures `make sim` quantises it\n")
    assert run.main([*tiny, f"--calibration={tmp_path / 'pictures'}"]) == 0
    captured = capsys.readouterr()
    assert "Failed" not in captured.out + captured.err          # what ONNX Runtime says of 18 x 18
    report = json.loads((out / "report.json").read_text())
    assert (report["input"]["size"], report["input"]["frame"]) == (18, [20, 20])
    assert report["bit_exact"] and report["tensors"]["compared"] > 4
    assert "FREEZE=0" in report["command"] and "CALIBRATION=" in report["command"]
    assert Image.open(out / "mask-hardware.png").size == (18, 18)
    # It is compared with the float network, on the frame that the machine had.
    frame = np.pad(read_image("phantom:7", 18).numpy(), ((0, 0), (0, 2), (0, 2)), mode="edge")
    real, = onnxruntime.InferenceSession(path).run(None, {"image": frame[None] / np.float32(255)})
    mask  = np.array(Image.open(out / "mask-hardware.png"))
    assert report["mask"]["pixel_agreement_float"] == pytest.approx(
        ((real[0, 0, :18, :18] > 0.5) == (mask > 127)).mean())
    assert np.abs(real[0, 0, :18, :18] - mask / 256).max() < 0.05
    # The quantised network is kept, and runs by itself.
    graph = import_onnx(out / "network.onnx").graph
    assert (graph.tensors[graph.input].height, graph.tensors[graph.input].width) == (20, 20)


@pytest.mark.cosim
@pytest.mark.parametrize("fps", [600, 6000])
def test_frames_that_come_while_the_machine_runs(tmp_path, monkeypatch, capsys, fps):
    """At 600 a second the machine, which takes 53,000 cycles for one, waits for each; at 6,000 they
    wait for it. Every byte is golden's and every cycle the model's, as of a stream that was there
    before; and the model alone says the same."""
    monkeypatch.setattr(places, "HOME", tmp_path)
    tiny, streams = ["--config=tiny", "--size=16", "--width=4", "--frames=3"], {}
    for engine in ("rtl", "model"):
        out = tmp_path / engine
        assert run.main([*tiny, f"--engine={engine}", f"--fps={fps}", f"--out={out}"]) == 0
        report = json.loads((out / "report.json").read_text())
        jsonschema.validate(report, json.loads(SCHEMA.read_text()))
        streams[engine] = report["stream"]
    assert streams["rtl"] == streams["model"]
    report = json.loads((tmp_path / "rtl" / "report.json").read_text())
    assert report["bit_exact"] and report["cycle_model"]["differences"] == []
    assert f"FPS={fps:g}" in report["command"]
    stream, period, second = report["stream"], round(1e8 / fps), round(2e8 / fps)
    assert [frame["arrived"] for frame in stream["frames"]] == [0, period - 1, second - 1]
    for frame in stream["frames"]:
        assert frame["arrived"] < frame["started"] < frame["ended"]
        assert frame["delay"] == frame["ended"] - frame["arrived"] >= frame["latency"]
    waits = [frame["started"] - frame["arrived"] for frame in stream["frames"][1:]]
    assert max(waits) < 100 if fps == 600 else min(waits) > 1000
    delays = [frame["delay"] for frame in stream["frames"]]
    assert stream["delay"]["jitter"] == max(delays) - min(delays)
    assert " delay " in capsys.readouterr().out
    assert "from there to the mask" in (tmp_path / "rtl" / "report.html").read_text()


def test_log_of_a_failed_run_remains(reports, monkeypatch):
    monkeypatch.setattr(run, "LOG", reports / ".build" / "simulator.log")
    with (pytest.raises(run.SimulationError, match=r"^it broke; log: \.build/simulator\.log$"),
          run._scratch() as folder):
        (folder / "simulator.log").write_text("why")
        raise run.SimulationError("it broke")
    assert (reports / ".build" / "simulator.log").read_text() == "why"
    assert [path.name for path in (reports / ".build").iterdir()] == ["simulator.log"]


def test_progress_line():
    line = CycleProgress(None, 4_000_000).describe(1_000_000, 2.0)
    assert line == ("━━━━━━······················"[:24]
                    + "  25%  1.00 M cycles  500 kcycles/s  6 s left")


def test_progress_never_claims_the_end():
    assert " 99%  5.00 M cycles" in CycleProgress(None, 4_000_000).describe(5_000_000, 2.0)


def test_every_simulator_has_a_name_in_the_schema():
    engines = json.loads(SCHEMA.read_text())["properties"]["engine"]["enum"]
    assert set(SIMULATORS) <= set(engines)
