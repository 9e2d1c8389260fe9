"""Files that break ONNX's own rules, or would take too much: refused by name, and soon."""

import time

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from golden.errors import InputError
from hw.check import main
from hw.compiler.importer import fold, import_onnx
from hw.network import load_network
from tests.hw.compiler.onnx_models import Model

EXPORT = "export the network as ONNX QDQ"


def plain():
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1), name="one"))
    return small.output(small.quantised(small.conv(x, (2, 4, 1, 1), name="two"))).model()


def said(model):
    with pytest.raises(InputError) as caught:
        import_onnx("small.onnx", model=model)
    line = str(caught.value)
    assert line.startswith("small.onnx: ")
    assert line.isprintable()
    return line.removeprefix("small.onnx: ")


def node(model, name):
    return next(x for x in model.graph.node if x.name == name)


def weights(model):
    return max(model.graph.initializer, key=lambda x: len(x.raw_data))


def unsorted(m):
    nodes = list(m.graph.node)[::-1]
    del m.graph.node[:]
    m.graph.node.extend(nodes)


def cyclic(m):
    node(m, "one").input[0] = m.graph.output[0].name


def missing(m):
    node(m, "two").input[0] = "nobody"


def twice(m):
    node(m, "two").output[0] = node(m, "one").output[0]


def same_constants(m):
    m.graph.initializer.append(weights(m))


def few_inputs(m):
    del node(m, "one").input[1:]


def text_for_numbers(m):
    node(m, "one").attribute.append(helper.make_attribute("strides", "abc"))


def nobodys_output(m):
    m.graph.output[0].name = "nobody"


def no_outputs(m):
    del m.graph.output[:]


def sparse(m):
    m.graph.sparse_initializer.append(helper.make_sparse_tensor(
        helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [0]), [9]))


def short(m):
    weights(m).raw_data = weights(m).raw_data[:-3]


def long(m):
    weights(m).raw_data += b"abc"


def huge(m):
    weights(m).dims[:] = [1 << 40]


def negative(m):
    weights(m).dims[:] = [-1]


def untyped(m):
    weights(m).data_type = 0


def newest(m):
    m.opset_import[0].version = 99


def operator(m):
    node(m, "one").op_type = "Convolve"


def sequence_input(m):
    m.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(
        helper.make_tensor_type_proto(TensorProto.FLOAT, [1])))


def text_input(m):
    m.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def negative_side(m):
    m.graph.input[0].type.tensor_type.shape.dim[2].dim_value = -4


def huge_side(m):
    m.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 40


def wrong_kernel(m):
    node(m, "one").attribute.append(helper.make_attribute("kernel_shape", [5, 5]))


CONSTANT = "constant 'constant3'"


@pytest.mark.parametrize(("change", "line"), [
    (unsorted, ("onnx.checker: Nodes in a graph must be topologically sorted, however input "
               "'quantizelinear8_out' of node: name: dequantizelinear9 ")),
    (cyclic, "onnx.checker: Nodes in a graph must be topologically sorted, however input "),
    (missing, "onnx.checker: Nodes in a graph must be topologically sorted, however input "),
    (twice, "onnx.checker: Graph must be in single static assignment (SSA) form, however "),
    (same_constants, "onnx.checker: constant5 initializer name is not unique; export"),
    (few_inputs, ("onnx.checker: Node(one) with schema(::Conv:11) has input size 1 not in range "
                 "[min=2, max=3].")),
    (text_for_numbers, "onnx.checker: Mismatched attribute type in 'one : strides'."),
    (nobodys_output, "onnx.checker: Graph output 'nobody' is not an output of any node in graph."),
    (no_outputs, f"no outputs; {EXPORT}"),
    (sparse, "constant 's' is sparse; export it dense"),
    (short, "constant "),
    (long, "constant "),
    (huge, "its constants, up to "),
    (negative, "constant "),
    (untyped, "constant "),
    (newest, "opset 99 is newer than "),
    (operator, "node 'one' (Convolve): opset 17 has no such operator; Conv, ConvTranspose, "),
    (sequence_input, "input 'image' has 0 dimensions; frames are N x C x H x W"),
    (text_input, "input 'image' is of type STRING; declare it as one of float, float16, uint8, "),
    (negative_side, "input 'image' has the dynamic shape 1 x 3 x -4 x 12; export with "),
    (huge_side, "input 'image' has 1099511627776 x 12 pixels, and no machine has room for more "),
    (wrong_kernel, ("node 'quantizelinear4' (QuantizeLinear): the file has 1x4x4x8 where the layer "
                   "makes 1x4x8x12; export with the shape that ONNX infers")),
], ids=lambda x: getattr(x, "__name__", ""))
def test_the_file_is_refused_before_it_is_read(change, line):
    model = plain()
    change(model)
    begin = time.process_time()
    assert said(model).startswith(line)
    assert time.process_time() - begin < 5


# External data.

def outside(tmp_path, **facts):
    """A model file whose largest constant lies elsewhere, and that constant's bytes."""
    model  = plain()
    tensor = weights(model)
    data   = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "data.bin", **facts}.items():
        tensor.external_data.add(key=key, value=str(value))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "small.onnx").write_bytes(model.SerializeToString())
    return str(folder / "small.onnx"), tensor.name, data


def test_external_data_beside_the_model(tmp_path):
    path, name, data = outside(tmp_path, offset=3, length=16)
    (tmp_path / "model" / "data.bin").write_bytes(b"abc" + data)
    graph, imported = load_network(path)
    assert next(x for x in imported.model.graph.initializer if x.name == name).raw_data == data
    assert len(graph.layers) == 3


@pytest.mark.parametrize(("facts", "line"), [
    ({"location": "../data.bin"}, ("lies in '../data.bin', outside the folder of the model; put "
                                  "its data beside the model")),
    ({"location": "/etc/passwd"}, ("lies in '/etc/passwd', outside the folder of the model; put "
                                  "its data beside the model")),
    ({"location": "link.bin"}, ("lies in 'link.bin', outside the folder of the model; put its data "
                               "beside the model")),
    ({"location": "none.bin"}, ("lies in 'none.bin', and there is no such file; put it beside the "
                               "model")),
    ({"location": ""}, "lies in a file without a name; export with its data inside"),
    ({"offset": 1}, ("needs 16 bytes of 'data.bin', which has 16, where the file says offset 1 and "
                    "length open; export it again")),
    ({"length": 1 << 50}, ("needs 16 bytes of 'data.bin', which has 16, where the file says offset "
                          "0 and length 1125899906842624; export it again")),
    ({"offset": "x"}, ("needs 16 bytes of 'data.bin', which has 16, where the file says offset x "
                      "and length open; export it again")),
])
def test_external_data_elsewhere(tmp_path, facts, line):
    path, name, data = outside(tmp_path, **facts)
    (tmp_path / "data.bin").write_bytes(data)
    (tmp_path / "model" / "data.bin").write_bytes(data)
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "data.bin")
    with pytest.raises(InputError) as caught:
        load_network(path)
    assert str(caught.value) == f"{path}: constant {name!r} {line}"


def test_no_regular_file(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        load_network(f"{tmp_path}/")
    with pytest.raises(InputError, match="^/dev/zero is a device or pipe; MODEL is the path"):
        load_network("/dev/zero")


# Constants that follow from others.

def scaled_by(make):
    """A model in which a layer's result is multiplied by a constant that ``make`` computes."""
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    return small.output(small.quantised(small.node("Mul", x, make(small), name="mul"))).model()


def loop(small):
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body", [info("i", 7, []), info("go", 9, []), info("v", 1, [])],
        [info("on", 9, []), info("w", 1, [])])
    return small.node("Loop", "", np.bool_(True), np.float32(1), name="odd", body=body)


def branch(small):
    parts = [helper.make_graph(
        [helper.make_node("Constant", [], ["v"], value_float=value)], "part", [],
        [helper.make_tensor_value_info("v", 1, [])]) for value in (1.0, 2.0)]
    return small.node("If", np.bool_(True), name="odd", then_branch=parts[0], else_branch=parts[1])


def of_shape(*shape):
    return lambda small: small.node("ReduceSum", small.node(
        "ConstantOfShape", np.int64(shape), name="odd"), keepdims=0)


def noisy(small):
    return small.node("RandomNormal", name="odd", shape=[1])


def wrong_sides(small):
    return small.node("Reshape", np.ones(6, np.float32), np.int64([4]), name="odd")


FOLD = "fold constants at export, so that it is one (an initializer)"


@pytest.mark.parametrize(("make", "line"), [
    (loop, f"node 'odd' (Loop): it is a branch or a loop, which is not followed; {FOLD}"),
    (branch, f"node 'odd' (If): it is a branch or a loop, which is not followed; {FOLD}"),
    (noisy, f"node 'odd' (RandomNormal): its result is another every time; {FOLD}"),
    (of_shape(1 << 45), "node 'odd' (ConstantOfShape): it does not fit its constant operands ("),
    (of_shape(1 << 27), "node 'odd' (ConstantOfShape): it does not fit its constant operands ("),
    (of_shape(-3), "shapes or types contradict each other ("),
    (wrong_sides, "shapes or types contradict each other ("),
], ids=lambda x: getattr(x, "__name__", ""))
def test_constants_that_are_not_evaluated(make, line):
    assert said(scaled_by(make)).startswith(line)


def test_the_rewrite_of_a_folded_constant_runs():
    assert import_onnx("small.onnx", model=scaled_by(lambda small: small.constant(np.float32(1))))


def slow(small):
    x = small.constant(np.ones((1, 64, 128, 128), np.float32))
    y = small.node("Conv", x, np.ones((64, 64, 7, 7), np.float32), name="odd", pads=[3] * 4,
                   auto_pad="NOTSET", dilations=[1, 1])
    return small.node("ReduceSum", y, keepdims=0)


def test_evaluation_has_little_time(monkeypatch):
    monkeypatch.setattr(fold, "SECONDS", 1)
    begin = time.monotonic()
    assert said(scaled_by(slow)) == (
        f"node 'odd' (Conv): constants that follow from others take longer than 1 s; {FOLD}")
    assert time.monotonic() - begin < 20


def test_evaluation_elsewhere_gives_what_onnx_says():
    """Einsum is none of the operators that are evaluated in this process."""
    def gain(small):
        return small.node("Einsum", np.float32([1, 2]), np.float32([2, 3]), equation="i,i->")

    folded   = import_onnx("small.onnx", model=scaled_by(gain))
    constant = import_onnx("small.onnx", model=scaled_by(
        lambda small: small.constant(np.float32(8))))
    a, b = (vars(x.graph.layers[-1]) for x in (folded, constant))
    assert torch.equal(a["multiplier"], b["multiplier"])
    assert torch.equal(a["shift"], b["shift"])


# What grows as it is read.

def test_functions_that_call_functions():
    model = plain()
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model.opset_import.append(opset[1])
    model.functions.append(helper.make_function(
        "local", "f0", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], opset))
    for depth in range(1, 20):
        calls = [helper.make_node(f"f{depth - 1}", [a], [b], domain="local")
                 for a, b in (("x", "m"), ("m", "y"))]
        model.functions.append(helper.make_function("local", f"f{depth}", ["x"], ["y"], calls,
                                                    opset))
    two = node(model, "two")
    model.graph.node.insert(list(model.graph.node).index(two) + 1, helper.make_node(
        "f3", ["two_out"], ["called"], "call", domain="local"))
    next(x for x in model.graph.node if x.input[0] == "two_out" and x is not node(
        model, "call")).input[0] = "called"
    assert import_onnx("small.onnx", model=model).graph.layers[2].low == 100
    node(model, "call").op_type = "f19"
    assert said(model) == ("more than 50,000 nodes, functions written out; use a smaller network")
    model.functions[0].node[0].CopyFrom(helper.make_node("f3", ["x"], ["y"], domain="local"))
    assert said(model).startswith("function ")


def test_concatenations_of_themselves():
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    for _ in range(40):
        x = small.quantised(small.node("Concat", x, x, axis=1))
    assert "has more bytes than any machine's memory" in said(small.output(x).model())


def test_very_many_operators_without_quantisation():
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    for _ in range(1500):
        x = small.node("Identity", x)
    assert import_onnx("small.onnx", model=small.output(x).model())
    for _ in range(600):
        x = small.node("Concat", x, axis=1)
    small.outputs = []
    said(small.output(small.quantised(x)).model())


# Names.

@pytest.mark.parametrize("name", ["[/]", "[bold]x[/bold]", "two\nlines", "\x1b[31m", "a/../../b",
                                  "x" * 5000, "\N{SNOWMAN}"])
def test_names_can_be_printed(name, tmp_path, capsys):
    model = plain()
    old = next(x.output[0] for x in model.graph.node if x.input[0] == "one_out")
    for x in model.graph.node:
        x.input[:]  = [name if y == old else y for y in x.input]
        x.output[:] = [name if y == old else y for y in x.output]
    model.graph.node.append(helper.make_node("Abs", [name], ["unread"], name))
    imported = import_onnx("small.onnx", model=model)
    made = imported.graph.layers[1].name
    assert made.isprintable()
    assert not set(made) & set("[]/")
    assert len(made) <= 120
    assert imported.stored[made][0][0] == name
    path = tmp_path / "[b]small.onnx"
    path.write_bytes(model.SerializeToString())
    assert main(["--model", str(path), "--config", "tiny"]) == 0
    assert made[:20] in capsys.readouterr().out
    node(model, "two").op_type = "Convolve"
    node(model, "two").name = name
    assert said(model).startswith("node ")


@pytest.mark.parametrize("place", ["one_out", "small", "Conv", "constant3"])
def test_names_that_are_not_text(place, tmp_path):
    path = tmp_path / "small.onnx"
    blob = plain().SerializeToString()
    path.write_bytes(blob.replace(place.encode(), b"\xff" * len(place)))
    with pytest.raises(InputError) as caught:
        load_network(str(path))
    assert str(caught.value) == f"{path}: names that are not text; {EXPORT}"


def test_a_node_that_makes_nothing():
    model = plain()
    model.graph.node.append(helper.make_node("Relu", ["one_out"], []))
    assert "Relu" in said(model)
