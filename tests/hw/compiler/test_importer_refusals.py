"""Every refusal in full: node, operator, reason, and what would run."""

import numpy as np
import onnx
import pytest

from golden.errors import InputError
from hw.compiler.importer import Refused, import_onnx
from hw.compiler.importer.rewrites import REWRITES
from hw.network import load_network
from tests.hw.compiler.onnx_models import Model
from tests.hw.compiler.running import runs


def refusal(model):
    with pytest.raises(Refused) as caught:
        import_onnx("small.onnx", model=model)
    reason, = caught.value.reasons
    assert str(caught.value) == f"small.onnx: {reason}"
    return reason


def one(operator, *inputs, channels=4, **attributes):
    """A model with one odd node ``odd`` between two grids."""
    small = Model()
    x = small.quantised(small.conv(small.image(), (channels, 3, 1, 1)))
    x = small.node(operator, x, *inputs, name="odd", **attributes)
    return small.output(small.quantised(x)).model()


def convolution(shape, *, channels=4, operator="Conv", weights=None, **attributes):
    small = Model()
    x = small.quantised(small.conv(small.image(), (channels, 3, 1, 1)))
    axis = 0 if operator == "Conv" else 1
    weights = small.weights(shape, axis=axis) if weights is None else weights(small)
    x = small.node(operator, x, weights, name="odd", **attributes)
    return small.output(small.quantised(x)).model()


def softmax_inside():
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    x = small.quantised(small.node("Softmax", x, name="odd", axis=1), 1 / 256, 0)
    return small.output(small.quantised(small.conv(x, (2, 4, 1, 1)))).model()


def unquantised_activation():
    small = Model()
    x = small.node("Sin", small.conv(small.image(), (4, 3, 1, 1)), name="odd")
    return small.output(small.quantised(x)).model()


def activation_and_gains():
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    x = small.node("Tanh", x, name="odd")
    x = small.node("Mul", x, np.float32([1, 2, 3, 4]).reshape(1, 4, 1, 1))
    return small.output(small.quantised(x)).model()


KNOWN = ("Conv, ConvTranspose, BatchNormalization, Relu, Clip, Sigmoid, Add, Mul, Concat, MaxPool, "
         "AveragePool, Resize, DepthToSpace, Pad, Identity, Dropout and activations run, and "
         "Softmax and ArgMax at the end")


REFUSED = [
    (lambda: one("ReduceMax", axes=[1]),
     ("node 'odd' (ReduceMax): it is over axes 1; take the largest of rows and columns (axes 2 and "
      "3), with keepdims=1")),
    (lambda: one("Pow", np.float32([1, 2, 3, 4]).reshape(4, 1, 1)),
     ("node 'odd' (Pow): a constant of 4 numbers, and a table is the same for all channels; use "
      "one number")),
    (lambda: one("LRN", size=3), f"node 'odd' (LRN): the engine has no such operator; {KNOWN}"),
    (lambda: one("Log"),
     "node 'odd' (Log): for some bytes its result is no number; bound its operand by Clip"),
    (unquantised_activation,
     ("node 'odd' (Sin): its operand 'conv3_out' has no QuantizeLinear, and on 4 grids 94 steps "
      "of the result are lost; quantise the result of Conv")),
    (activation_and_gains,
     ("node 'odd' (Tanh): its operand 'mul7_out' has another factor or offset for each channel, "
      "and a table is the same for all; quantise the result of Tanh")),
    (lambda: one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
     ("node 'odd' (AveragePool): at the border it averages fewer pixels; use count_include_pad=1, "
      "or no pads")),
    (lambda: one("AveragePool", kernel_shape=[3, 3], strides=[3, 3]),
     ("node 'odd' (AveragePool): a window of 3x3 with strides of 3x3; use up to 7x7 with a stride "
      "of 1 or 2 in both")),
    (lambda: one("AveragePool", kernel_shape=[5, 3], strides=[2, 2], ceil_mode=1),
     "node 'odd' (AveragePool): a last window that is cut; use ceil_mode=0"),
    (lambda: one("DepthToSpace", blocksize=4),
     ("node 'odd' (DepthToSpace): blocks of 4x4 out of 4 channels; use 2x2 out of four times the "
      "channels")),
    (softmax_inside,
     ("node 'odd' (Softmax): it is not at the end of the network, where the host does it; end the "
      "network there")),
    (lambda: one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
     ("node 'odd' (MaxPool): it pads numbers that may be below zero; put Relu before it, or use "
      "2x2 with stride 2 and no pads")),
    (lambda: one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[2, 2, 2, 2]),
     ("node 'odd' (MaxPool): a window of 3x3 with pads of 2x2x2x2 and dilations of 1x1; pad at "
      "most one row and column")),
    (lambda: one("MaxPool", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
     ("node 'odd' (MaxPool): a window of 3x3 with strides of 1x1 and pads of 1x1x1x1; use 2x2 with "
      "stride 2 and no pads, or a Conv with stride 2")),
    (lambda: one("Resize", "", np.float32([1, 1, 3, 3])),
     ("node 'odd' (Resize): it makes 1x4x24x36 of 1x4x8x12; use x2 nearest (asymmetric, floor) or "
      "linear of any size")),
    (lambda: one("Resize", "", np.float32([1, 1, 2, 2]), mode="cubic"),
     ("node 'odd' (Resize): mode cubic with half_pixel; use x2 nearest (asymmetric, floor) or "
      "linear of any size")),
    (lambda: one("Resize", "", np.float32([1, 1, 2, 2]), mode="nearest",
                 coordinate_transformation_mode="asymmetric", nearest_mode="ceil"),
     ("node 'odd' (Resize): mode nearest with asymmetric and ceil; use x2 nearest (asymmetric, "
      "floor) or linear of any size")),
    (lambda: one("Resize", "", np.float32([1, 1, 1.2, 1.2]), mode="linear"),
     "node 'odd' (Resize): its factors do not make whole rows and columns; resize to sizes"),
    (lambda: one("Pad", np.int64([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect"),
     ("node 'odd' (Pad): mode reflect with a value of 0; pad rows and columns with zeros, before a "
      "Conv")),
    (lambda: one("Mul", np.ones((1, 1, 8, 12), np.float32)),
     "node 'odd' (Mul): a constant of shape 1x1x8x12; use one number, or one for each channel"),
    (lambda: convolution((4, 4, 3, 3), dilations=[1, 4]),
     ("node 'odd' (Conv): a kernel of 3x3 with a dilation of 1x4; reach over up to 7x7 pixels, or "
      "pad so that the map keeps its size")),
    (lambda: convolution((4, 4, 3, 3), strides=[3, 3]),
     ("node 'odd' (Conv): a kernel of 3x3 with strides of 3x3; use two dimensions and a stride of "
      "1 or 2 in both")),
    (lambda: convolution((4, 4, 9, 1), pads=[4, 0, 4, 0]),
     "node 'odd' (Conv): a kernel of 9x1; use several of up to 7x7"),
    (lambda: convolution((4, 4, 1, 1), pads=[1, 1, 1, 1]),
     ("node 'odd' (Conv): padding of 1x1x1x1 (top, left, bottom, right) is not less than the 1x1 "
      "kernel; pad less, or use a larger kernel")),
    (lambda: convolution((4, 4, 5, 5), operator="ConvTranspose", strides=[2, 2],
                         pads=[1, 1, 1, 1]),
     ("node 'odd' (ConvTranspose): a kernel of 5x5 with strides of 2x2; use 2x2 to 4x4 with stride "
      "2, or Resize and a Conv")),
    (lambda: convolution((4, 4, 1, 1), weights=lambda small: small.constant(
        np.ones((4, 4, 1, 1), np.float32))),
     ("node 'odd' (Conv): its weights are floats; quantise weights too, with DequantizeLinear "
      "before the operator")),
]


@pytest.mark.parametrize(("model", "reason"), REFUSED)
def test_one_node(model, reason):
    assert refusal(model()) == reason


HALF, TWICE = {"kernel_shape": [2, 2], "strides": [2, 2]}, ("", np.float32([1, 1, 2, 2]))


def behind(*operators):
    """A model of operators, each a name with inputs and attributes, or None for a grid, behind a
    convolution of 4 channels."""
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    for operator in operators:
        if operator is None:
            x = small.quantised(x)
        elif operator[0] == "Conv":
            x = small.conv(x, *operator[1:-1], **operator[-1])
        elif operator[0] == "ConvTranspose":
            x = small.node("ConvTranspose", x, small.weights(operator[1], axis=1), strides=[2, 2])
        else:
            x = small.node(operator[0], x, *operator[1:-1], **operator[-1])
    return small.output(small.quantised(x)).model()


REWRITTEN = {
    "take the largest of rows and columns (axes 2 and 3), with keepdims=1": [
        [("ReduceMax", {"axes": [2, 3]})], [("ReduceMax", {"axes": [-1, -2], "keepdims": 1})]],
    "use one number": [[("Pow", np.float32(2), {})]],
    "bound its operand by Clip": [[("Clip", np.float32(0.1), np.float32(1), {}), None,
                                   ("Log", {})], [("Clip", np.float32(0.1), np.float32(1), {}),
                                                  ("Log", {})]],
    "quantise the result of Conv": [[("Conv", (4, 4, 1, 1), {}), None, ("Sin", {})]],
    "quantise the result of Tanh": [[("Tanh", {}), None, ("Mul", np.float32(
        [1, 2, 3, 4]).reshape(1, 4, 1, 1), {})]],
    "use count_include_pad=1, or no pads": [
        [("AveragePool", {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1})],
        [("AveragePool", {"kernel_shape": [3, 3]})]],
    "use up to 7x7 with a stride of 1 or 2 in both": [
        [("AveragePool", {"kernel_shape": [7, 7]})],
        [("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2]})]],
    "use ceil_mode=0": [[("AveragePool", {"kernel_shape": [5, 3], "strides": [2, 2]})]],
    "use 2x2 out of four times the channels": [
        [("Conv", (16, 4, 1, 1), {}), None, ("DepthToSpace", {"blocksize": 2}), None,
         ("DepthToSpace", {"blocksize": 2})]],
    "put Relu before it, or use 2x2 with stride 2 and no pads": [
        [("Relu", {}), None, ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2],
                                          "pads": [1] * 4})], [("MaxPool", HALF)]],
    "pad at most one row and column": [
        [("Relu", {}), None, ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2],
                                          "pads": [1, 1, 0, 0]})]],
    "use 2x2 with stride 2 and no pads, or a Conv with stride 2": [
        [("MaxPool", HALF)], [("Conv", (4, 4, 3, 3), {"strides": [2, 2], "pads": [1] * 4})]],
    "use x2 nearest (asymmetric, floor) or linear of any size": [
        [("Resize", *TWICE, {"mode": "nearest", "nearest_mode": "floor",
                             "coordinate_transformation_mode": "asymmetric"})],
        [("Resize", *TWICE, {"mode": "linear"})],
        [("Resize", "", "", np.int64([1, 4, 7, 31]), {
            "mode": "linear", "coordinate_transformation_mode": "align_corners"})]],
    "resize to sizes": [[("Resize", "", "", np.int64([1, 4, 9, 14]), {"mode": "linear"})]],
    "pad rows and columns with zeros, before a Conv": [
        [("Pad", np.int64([0, 0, 1, 1, 0, 0, 1, 1]), {}), ("Conv", (4, 4, 3, 3), {})]],
    "use one number, or one for each channel": [
        [("Mul", np.float32(0.5), {})], [("Mul", np.ones((1, 4, 1, 1), np.float32) / 2, {})]],
    "reach over up to 7x7 pixels, or pad so that the map keeps its size": [
        [("Conv", (4, 4, 3, 3), {"dilations": [1, 3], "pads": [1, 3, 1, 3]})],
        [("Conv", (4, 4, 3, 3), {"dilations": [1, 4], "pads": [1, 4, 1, 4]})]],
    "use two dimensions and a stride of 1 or 2 in both": [
        [("Conv", (4, 4, 3, 3), {"strides": [2, 2]})]],
    "use several of up to 7x7": [
        [("Conv", (4, 4, 7, 1), {"pads": [3, 0, 3, 0]}), None,
         ("Conv", (4, 4, 3, 1), {"pads": [1, 0, 1, 0]})]],
    "pad less, or use a larger kernel": [
        [("Conv", (4, 4, 1, 1), {})], [("Conv", (4, 4, 3, 3), {"pads": [2] * 4})]],
    "use 2x2 to 4x4 with stride 2, or Resize and a Conv": [
        *([("ConvTranspose", (4, 4, side, side), {})] for side in (2, 3, 4)),
        [("Resize", *TWICE, {"mode": "nearest", "nearest_mode": "floor",
                             "coordinate_transformation_mode": "asymmetric"}), None,
         ("Conv", (4, 4, 5, 5), {"pads": [2] * 4})]],
    "quantise weights too, with DequantizeLinear before the operator": [
        [("Conv", (4, 4, 1, 1), {})]],
}
"""What each refusal of :data:`REFUSED` recommends, in every form that it names."""
ELSEWHERE = (KNOWN, "end the network there", *REWRITES.values())    # tried by other tests


@pytest.mark.parametrize("rewrite", REWRITTEN)
def test_rewrites_run(rewrite):
    for operators in REWRITTEN[rewrite]:
        runs(behind(*operators))


def test_every_rewrite_is_tried():
    named = {reason.partition("; ")[2] for _, reason in REFUSED}
    assert named - {*ELSEWHERE} == {*REWRITTEN}


def test_weights_that_need_nine_bits():
    def weights(small):
        values = np.arange(16, dtype=np.uint8).reshape(4, 4, 1, 1) * 17
        return small.node("DequantizeLinear", values, np.float32(0.01), np.uint8(90))

    assert refusal(convolution((4, 4, 1, 1), weights=weights)) == (
        "node 'odd' (Conv): its weights less their zero point are -90..165, beyond 8 bits and a "
        "sign; quantise weights symmetrically (quantize_static(..., extra_options="
        "{'WeightSymmetric': True}))")


def test_weights_that_a_negative_gain_takes_beyond_eight_bits():
    small = Model()
    weights = small.node("DequantizeLinear", np.full((4, 3, 1, 1), -128, np.int8),
                         np.float32(0.01), np.int8(0))
    x = small.conv(small.image(), (4, 3, 1, 1), weights=weights, name="odd")
    x = small.node("Mul", x, np.float32([1, 1, -1, 1])[:, None, None])
    assert refusal(small.output(small.quantised(x)).model()) == (
        "node 'odd' (Conv): its weights are -128..128 where BatchNormalization or Mul turns their "
        "sign, beyond 8 bits; quantise weights to -127..127")


def biased(steps, scale):
    """A convolution of a map with a scale, and in channel 1 a bias of so many steps of its sums."""
    small = Model()
    x     = small.quantised(small.conv(small.image(), (4, 3, 1, 1)), scale)
    width = scale * 0.01
    weights = small.node("DequantizeLinear", np.full((2, 4, 1, 1), 100, np.int8),
                         np.float32(0.01), np.int8(0))
    x = small.node("Conv", x, weights, np.float32([0, steps * width]), name="odd")
    return small.output(small.quantised(x)).model()


def test_a_bias_with_which_sums_overflow():
    """The largest sum of 4 weights of 100 is 62,000 above a bias, the lowest 40,000 below."""
    import_onnx("small.onnx", model=biased(2**31 - 63_000, 0.02))
    assert refusal(biased(2**31 - 61_000, 0.02)) == (
        "node 'odd' (Conv): its sums reach 2.15e+09, beyond int32; quantise its weights with a "
        "larger scale")
    import_onnx("small.onnx", model=biased(41_000 - 2**31, 0.02))
    assert refusal(biased(39_000 - 2**31, 0.02)) == (
        "node 'odd' (Conv): its sums reach 2.15e+09, beyond int32; quantise its weights with a "
        "larger scale")


def test_a_bias_that_steps_of_sums_cannot_tell():
    """A step of the sums is 2.55, and 127.5 of the result's."""
    assert refusal(biased(0.25, 255)) == (
        "node 'odd' (Conv): its bias falls between two steps of its sums, and 31.9 steps of its "
        "result are lost; give its operand or its weights a smaller scale")
    import_onnx("small.onnx", model=biased(3, 255))

def test_a_sum_without_quantisation_between():
    small = Model()
    a = small.conv(small.image(), (4, 3, 1, 1), name="a")
    b = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    x = small.quantised(small.node("Add", a, b, name="odd"))
    assert refusal(small.output(x).model()) == (
        "node 'odd' (Add): its operand 'a_out' has no QuantizeLinear; quantise the result of Conv")


def test_scales_too_far_apart_for_a_sum():
    small = Model()
    a = small.quantised(small.conv(small.image(), (4, 3, 1, 1)), 1.0)
    b = small.quantised(small.conv(small.image(), (4, 3, 1, 1)), 0.001)
    x = small.quantised(small.node("Add", a, b, name="odd"), 0.05)
    assert refusal(small.output(x).model()) == (
        "node 'odd' (Add): the scales of its operands, 1 and 0.001, have no ratio of "
        "integers up to 381 within one step; bring both to similar scales by a QuantizeLinear "
        "before it")


def test_an_output_that_is_not_quantised():
    small = Model()
    x = small.conv(small.image(), (4, 3, 1, 1), name="last")
    assert refusal(small.output(x).model()) == (
        "output 'last_out': it has no QuantizeLinear; quantise the result of Conv")


def test_a_frame_that_is_an_output():
    small = Model()
    assert refusal(small.output(small.image()).model()) == (
        "output 'dequantizelinear1_out': no layer makes it; leave it out")


def test_a_sum_whose_convolution_has_no_room_for_both_operands():
    small = Model()
    a, b = (small.quantised(small.conv(small.image(), (4, 3, 1, 1)), 0.02, 0) for _ in range(2))
    x = small.conv(small.node("Add", a, b, name="sum"), (4, 4, 5, 1), name="odd")
    assert refusal(small.output(small.quantised(x)).model()) == (
        "node 'odd' (Conv): its operand 'sum_out' has no QuantizeLinear; quantise the result of "
        "Add")


def test_all_reasons_are_listed_and_none_follows_from_another():
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    a = small.quantised(small.node("MatMul", x, np.ones((12, 12), np.float32), name="one"))
    a = small.quantised(small.node("Relu", a))
    b = small.quantised(small.node("LRN", x, size=3, name="two"))
    with pytest.raises(Refused) as caught:
        import_onnx("small.onnx", model=small.output(a, b).model())
    assert caught.value.reasons == (
        "node 'one' (MatMul): the engine has no such operator; use a 1x1 Conv",
        f"node 'two' (LRN): the engine has no such operator; {KNOWN}")
    assert str(caught.value) == (
        "small.onnx: node 'one' (MatMul): the engine has no such operator; use a 1x1 Conv (1 more; "
        "`make check-model` lists them)")


def test_what_comes_behind_a_refused_operator_is_looked_at():
    """A QuantizeLinear says all that is to be known of what it reads; nothing else does."""
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    x = small.quantised(small.node("Relu", small.node("LRN", x, size=3, name="one")))
    x = small.quantised(small.conv(x, (4, 4, 1, 9), pads=[0, 4, 0, 4], name="two"))
    y = small.quantised(small.node("Add", small.node("LRN", x, size=3, name="three"), x,
                                   name="follows"))
    with pytest.raises(Refused) as caught:
        import_onnx("small.onnx", model=small.output(x, y).model())
    assert caught.value.reasons == (
        f"node 'one' (LRN): the engine has no such operator; {KNOWN}",
        "node 'two' (Conv): a kernel of 1x9; use several of up to 7x7",
        f"node 'three' (LRN): the engine has no such operator; {KNOWN}")
    # Of a Conv of 3 and one of 36 weights for each of 4 channels, one runs; Relu is behind an LRN.
    assert caught.value.share == ("1 of 6 operators would run as they are, with 8% of the "
                                  "multiplications")


def plain(**settings):
    small = Model(**settings)
    return small.output(small.quantised(small.conv(
        small.image(), (4, settings.get("frame", (3,))[0], 1, 1)))).model()


def changed(change):
    model = plain()
    change(model)
    return model


def open_sides(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "rows"


def four_frames(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4


def in_floats(model):
    kept = [node for node in model.graph.node if node.op_type == "Conv"]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def old(model):
    model.opset_import[0].version = 10


@pytest.mark.parametrize(("model", "message"), [
    (lambda: changed(open_sides),
     ("small.onnx: input 'image' has the dynamic shape 1 x 3 x ? x 12; export with fixed rows and "
      "columns, or give SIZE")),
    (lambda: changed(four_frames),
     "small.onnx: input 'image' has a batch of 4; export with a batch of 1"),
    (lambda: plain(frame=(5, 8, 8)),
     ("small.onnx: input 'image' has 5 channels, and a frame has 1 to 4; convolve them to 4 or "
      "fewer before")),
    (lambda: plain(frame=(8, 8, 3)),
     ("small.onnx: input 'image' has 8 channels, and a frame has 1 to 4; it looks like channels "
      "last: convert with channels first")),
    (lambda: changed(in_floats),
     ("small.onnx: a float model, without QuantizeLinear and DequantizeLinear; with "
      "CALIBRATION=folder of pictures `make sim` quantises it")),
    (lambda: changed(old), "small.onnx: opset 10 is older than 11; export with opset 13 or newer"),
])
def test_the_whole_file(model, message):
    with pytest.raises(InputError) as caught:
        import_onnx("small.onnx", model=model())
    assert str(caught.value) == message


def test_no_such_file(tmp_path):
    path = tmp_path / "none.onnx"
    with pytest.raises(InputError) as caught:
        load_network(str(path))
    assert str(caught.value) == f"No file {path}; MODEL is the path of an ONNX file"
    path.write_text("not a model")
    for size in (None, 8):
        with pytest.raises(InputError) as caught:
            load_network(str(path), size)
        assert str(caught.value) == (f"{path}: not an ONNX model; export the network as ONNX QDQ")


def test_width_and_size_are_the_files(tmp_path):
    path = str(tmp_path / "small.onnx")
    onnx.save(plain(), path)
    with pytest.raises(InputError) as caught:
        load_network(path, None, 4)
    assert str(caught.value) == (f"{path} has the width that it was exported with; leave WIDTH out")
    with pytest.raises(InputError) as caught:
        load_network(path, 16)
    assert str(caught.value) == (f"{path} is for frames of 8 x 12; leave SIZE out, or export it "
                                 "for others")
