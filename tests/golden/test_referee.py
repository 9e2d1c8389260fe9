from dataclasses import replace

import onnx
import pytest
import torch
from onnx import numpy_helper

from golden import referee
from golden.images import read_image
from golden.integer import run
from golden.models import MODELS, load_graph, weights_path
from golden.onnx_export import export
from tests.golden.graphs import random_frame, random_graph


@pytest.mark.parametrize("seed", (0, 2, 3, 6))
def test_every_kind_is_within_one_step(seed):
    graph = random_graph(seed)
    frame = random_frame(graph, seed)
    values = run(graph, frame)
    assert all(len(values[name].unique()) > 12 for name in graph.tensors)
    verdict = referee.judge(export(graph), graph, frame)
    assert [layer.name for layer in verdict.layers] == [layer.name for layer in graph.layers]
    assert [layer.elements for layer in verdict.layers] == [
        values[layer.name].numel() for layer in graph.layers]
    for layer in verdict.layers:
        assert layer.steps <= 1, layer
        assert layer.different <= 0.02 * layer.elements, layer
        if layer.kind in ("Input", "MaxPool", "Upsample", "Concat"):    # halves included
            assert layer.different == 0, layer


@pytest.mark.parametrize("model", MODELS)
def test_every_network_is_within_one_step(model):
    """Random weights: masks hang on single steps, more than those of trained ones do."""
    graph = load_graph(model, 32, 4)
    verdict = referee.judge(export(graph), graph, read_image("phantom:3", 32))
    assert verdict.steps <= 1
    assert verdict.agreement > 0.97
    assert verdict.iou > 0.93


@pytest.mark.parametrize(("model", "width"), [
    (model, width) for model in MODELS for width in (8, 32, 64)
    if weights_path(model, width).exists()])
def test_trained_networks_pass(model, width):
    graph = load_graph(model, 96, width)
    verdict = referee.judge(export(graph), graph, read_image("phantom:3", 96))
    assert verdict.passed, verdict


def replace_initializer(model, name, change):
    """The model with one constant altered."""
    again = onnx.ModelProto()
    again.CopyFrom(model)
    one, = (x for x in again.graph.initializer if x.name == name)
    one.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(one)), name))
    return again


def test_one_wrong_weight_is_seen_in_its_layer_alone():
    graph = random_graph(0)
    frame = random_frame(graph, 0)

    def wrong(weight_OIKL):
        weight_OIKL = weight_OIKL.copy()
        weight_OIKL[2, 0, 1, 1] ^= 0x40
        return weight_OIKL

    verdict = referee.judge(replace_initializer(export(graph), "relu_weight", wrong), graph, frame)
    assert [layer.name for layer in verdict.layers if layer.steps > 1] == ["relu"]
    assert not verdict.passed


def test_one_wrong_scale_spoils_the_mask():
    graph = load_graph("elec4848", 32, 4)
    model = replace_initializer(export(graph), "logit_weight_scale", lambda scale: -scale)
    verdict = referee.judge(model, graph, read_image("phantom:3", 32))
    assert verdict.agreement < 0.5
    assert not verdict.passed


def test_bars():
    layer = referee.LayerVerdict("x", "Conv", 10, 1, 1)
    verdict = referee.Verdict((layer,), 0.999, 0.9, 0.5)
    assert verdict.passed
    assert not replace(verdict, agreement=0.9989).passed
    assert not replace(verdict, layers=(layer, replace(layer, steps=2))).passed


def test_progress_counts_layers():
    graph, seen = random_graph(0), []
    referee.judge(export(graph), graph, random_frame(graph, 0), progress=seen.append)
    assert seen == list(range(1, len(graph.layers) + 1))


def test_command_writes_a_file_and_says_what_it_saw(tmp_path, capsys):
    arguments = ["--size", "32", "--width", "4", "--out", str(tmp_path), "--image", "phantom:1"]
    assert referee.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "elec4848-4-32.onnx" in printed
    assert "pass  each layer, same inputs: largest difference 0 steps (bar 1)" in printed
    assert ("pass  mask, end to end: 100.0000% of pixels equal, IoU 1.0000 (bar 99.9%)"
            in printed)
    model = onnx.load(tmp_path / "elec4848-4-32.onnx")
    assert {p.key: p.value for p in model.metadata_props} == {"network": "elec4848"}
    assert referee.main([*arguments[:-4], "--out", str(tmp_path / "sub" / "my.onnx")]) == 0
    assert (tmp_path / "sub" / "my.onnx").exists()


def test_command_fails_where_a_bar_is_missed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(referee, "MASK_BAR", 1.1)
    assert referee.main(["--size", "32", "--width", "4", "--out", str(tmp_path)]) == 1
    assert "MISS  mask, end to end: 100.0000% of pixels equal" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    (["--model", "resnet"], f"No model 'resnet'; known: {', '.join(MODELS)}"),
    (["--size", "many"], "argument --size: invalid int value: 'many'; see `make help`"),
    (["--size", "32", "--width", "4", "--image", "none.png"],
     "No file 'none.png'; name an image, or phantom:SEED for a synthetic one"),
    (["--size", "33", "--width", "4"],
     "Frame size must be a positive multiple of 16, not 33; try 32"),
])
def test_command_complains_in_one_line(arguments, message, tmp_path, capsys):
    assert referee.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "out").exists()


def test_a_path_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code = referee.main(["--size", "32", "--width", "4", "--out", str(tmp_path / "file" / "x")])
    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_sums_of_int16_are_judged_too():
    graph = random_graph(1)
    verdict = referee.judge(export(graph), graph, random_frame(graph, 1))
    exact, = (layer for layer in verdict.layers if layer.kind == "Add")
    assert (exact.different, exact.steps) == (0, 0)
    assert torch.iinfo(run(graph, random_frame(graph, 1))["exact"].dtype).bits == 16
