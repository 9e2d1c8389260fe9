"""The file must hold what the graph means: read back here by other means than it was written."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from golden.integer import (
    Add,
    Conv,
    Gate,
    IntegerGraph,
    Lookup,
    Sum,
    Tensor,
    TransposedConv,
    float_mask,
    run,
)
from golden.models import MODELS, load_graph, weights_path
from golden.onnx_export import OPSET, export
from golden.quantize import fixed_point, sigmoid_table
from golden.referee import session
from tests.golden.graphs import random_frame, random_graph


def constants(model):
    return {x.name: numpy_helper.to_array(x) for x in model.graph.initializer}


def nodes(model):
    return {node.name.split("/")[1]: node for node in model.graph.node}


def networks():
    """Every network at a small width, and those whose weights are in the repository."""
    cases = [(model, 4) for model in MODELS]
    return cases + [(model, width) for model in MODELS for width in (8, 32, 64)
                    if weights_path(model, width).exists()]


def assert_lossless(graph, model):
    """Integers and grids are in the file; multipliers and shifts follow from its scales."""
    stored, by_name = constants(model), nodes(model)
    scale = {name: stored.get(f"{name}_scale") for name in graph.tensors}
    for layer in graph.layers:
        name, t = layer.name, graph.tensors[layer.name]
        if isinstance(layer, Add):
            assert by_name[name].op_type == "Add"
            continue
        assert stored[f"{name}_zero_point"] == t.zero_point
        assert stored[f"{name}_zero_point"].dtype == np.uint8
        assert stored[f"{name}_scale"] == pytest.approx(t.scale, rel=2e-6)
        if isinstance(layer, (Conv, TransposedConv, Gate)):
            assert np.array_equal(stored[f"{name}_bias"].ravel(), layer.bias.numpy())
        match layer:
            case Conv() | TransposedConv():
                assert np.array_equal(stored[f"{name}_weight"], layer.weight.numpy())
                assert (stored[f"{name}_weight_scale"] > 0).all()
                assert not stored[f"{name}_weight_zero_point"].any()
                source = layer.input
                if isinstance(graph.layer(source), Add):
                    source = graph.layer(source).a
                factor = np.float64(scale[source]) * stored[f"{name}_weight_scale"] / scale[name]
            case Gate():
                unit = np.float64(scale[layer.alpha]) * scale[layer.skip]
                assert stored[f"{name}_bias_scale"] == np.float32(unit)
                factor = stored[f"{name}_gain"].ravel() * unit / scale[name]
            case Sum():
                a, b = (np.float64(stored[f"{name}_{part}_scale"]) for part in "ab")
                ratio = Fraction(a / b).limit_denominator(381)
                assert ratio == Fraction(layer.weight_a, layer.weight_b)
                factor = np.array([a / layer.weight_a / scale[name]])
            case Lookup():
                if by_name[name].op_type == "Gather":
                    assert np.array_equal(stored[f"{name}_table"], layer.table.numpy())
                else:
                    table = sigmoid_table(float(scale[layer.input]),
                                          int(stored[f"{layer.input}_zero_point"]))
                    assert torch.equal(table, layer.table)
                continue
            case _:
                continue
        m, s = fixed_point(torch.from_numpy(np.asarray(factor, np.float64)))
        assert torch.equal(m, layer.multiplier), name
        assert torch.equal(s, layer.shift), name


@pytest.mark.parametrize(("model", "width"), networks())
def test_networks_are_lossless(model, width):
    graph = load_graph(model, 32, width)
    exported = export(graph)
    assert_lossless(graph, exported)
    assert {layer.name: nodes(exported)[layer.name].op_type for layer in graph.layers
            if isinstance(layer, Lookup)} == {
                layer.name: "Gather" if graph.classes and layer.name == "mask" else "Sigmoid"
                for layer in graph.layers if isinstance(layer, Lookup)}


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_is_lossless(seed):
    graph = random_graph(seed)
    assert_lossless(graph, export(graph))


def test_the_ends_of_every_multiplier_and_shift():
    """m of 2**14 and 2**15 - 1, shifts of 1 and 47, dead: rounding to float32 changes none."""
    rng = np.random.default_rng(0)
    m = torch.tensor([1 << 14, (1 << 15) - 1] * 47 + [0], dtype=torch.int16)
    s = torch.tensor([s for s in range(1, 48) for _ in range(2)] + [1], dtype=torch.uint8)
    for _ in range(20):
        scales = np.exp(rng.uniform(-8, 0, 2))
        tensors = {"image": Tensor("image", 1, 2, 2, float(scales[0]), 9),
                   "mask": Tensor("mask", len(m), 2, 2, float(scales[1]), 7)}
        conv = Conv("mask", "image", torch.ones(len(m), 1, 1, 1, dtype=torch.int8),
                    torch.zeros(len(m), dtype=torch.int32), m, s, 1, (0, 0, 0, 0), 0, 255,
                    "encoder")
        graph = IntegerGraph("ends", tensors, (random_graph(0).layer("image"), conv))
        assert_lossless(graph, export(graph))


def test_shapes_and_names():
    graph = random_graph(3)
    model = onnx.shape_inference.infer_shapes(export(graph), strict_mode=True, data_prop=True)
    shapes = {info.name: [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]
              for info in [*model.graph.value_info, *model.graph.output]}
    kinds = {info.name: info.type.tensor_type.elem_type for info in model.graph.value_info}
    for name, t in graph.tensors.items():
        if name != "image":     # whose name is that of the frame as it comes in
            assert shapes[name] == ["batch", t.channels, t.height, t.width], name
        if name != "exact":
            assert shapes[f"{name}_quantized"] == ["batch", t.channels, t.height, t.width]
            assert kinds[f"{name}_quantized"] == onnx.TensorProto.UINT8
    assert [x.name for x in model.graph.input] == ["image"]
    assert [x.name for x in model.graph.output] == [
        "mask", "every", "exact", "alpha", "tall", "low"]
    assert [(x.domain, x.version) for x in model.opset_import] == [("", OPSET)]
    assert {p.key: p.value for p in model.metadata_props} == {"network": "random"}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    by_name = {name: node.op_type for name, node in zip(names, model.graph.node, strict=True)}
    assert {name: by_name[name] for name in (
        "encoder/relu", "encoder/relu_bounded", "encoder/bounded_bounded", "encoder/pooled",
        "attention/sum", "decoder/same", "decoder/smooth", "decoder/both", "attention/alpha",
        "attention/table", "attention/gated", "attention/exact")} == {
            "encoder/relu": "Conv", "encoder/relu_bounded": "Relu",
            "encoder/bounded_bounded": "Clip", "encoder/pooled": "MaxPool",
            "attention/sum": "Add", "decoder/same": "ConvTranspose", "decoder/smooth": "Resize",
            "decoder/both": "Concat", "attention/alpha": "Sigmoid", "attention/table": "Gather",
            "attention/gated": "Mul", "attention/exact": "Add"}


def test_bounds_that_uint8_implies_have_no_node():
    operators = [node.op_type for node in export(load_graph("elec4848", 32, 4)).graph.node]
    assert "Clip" not in operators
    graph = load_graph("elec4848", 32, 4)
    raised = [layer for layer in graph.layers if isinstance(layer, Conv)
              and layer.low == graph.tensors[layer.name].zero_point > 0]
    assert operators.count("Relu") == len(raised) > 0


def test_several_frames_at_once():
    graph = load_graph("elec4848", 32, 4)
    frames = [random_frame(graph, seed) for seed in range(3)]
    # As the file says: integer kernels of CPUs without VNNI saturate sums of 16 bits.
    seen = session(export(graph)).run(
        ["mask"], {"image": torch.stack(frames).float().numpy() / 255})[0]
    for mask, frame in zip(seen, frames, strict=True):
        expected = float_mask(graph, run(graph, frame)).numpy()
        assert np.abs(mask[0] - expected).mean() < 0.01     # another frame's: above 0.1


def test_a_scale_moves_for_the_sake_of_its_sigmoid():
    """float32 rounding of this scale alone would change an entry of the table."""
    graph = load_graph("elec4848", 32, 4)
    logit = graph.tensors["logit"]
    q = torch.arange(256, dtype=torch.float64)

    def rounds_badly(scale):
        table = sigmoid_table(scale, logit.zero_point)
        return not torch.equal(table, sigmoid_table(float(np.float32(scale)), logit.zero_point))

    # Just below the scale at which the entry of some q changes, and above its float32.
    targets = torch.logit((torch.arange(140, 250, dtype=torch.float64) + 0.5) / 256)
    critical = (targets[:, None] / (q[None] - logit.zero_point)).flatten().tolist()
    bad = [scale * (1 + side * 1e-12) for scale in critical for side in (-1, 1)
           if 0.03 < scale < 0.06 and rounds_badly(scale * (1 + side * 1e-12))]
    assert bad
    for scale in bad[:5]:
        tensors = {**graph.tensors, "logit": replace(logit, scale=scale)}
        mask = replace(graph.layer("mask"), table=sigmoid_table(scale, logit.zero_point))
        moved = replace(graph, tensors=tensors, layers=(*graph.layers[:-1], mask))
        model = export(moved)
        assert nodes(model)["mask"].op_type == "Sigmoid"
        assert constants(model)["logit_scale"] != np.float32(scale)
        assert_lossless(moved, model)


def test_the_frame_is_a_float_in_0_to_1():
    graph = load_graph("elec4848", 32, 4)
    model = export(graph)
    frame, = model.graph.input
    assert frame.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert constants(model)["image_scale"] == np.float32(1 / 255)
    assert model.graph.node[0].op_type == "QuantizeLinear"
