import onnx
import pytest
from PIL import Image
from rich.console import Console

from golden.models import MODELS
from sim import run
from sim.names import SIMULATORS
from sim.progress import CycleProgress
from tests.hw.compiler.onnx_models import Model


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """Runs write here, and nothing simulates."""
    def nothing_runs(*_, **__):
        raise AssertionError("the run got as far as building")

    monkeypatch.setattr(run, "ROOT", tmp_path)
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
    (["--config", "huge"], "Unknown preset 'huge'; known are reference, edge, tiny"),
    (["--dram", "hbm"],
     "Unknown off-chip timing 'hbm'; known are ddr4-2400, ddr3-1600, lpddr4-3200, sdr-ulx3s"),
    (["--sim", "vcs"], "Unknown simulator 'vcs'; known are verilator, icarus"),
    (["--frames", "0"], "Number of frames must be positive, not 0"),
    (["--frames", "two"], "argument --frames: invalid int value: 'two'; see `make help`"),
    (["--size", "100"], "Frame size must be a positive multiple of 16, not 100; try 96"),
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
    def refuse(graph, config, *, frames):
        raise run.CompileError(f"{graph.network} does not fit {config.name}")

    monkeypatch.setattr(run, "compile_network", refuse)
    assert run.main(["--config", "tiny"]) == 2
    assert capsys.readouterr().err == "error: elec4848 does not fit tiny\n"
    assert not (reports / "reports").exists()


def test_unwritable_output(reports, capsys, monkeypatch):
    def fail(options, console):
        run._folder(options)

    (reports / "file").write_text("")
    monkeypatch.setattr(run, "run", fail)
    assert run.main(["--out", str(reports / "file" / "run")]) == 2
    assert capsys.readouterr().err == f"error: {reports / 'file' / 'run'}: Not a directory\n"


@pytest.mark.cosim
def test_a_file_whose_frames_are_not_square(tmp_path, monkeypatch):
    small = Model(frame=(3, 10, 28))
    x = small.quantised(small.conv(small.image(), (5, 3, 3, 3), pads=[1] * 4))
    onnx.save(small.output(small.quantised(small.conv(x, (1, 5, 1, 1)))).model(),
              tmp_path / "wide.onnx")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    options = run.Options(model=str(tmp_path / "wide.onnx"), config="tiny", taps=True, frames=2,
                          out=str(tmp_path / "run"))
    report = run.run(options, Console(quiet=True))
    assert report["bit_exact"]
    assert (report["input"]["size"], report["input"]["columns"]) == (10, 28)
    assert "SIZE" not in report["command"]
    for picture in ("input", "truth", "mask-golden", "mask-hardware", "overlay"):
        assert Image.open(tmp_path / "run" / f"{picture}.png").size == (28, 10)


def test_latest_leads_to_the_newest(reports):
    for name in ("first", "second"):
        folder = run._folder(run.Options(out=str(reports / name)))
        run._point_latest(folder)
    assert (reports / "reports" / "latest").resolve() == reports / "second"


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
    import json

    from sim.report import SCHEMA
    engines = json.loads(SCHEMA.read_text())["properties"]["engine"]["enum"]
    assert set(SIMULATORS) <= set(engines)
