"""Files in other forms than N x C x H x W with QDQ: integer operators, channels last, casts."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from golden.errors import InputError
from golden.referee import session
from hw.compiler.importer import Refused, import_onnx
from tests.hw.compiler.onnx_models import Model
from tests.hw.compiler.running import picture, runs
from tests.hw.test_quantise import exported

# Integer operators (QOperator), as ONNX Runtime's quantiser writes them.


class Small(nn.Module):
    """Everything that ONNX Runtime's quantiser has an integer operator for, and the engine."""

    def __init__(self):
        super().__init__()
        self.first  = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.LeakyReLU(0.1))
        self.third, self.gate = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 1, 1)
        self.last   = nn.Sequential(nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 1, 1))

    def forward(self, x):
        a = self.first(x)
        b = self.second(nn.functional.avg_pool2d(nn.functional.max_pool2d(a, 2), 1))
        b = nn.functional.interpolate(self.third(b), scale_factor=2)
        a = torch.cat([a + b, a * torch.sigmoid(self.gate(a))], 1)
        return torch.sigmoid(self.last(a))


class Noise(CalibrationDataReader):
    def __init__(self, shape):
        self.left = iter([np.random.default_rng(seed).random(shape, np.float32)
                          for seed in range(3)])

    def get_next(self):
        frame = next(self.left, None)
        return None if frame is None else {"image": frame}


@pytest.fixture(scope="module")
def integers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("integers")
    torch.manual_seed(0)
    exported(folder / "float.onnx", Small(), shape=(3, 16, 16))
    quant_pre_process(folder / "float.onnx", folder / "ready.onnx", skip_symbolic_shape=True)

    def make(kind, per_channel):
        quantize_static(folder / "ready.onnx", folder / "made.onnx", Noise((1, 3, 16, 16)),
                        QuantFormat.QOperator, per_channel=per_channel, activation_type=kind,
                        weight_type=QuantType.QInt8, reduce_range=True,     # whatever the CPU
                        extra_options={"WeightSymmetric": True})
        return onnx.load(folder / "made.onnx")
    return make


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", [QuantType.QUInt8, QuantType.QInt8])
def test_integer_operators(integers, kind, per_channel):
    model = integers(kind, per_channel)
    found = {node.op_type for node in model.graph.node}
    assert {"QLinearConv", "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearConcat",
            "QLinearLeakyRelu", "QLinearAveragePool", "MaxPool", "Resize"} <= found
    imported = runs(model)
    feeds = imported.given(imported.frame(picture(imported)))
    seen, made = (session(each).run(None, feeds)[0]
                  for each in (model, imported.model))
    assert np.abs(seen - made).max() <= 1 / 255         # of the file as it was


def integer(operator, *inputs, domain="com.microsoft", opset=17, **facts):
    """One integer operator on the stored frame and more inputs."""
    small = Model(opset=opset)
    x = small.node(operator, small.stored("image", 1 / 255, 0), np.float32(1 / 255), np.uint8(0),
                   *inputs, domain=domain, name="odd", **facts)
    model = small.output(small.read(x)).model()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


@pytest.mark.parametrize(("model", "message"), [
    (lambda: integer("QLinearGlobalAveragePool", np.float32(0.02), np.uint8(100), channels_last=1),
     ("small.onnx: node 'odd' (QLinearGlobalAveragePool) has channels last; convert with channels "
      "first")),
    (lambda: integer("QLinearMatMul", np.ones((12, 2), np.uint8), np.float32(0.02), np.uint8(100),
                     np.float32(0.02), np.uint8(100), domain=""),
     "small.onnx: node 'odd' (MatMul): the engine has no such operator; use a 1x1 Conv"),
    (lambda: integer("QLinearConv", np.ones((1, 3, 1, 1), np.int8), np.float32(0.02), np.int8(0),
                     np.float32(0.02), np.uint8(100), domain="", opset=12),
     "small.onnx: integer operators in opset 12; export with opset 13 or newer"),
])
def test_integer_operators_that_do_not_run(model, message):
    with pytest.raises(InputError) as caught:
        import_onnx("small.onnx", model=model())
    assert str(caught.value) == message


@pytest.mark.parametrize("operator", ["ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"])
def test_scales_that_depend_on_the_frame(operator):
    inputs, outputs, kind = (
        (["image"], ["y", "s", "z"], TensorProto.FLOAT) if operator == "DynamicQuantizeLinear" else
        (["image", "w"], ["y"], TensorProto.UINT8))
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, outputs)], "small",
        [helper.make_tensor_value_info("image", kind, [1, 3, 8, 8])],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(np.ones((3, 3, 8, 8), np.int8), "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(InputError) as caught:
        import_onnx("small.onnx", model=model)
    assert str(caught.value) == (f"small.onnx: operator {operator} has scales that depend on the "
                                 "frame; quantise statically (quantize_static)")


# Channels last at the ends, as tf2onnx leaves them.

LAST = [0, 2, 3, 1]


def last(channels, begin, end, outputs=1):
    """A network of channels first between ends of channels last."""
    small = Model(frame=(8, 12, channels))
    x = begin(small)
    x = small.quantised(small.conv(x, (4, channels, 3, 3), pads=[1] * 4))
    x = small.quantised(small.conv(x, (outputs, 4, 1, 1)), 0.05)
    return small.output(end(small, x)).model()


def quantised_first(small):
    x = small.node("Transpose", small.image(), perm=[0, 3, 1, 2])
    return small.quantised(x, 1 / 255, 0)


def transposed_first(small):
    return small.quantised(small.node("Transpose", "image", perm=[0, 3, 1, 2]), 1 / 255, 0)


def reshaped_first(small):
    return small.quantised(small.node("Reshape", "image", np.int64([-1, 1, 8, 12])), 1 / 255, 0)


def back(small, x):
    return small.node("Transpose", x, perm=LAST)


ENDS = {
    "nothing": lambda s, x: x,
    "transpose": back,
    "quantised again": lambda s, x: s.quantised(back(s, x), 0.05),
    "integers": lambda s, x: s.stored(back(s, x), 0.05),
    "sigmoid, then transpose": lambda s, x: back(s, s.node("Sigmoid", x)),
    "transpose, then sigmoid": lambda s, x: s.node("Sigmoid", back(s, x)),
    "reshape": lambda s, x: s.node("Reshape", x, np.int64([-1, 8, 12, 1])),
    "reshape to a picture": lambda s, x: s.node("Reshape", s.node("Sigmoid", x), np.int64([8, 12])),
}


@pytest.mark.parametrize("begin", [quantised_first, transposed_first])
@pytest.mark.parametrize("end", ENDS)
def test_channels_last(begin, end):
    model = last(3, begin, ENDS[end])
    if end == "integers":
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    check_end(model)


def check_end(model):
    """The machine's mask is ONNX Runtime's, which takes the file as it was."""
    imported = runs(model)
    seen  = picture(imported)
    fed,  = imported.given(imported.frame(seen)).values()
    dims  = [x.dim_value for x in model.graph.input[0].type.tensor_type.shape.dim]
    truth, = session(model).run(
        None, {"image": fed if dims[1] == fed.shape[1] else fed.transpose(0, 2, 3, 1)})
    again = imported.segment(seen)
    assert again.shape == (8, 12)
    expected = imported.ending.mask(imported.ending.read(truth, (8, 12)))[0]
    assert np.array_equal(expected, np.round(256 * again.numpy()))
    return imported


def test_one_channel_is_reshaped():
    check_end(last(1, reshaped_first, ENDS["reshape"]))


CLASSES = {
    "softmax over the last": lambda s, x: s.node("Softmax", back(s, x), axis=-1),
    "argmax over the last": lambda s, x: s.node("ArgMax", s.node("Softmax", back(s, x), axis=3),
                                                axis=-1, keepdims=0),
    "softmax, then transpose": lambda s, x: back(s, s.node("Softmax", x, axis=1)),
    "argmax, reshaped": lambda s, x: s.node("Reshape", s.node("ArgMax", x, axis=1),
                                            np.int64([8, 12])),
}


@pytest.mark.parametrize("end", CLASSES)
def test_classes_with_channels_last(end):
    model = last(3, transposed_first, CLASSES[end], outputs=3)
    model.graph.output[0].type.tensor_type.elem_type = (
        TensorProto.INT64 if "argmax" in end else TensorProto.FLOAT)
    check_end(model)


@pytest.mark.parametrize(("end", "message"), [
    (lambda s, x: s.node("Reshape", x, np.int64([1, 1, 12, 8]), name="odd"),
     ("node 'odd' (Reshape): it makes 1x1x12x8 of 1x1x8x12; leave out what moves rows, columns or "
      "channels")),
    (lambda s, x: s.quantised(s.conv(s.node("Transpose", x, perm=LAST, name="odd"),
                                     (2, 12, 1, 1))),
     ("node 'odd' (Transpose): it is not at the end of the network, where the host does it; export "
      "with channels first")),
])
def test_other_changes_of_shape(end, message):
    with pytest.raises(Refused) as caught:
        import_onnx("small.onnx", model=last(3, transposed_first, end))
    assert caught.value.reasons[0] == message


def test_channels_last_that_stay_so():
    """Somebody else reads the frame as it is."""
    small = Model(frame=(8, 12, 3))
    x = transposed_first(small)
    with pytest.raises(InputError, match="it looks like channels last"):
        import_onnx("small.onnx", model=small.output(small.quantised(small.conv(
            x, (1, 3, 1, 1))), small.image()).model())


# Frames of bytes that become floats in the file.

@pytest.mark.parametrize("kind", ["UINT8", "INT8"])
@pytest.mark.parametrize("normalise", [
    lambda s, x: s.node("Div", x, np.float32(255)),
    lambda s, x: s.node("Div", s.node("Sub", x, np.float32([120, 110, 100]).reshape(3, 1, 1)),
                        np.float32([60, 70, 50]).reshape(3, 1, 1)),
    lambda s, x: x])
def test_frames_that_are_cast(kind, normalise):
    small = Model()
    small.input_type = getattr(TensorProto, kind)
    x = normalise(small, small.node("Cast", "image", to=TensorProto.FLOAT))
    made = small.quantised(x, 1.0 if x == "cast0_out" else 0.02, 100)
    made = small.quantised(small.conv(made, (1, 3, 3, 3), pads=[1] * 4), 0.05)
    imported = runs(small.output(made).model())
    assert imported.graph.tensors["image"].scale == 1
    assert "pixels are taken as 0..255" in imported.notes[0]


def test_frames_that_are_cast_twice():
    small = Model()
    small.input_type = TensorProto.UINT8
    a, b = (small.quantised(small.node("Div", small.node("Cast", "image", to=1), np.float32(255)),
                            1 / 255, 0) for _ in range(2))
    x = small.quantised(small.node("Concat", a, b, axis=1))
    runs(small.output(small.quantised(small.conv(x, (1, 6, 1, 1)))).model())
