import csv
import io
import json

import pytest

from golden.names import NETWORKS
from golden.networks import MODELS
from hw.compiler import CompileError
from hw.config import DRAMS
from sim import benchmark
from sim.baseline import ENGINES, Baseline, measure
from sim.benchmark import Combination, combinations, figures_of, fingerprint, main
from sim.clips import read_clip
from sim.errors import SimulationError
from tests.sim.reports import imaginary, save

TINY   = ["--models", "elec4848", "--configs", "tiny", "--drams", "own"]
MILLIS = {"torch_fp32": 20.0, "onnx_fp32": 10.0, "onnx_int8": 5.0}


@pytest.fixture
def machine(monkeypatch):
    """Outcomes of runs by name of the combination: a report, or an error; records what ran."""
    outcomes, ran = {}, []

    def run(options, console, *, brief):
        name = f"{options.model}-{options.config}" + (f"-{options.dram}" if options.dram else "")
        ran.append(name)
        outcome = outcomes.get(name, imaginary())
        if isinstance(outcome, BaseException):
            raise outcome
        save(benchmark.Path(options.out), outcome)
        return outcome

    monkeypatch.setattr(benchmark.machine, "run", run)
    monkeypatch.setattr(benchmark, "measure", lambda *_, **__: Baseline(MILLIS, 0.6, 2, 0.1, 0.02))
    monkeypatch.setattr(benchmark, "fingerprint", lambda image: "sources")
    outcomes["ran"] = ran
    return outcomes


def table(folder):
    """Rows of the CSV file by model and machine."""
    rows = csv.DictReader(io.StringIO((folder / "benchmark.csv").read_text()))
    return {f"{row['model']}-{row['config']}": row for row in rows}


def test_figures_are_those_of_the_report(tmp_path, machine):
    assert main([*TINY, "--out", str(tmp_path)]) == 0
    row = table(tmp_path)["elec4848-tiny"]
    assert {key: row[key] for key in ("dram", "status", "reason", "size", "cycles", "latency",
                                      "interval", "steady", "traffic_ratio", "ipc")} == {
        "dram": "ddr3-1600", "status": "measured", "reason": "", "size": "32", "cycles": "1000",
        "latency": "900", "interval": "", "steady": "", "traffic_ratio": "1.25", "ipc": "1.5"}
    assert float(row["dice_float"]) == pytest.approx(0.75)          # IoU 0.6
    assert float(row["dice_truth"]) == 0.5 and float(row["dice_truth_float"]) == 0.6
    for name, millis in MILLIS.items():
        assert float(row[f"{name}_ms"]) == millis
        assert float(row[f"{name}_ratio"]) == pytest.approx(111111.11 * millis / 1000)


def test_forged_report_has_no_figure(tmp_path, machine, capsys):
    forged = imaginary(**{"bit_exact": True, "tensors.mismatched": 1, "cycles.total": 987_654,
                          "frames_per_second": 424_242.42})
    machine["elec4848-edge"] = forged
    assert main(["--models", "elec4848", "--configs", "edge,tiny", "--drams", "own",
                 "--out", str(tmp_path)]) == 1
    rows = table(tmp_path)
    assert rows["elec4848-tiny"]["status"] == "measured"
    edge = rows["elec4848-edge"]
    assert (edge.pop("status"), edge.pop("reason")) == (
        "not bit-exact", "not bit-exact: 1 of 5 tensors differ")
    assert {key: value for key, value in edge.items() if value} == {
        "model": "elec4848", "config": "edge", "dram": "sdr-ulx3s"}
    printed = capsys.readouterr().out
    for text in (printed, *((tmp_path / f"benchmark.{kind}").read_text()
                            for kind in ("md", "csv", "html"))):
        assert "not bit-exact" in text
        assert not any(figure in text for figure in ("987", "424242", "424 242"))


def test_what_cannot_run_is_a_row(tmp_path, machine, capsys):
    machine["unet-busi-tiny"] = CompileError("d1a needs 9 words of decoder rows; it has 4")
    assert main(["--models", "unet-busi,elec4848", "--configs", "tiny", "--drams", "own",
                 "--out", str(tmp_path)]) == 0
    rows = table(tmp_path)
    assert (rows["unet-busi-tiny"]["status"], rows["unet-busi-tiny"]["reason"]) == (
        "cannot run", "d1a needs 9 words of decoder rows; it has 4")
    assert rows["elec4848-tiny"]["status"] == "measured"
    for text in (capsys.readouterr().out, (tmp_path / "benchmark.md").read_text(),
                 (tmp_path / "benchmark.html").read_text()):
        assert "d1a needs 9 words of decoder rows; it has 4" in text


def test_run_that_fails_is_a_row_and_an_exit_code(tmp_path, machine):
    machine["elec4848-tiny"] = SimulationError("The machine stopped at its limit")
    assert main([*TINY, "--out", str(tmp_path)]) == 1
    assert table(tmp_path)["elec4848-tiny"]["status"] == "failed"


def test_what_is_done_is_kept(tmp_path, machine, capsys):
    arguments = ["--models", "elec4848", "--configs", "tiny,edge", "--drams", "own",
                 "--out", str(tmp_path)]
    main(arguments)
    first = (tmp_path / "benchmark.csv").read_text()
    main(arguments)
    assert machine["ran"] == ["elec4848-tiny", "elec4848-edge"]
    assert "2 of 2 were measured before" in capsys.readouterr().out
    assert (tmp_path / "benchmark.csv").read_text() == first
    main([*arguments, "--frames", "2"])
    assert len(machine["ran"]) == 4
    main([*arguments, "--frames", "2", "--reuse", "0"])
    assert len(machine["ran"]) == 6


def test_a_kept_report_that_was_changed(tmp_path, machine, capsys):
    arguments = [*TINY, "--out", str(tmp_path)]
    main(arguments)
    file,  = (tmp_path / "runs").glob("*/report.json")
    report = json.loads(file.read_text())
    del report["input"]["width"]
    file.write_text(json.dumps(report))
    capsys.readouterr()
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f"error: {str(file.parent)!r} holds a report without its network's width; REUSE=0 measures "
        "it again\n")


def test_an_interrupted_benchmark_goes_on(tmp_path, machine, capsys):
    arguments = ["--models", "elec4848", "--configs", "tiny,edge", "--drams", "own",
                 "--out", str(tmp_path)]
    machine["elec4848-edge"] = KeyboardInterrupt()
    assert main(arguments) == 2
    assert "the same command goes on from here" in capsys.readouterr().err
    assert list(table(tmp_path)) == ["elec4848-tiny"]
    del machine["elec4848-edge"]
    assert main(arguments) == 0
    assert machine["ran"] == ["elec4848-tiny", "elec4848-edge", "elec4848-edge"]


def test_reuse_wants_the_same_sources(tmp_path, machine, monkeypatch):
    arguments = [*TINY, "--out", str(tmp_path)]
    main(arguments)
    monkeypatch.setattr(benchmark, "fingerprint", lambda image: "others")
    main(arguments)
    assert len(machine["ran"]) == 2


def test_a_reused_run_must_be_exact_too(tmp_path, machine):
    arguments = [*TINY, "--out", str(tmp_path)]
    main(arguments)
    save(tmp_path / "runs" / "elec4848-tiny-ddr3-1600", imaginary(bit_exact=False))
    assert main(arguments) == 1
    assert len(machine["ran"]) == 1
    assert table(tmp_path)["elec4848-tiny"]["cycles"] == ""


def test_a_failed_run_leaves_nothing_to_reuse(tmp_path, machine):
    arguments = [*TINY, "--out", str(tmp_path)]
    main(arguments)
    machine["elec4848-tiny"] = SimulationError("it broke")
    main([*arguments, "--reuse", "0"])
    assert main(arguments) == 1
    assert len(machine["ran"]) == 3


def test_time_left_counts_only_what_is_to_do():
    todo = chosen("--models", "elec4848", "--configs", "reference,tiny", "--drams", "own")
    long, short = benchmark._efforts([todo[0], todo[1]], [False, False])
    assert long > short > benchmark.EXTRA + benchmark.BUILD
    again = benchmark._efforts([todo[1], todo[1]], [False, False])
    assert again[0] - again[1] == benchmark.BUILD       # the machine is built once
    assert benchmark._efforts(todo, [True, False]) == [0, short]


def test_fingerprint_knows_the_images(tmp_path):
    image = tmp_path / "scan.png"
    image.write_bytes(b"one")
    before = fingerprint(str(image)), fingerprint(str(tmp_path))
    assert before == (fingerprint(str(image)), fingerprint(str(tmp_path)))
    image.write_bytes(b"two")
    after = fingerprint(str(image)), fingerprint(str(tmp_path))
    assert before[0] != after[0] and before[1] != after[1]


def chosen(*arguments):
    return combinations(benchmark._parse(arguments))


def test_default_selection_is_everything_on_small_frames():
    assert chosen() == [
        Combination(model, config, dram, size=size)
        for model in NETWORKS
        for config, size in (("reference", 64), ("edge", 64), ("tiny", 32), ("large", 64))
        for dram in DRAMS.files]
    assert {one.size for one in chosen("--full", "1")} == {None}
    assert {one.size for one in chosen("--size", "48", "--full", "1")} == {48}


def test_selection_by_name():
    assert [one.name for one in chosen("--models", "elec4848", "--configs", "tiny, edge",
                                       "--drams", "own,lpddr4-3200")] == [
        "elec4848-tiny-ddr3-1600", "elec4848-tiny-lpddr4-3200",
        "elec4848-edge-sdr-ulx3s", "elec4848-edge-lpddr4-3200"]
    assert [one.model for one in chosen("--models", "elec4848-ds-published", "--configs", "tiny",
                                        "--drams", "own")] == ["elec4848-ds-published"]
    assert len(chosen("--configs", "edge")) == len(NETWORKS) * len(DRAMS.files)


def test_smaller_frames_are_said_to_be(tmp_path, machine, capsys):
    for size, count in ((16, 1), (32, 0)):
        main([*TINY, "--size", str(size), "--out", str(tmp_path)])
        for text in (capsys.readouterr().out, (tmp_path / "benchmark.md").read_text(),
                     (tmp_path / "benchmark.html").read_text()):
            assert " ".join(text.split()).count("Frames are smaller than those") == count


@pytest.mark.parametrize("arguments, line", [
    (["--models", "resnet"], f"Unknown model 'resnet'; known are {', '.join(MODELS)}, all"),
    (["--configs", "huge"], "Unknown machine 'huge'; known are reference, edge, tiny, large, all"),
    (["--drams", "hbm"], ("Unknown off-chip memory 'hbm'; known are own, ddr4-2400, ddr3-1600, "
                          "lpddr4-3200, sdr-ulx3s, all")),
    (["--frames", "two"], "argument --frames: invalid int value: 'two'; see `make help`"),
])
def test_bad_input_is_one_line(capsys, arguments, line):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err == f"error: {line}\n" and printed.out == ""


def test_untrained_network_has_no_dice_to_truth():
    assert figures_of(imaginary())["dice_truth"] == 0.5
    assert figures_of(imaginary(**{"input.trained": False}))["dice_truth"] is None


def test_page_is_one_file_with_every_figure(tmp_path, machine):
    main(["--models", "elec4848", "--configs", "tiny,edge", "--drams", "own",
          "--out", str(tmp_path)])
    page = (tmp_path / "benchmark.html").read_text()
    for figure in ("1 000", "111 111.11", "49.6%", "1.25", "1.500", "0.7500", "20.00",
                   "2 222.222"):
        assert page.count(f"<td>{figure}</td>") == 2, figure
    assert 'href="runs/elec4848-tiny-ddr3-1600/report.html"' in page
    assert "http" not in page.replace("http-equiv", "") and "src=" not in page


def test_cpu_runs_the_same_network():
    _, frame = read_clip("phantom:7", 1, 32)[0]
    baseline = measure("elec4848", 32, 2, frame, frame[0] > 127, repeats=1)
    assert set(baseline.milliseconds) == set(ENGINES)
    assert all(millis > 0 for millis in baseline.milliseconds.values())
    assert 0 <= baseline.dice_truth <= 1


def test_exported_network_is_the_float_one():
    import torch

    from golden.models import load_float
    from golden.referee import session
    from sim.baseline import INPUT, _exported
    _, frame = read_clip("phantom:7", 1, 32)[0]
    network = load_float("elec4848", 32, 2)
    real    = frame[None].to(torch.float32) / 255
    mask    = session(_exported(network, real), optimised=True).run(None, {INPUT: real.numpy()})[0]
    assert torch.allclose(torch.from_numpy(mask[0, 0]), network.segment(frame), atol=1e-4)


@pytest.mark.cosim
def test_one_combination_through_the_machine(tmp_path, capsys):
    assert main([*TINY, "--size", "16", "--width", "2",
                 "--frames", "2", "--repeats", "1", "--out", str(tmp_path)]) == 0
    row    = table(tmp_path)["elec4848-tiny"]
    report = json.loads((tmp_path / "runs" / "elec4848-tiny-ddr3-1600" /
                         "report.json").read_text())
    assert report["bit_exact"]
    assert row["cycles"] == str(report["cycles"]["total"])
    assert float(row["steady"]) == report["mac_utilization"]["steady"]
    assert float(row["onnx_int8_ms"]) > 0
    assert "1 of 1  elec4848-tiny-ddr3-1600" in capsys.readouterr().out
