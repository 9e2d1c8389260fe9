import csv
import functools
import json
import math
from types import SimpleNamespace

import pytest
import torch

from golden.data import find, load
from golden.export import calibration_images
from golden.integer import Tensor, run
from golden.models import seeded
from golden.names import CLIPPINGS
from golden.quantise_report import _noise, compare, main
from golden.quantize import quantize

SMALL = ["--width", "2", "--size", "32", "--data", "phantom:2", "--n", "2"]


@pytest.fixture(scope="module")
def frames():
    return load(find("phantom:2"), 32)


@pytest.fixture
def quickly(monkeypatch):
    """Quantise on two frames."""
    monkeypatch.setattr("golden.quantise_report.calibration_images",
                        functools.partial(calibration_images, count=2))


def test_noise_by_hand():
    """Scale 1/2, zero point 10, channels stored twice as large: 1, 2 and 200 are 14, 18 and 810."""
    graph = SimpleNamespace(tensors={"x": Tensor("x", 1, 1, 3, 0.5, 10)},
                            equalisation={"x": torch.tensor([2.0])})
    real = torch.tensor([[[1.0, 2.0, 200.0]]], dtype=torch.float64)
    stored = torch.tensor([[[14, 19, 255]]], dtype=torch.uint8)
    assert _noise(graph, "x", real, stored).tolist() == pytest.approx(
        [1 + 4 + 200**2, 0.25**2 + (200 - 61.25)**2, 1, 3])
    for value, beyond in ((-2.63, True), (-2.62, False), (61.37, False), (61.38, True)):
        found = _noise(graph, "x", torch.tensor([[[value]]], dtype=torch.float64),
                       torch.zeros(1, 1, 1, dtype=torch.uint8))
        assert bool(found[2]) == beyond, value


def test_of_one_tensor_from_its_values(frames):
    network = seeded("elec4848", 2)
    graph = quantize(network, [frames.frame(i) for i in range(2)])
    result = compare(network, graph, frames)
    tensor = graph.tensors["e1a"]
    signal = noise = 0.0
    for i in range(2):
        real = network.trace(frames.frame(i)[None] / 255)["e1a"][0].detach().double()
        stored = tensor.scale * (run(graph, frames.frame(i))["e1a"].double() - tensor.zero_point)
        signal += float(real.square().sum())
        noise += float((stored - real).square().sum())
    assert result["tensors"]["e1a"]["sqnr_db"] == pytest.approx(10 * math.log10(signal / noise))
    assert result["tensors"]["e1a"]["sqnr_db"] > 20
    assert result["tensors"].keys() == network.trace(frames.frame(0)[None] / 255).keys()
    assert 0.5 < result["masks"]["dice_float"] <= 1


def test_ways_to_clip(frames):
    """At the extremes nothing that was calibrated on is beyond; at a percentile something is."""
    network, images = seeded("elec4848", 2), [frames.frame(i) for i in range(2)]
    found = {clipping: compare(network, quantize(network, images, clipping=clipping), frames)
             for clipping in CLIPPINGS}
    plain = ("e1a", "c2", "d4a")
    for name in plain:
        beyond = {clipping: found[clipping]["tensors"][name]["saturated"] for clipping in CLIPPINGS}
        assert beyond["min-max"] == 0
        assert 0 < beyond["percentile"] < 0.01
    usual = quantize(network, images)
    assert usual.tensors == quantize(network, images, clipping="mse").tensors
    scales = [quantize(network, images, clipping=clipping).tensors["e1a"].scale for clipping in
              ("min-max", "percentile")]
    assert scales[1] < scales[0]
    with pytest.raises(ValueError, match="^Clipping must be one of mse, min-max, percentile, not "
                                         "'none'$"):
        quantize(network, images, clipping="none")


def test_command(tmp_path, capsys, quickly):
    out = tmp_path / "report"
    assert main([*SMALL, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.replace(str(out), "").splitlines())) <= 80
    assert "elec4848, 2 images" in said
    report = json.loads((out / "report.json").read_text())
    assert report["images"] == ["phantom:0", "phantom:1"]
    assert list(report["clipping"]) == list(CLIPPINGS)
    with (out / "layers.csv").open() as file:
        rows = {row["tensor"]: row for row in csv.DictReader(file)}
    assert rows.keys() == report["clipping"]["mse"]["tensors"].keys()
    assert float(rows["c1"]["sqnr_db min-max"]) == pytest.approx(
        report["clipping"]["min-max"]["tensors"]["c1"]["sqnr_db"], abs=1e-3)


@pytest.mark.parametrize("arguments, message", [
    (["--n", "0"], "N must be a whole number of at least 1, not 0"),
    (["--data", "nowhere"], "No data at 'nowhere'; name a folder, a table (.csv), or phantom"),
    (["--model", "vgg"], "No model 'vgg'; known: elec4848, elec4848-ds, elec4848-ds-pub"),
])
def test_refused(tmp_path, capsys, arguments, message):
    out = tmp_path / "report"
    assert main([*SMALL, "--out", str(out), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not out.exists()
