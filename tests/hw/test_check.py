"""What `make check-model` prints, and its exit codes."""

import re

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from torch import nn

from golden.referee import LayerVerdict
from hw import check as module
from hw.check import check, main
from hw.compiler import compile_network
from hw.compiler.importer.rewrites import KNOWN
from hw.config import EDGE, REFERENCE, TINY
from hw.network import export_module, load_network
from tests.hw.compiler.onnx_models import Model


@pytest.fixture
def small(tmp_path):
    """A file with one level of a U-Net."""
    model = Model()
    x = model.quantised(model.conv(model.image(), (6, 3, 3, 3), pads=[1] * 4, name="first"))
    deep = model.quantised(model.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    deep = model.quantised(model.conv(deep, (4, 6, 3, 3), pads=[1] * 4, name="deep"))
    up = model.node("Resize", deep, "", np.float32([1, 1, 2, 2]), mode="nearest")
    up = model.quantised(model.node("Concat", model.quantised(up), x, axis=1))
    x = model.quantised(model.conv(up, (1, 10, 1, 1), name="head"), name="mask")
    path = tmp_path / "small.onnx"
    onnx.save(model.output(x).model(), path)
    return str(path)


def test_layers_units_and_costs(small, tmp_path):
    with (tmp_path / "log").open("w") as log:
        graph, imported = load_network(small)
        program = check(graph, imported, TINY, Console(file=log, width=160))
    text = (tmp_path / "log").read_text()
    convolved = [layer.unit for layer in program.layers if layer.macs]
    assert convolved[0] == convolved[1] == "encoder"
    assert convolved[-1] == "decoder"
    rows = {cells[0]: cells for cells in map(str.split, text.splitlines()) if cells}
    for layer in program.layers:
        cells = rows[str(layer.id)]
        assert cells[1] == layer.name
        assert layer.unit in cells
        assert f"{layer.height}x{layer.width}x{layer.channels}" in cells
        assert cells[-1] == f"{program.layer_bytes.get(layer.id, 0):,}"
    assert f"it runs: about {program.estimated_cycles:,} cycles a frame alone" in text
    macs = 8 * 12 * 6 * 27 + 4 * 6 * 4 * 54 + 8 * 12 * 10
    assert f"{macs:,} MACs; " in text
    for other in (REFERENCE, EDGE):
        cycles = compile_network(imported.graph, other).estimated_cycles
        assert f"with CONFIG={other.name}: about {cycles:,} cycles a frame alone" in text
    seconds, = re.findall(r"^compiled in (\d+\.\d\d) s of one core$", text, re.MULTILINE)
    assert float(seconds) > 0


def test_exit_code_of_a_network_that_runs(small, capsys):
    assert main(["--model", small, "--config", "edge"]) == 0
    assert EDGE.name in capsys.readouterr().out


def test_onnx_runtime_judges_every_layer(small, capsys, monkeypatch):
    """The bar is one step in any element; a layer beyond it is named."""
    line = "ONNX Runtime, layer by layer on the same inputs: "
    assert main(["--model", small, "--config", "tiny", "--image", "phantom:1"]) == 0
    assert line in capsys.readouterr().out
    monkeypatch.setattr(module, "judge", lambda imported, frame_CHW, progress: (
        LayerVerdict("first", "Conv", 9, 3, 1), LayerVerdict("deep", "Conv", 5, 1, 2)))
    assert main(["--model", small, "--config", "tiny"]) == 1
    assert (line + "2 steps apart at most, most in 'deep' (Conv): 1 of 5 elements (bar 1)"
            in " ".join(capsys.readouterr().out.split()))
    assert main(["--model", small, "--config", "tiny", "--referee", "0"]) == 0
    assert line not in capsys.readouterr().out


@pytest.mark.parametrize(("channels", "expected"), [
    (600, ["with CONFIG=reference: about ", "with CONFIG=edge: about ",
           "with CONFIG=large: about "]),
    (2100, ["not with CONFIG=reference: ", "not with CONFIG=edge: ", "with CONFIG=large: about "]),
    (8300, ["not with CONFIG=reference: ", "not with CONFIG=edge: ", "not with CONFIG=large: ",
            "no preset runs it; take a smaller frame, or fewer channels in that layer"])])
def test_what_would_run_a_network_that_does_not_fit(channels, expected, tmp_path, capsys):
    model = Model(frame=(3, 24, 24))
    x = model.quantised(model.conv(model.image(), (channels, 3, 1, 1)))
    onnx.save(model.output(x).model(), tmp_path / "wide.onnx")
    assert main(["--model", str(tmp_path / "wide.onnx"), "--config", "tiny"]) == 2
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ")
    assert len(lines) == len(expected)
    assert all(line.startswith(f"  {start}") for line, start in zip(lines, expected, strict=True))


def test_every_reason_is_printed(tmp_path, capsys):
    model = Model()
    x = model.quantised(model.conv(model.image(), (4, 3, 1, 1)))
    a = model.quantised(model.node("LRN", x, size=3, name="one"))
    b = model.quantised(model.conv(x, (4, 4, 9, 1), pads=[4, 0, 4, 0], name="two"))
    path = tmp_path / "odd.onnx"
    onnx.save(model.output(a, b).model(), path)
    assert main(["--model", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {path} does not run\n"
        f"  node 'one' (LRN): the engine has no such operator; {KNOWN}\n"
        "  node 'two' (Conv): a kernel of 9x1; use several of up to 7x7\n"
        "  1 of 3 operators would run as they are, with 8% of the multiplications\n")


@pytest.mark.parametrize(("arguments", "message"), [
    (["--model", "none.onnx"], "No file none.onnx; MODEL is the path of an ONNX file"),
    (["--size", "x"], "argument --size: invalid int value: 'x'; see `make help`"),
])
def test_what_cannot_be_done_is_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_tiny_takes_what_it_is_for(monkeypatch, small):
    """`make check-model CONFIG=tiny` refused its own default of 256 x 256; `make sim` took 32."""
    seen = []
    load = module.load_network

    def loaded(model, size, width, **how):
        seen.append((size, width))
        return load(model, size, width, **how)

    monkeypatch.setattr(module, "load_network", loaded)
    monkeypatch.setattr(module, "check", lambda graph, imported, config, console: (
        seen.append(config.name)))
    for words in (["--config", "tiny"], ["--config", "tiny", "--size", "64"], [],
                  ["--config", "tiny", "--model", small]):
        assert main(words) == 0
    assert seen == [(32, 4), "tiny", (64, 4), "tiny", (256, 32), "reference", (None, None), "tiny"]


def test_pictures_that_do_not_divide(capsys):
    assert main(["--config=tiny", "--size=24", "--width=4"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "frame 32x32x3" in out
    assert ("the network takes no pictures of 24 x 24: the host pads them to 32 x 32, repeating "
            "their last row and column, and crops the mask") in out


def test_float_files(tmp_path, capsys):
    """With pictures they are quantised first; groups that a frame's statistics normalise are told
    from other reshaping."""
    torch.manual_seed(0)
    path = tmp_path / "groups.onnx"
    export_module(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(),
                                nn.Conv2d(4, 1, 1)), path, 3, (16, 16))
    words = ["--config=tiny", f"--model={path}", "--calibration=phantom:2"]
    assert main(words) == 2
    why = ("(Reshape): it is part of a normalisation by the frame's own statistics; train with "
           "BatchNormalization instead, or freeze its statistics: `make sim` does with the float "
           "file, CALIBRATION=folder and FREEZE=1\n")
    assert why in capsys.readouterr().err
    assert main([*words, "--freeze"]) == 0
    assert "it runs: about " in capsys.readouterr().out
