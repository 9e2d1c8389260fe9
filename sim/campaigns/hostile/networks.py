"""Hostile networks: ONNX files whose bytes, messages or graphs no exporter makes."""

import math

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from golden import integer
from golden.arbitrary import arbitrary_graph
from golden.models import load_graph
from golden.onnx_export import export
from golden.referee import STEP_BAR
from hw.compiler import CompileError, compile_network
from hw.compiler.importer import import_onnx, judge
from hw.config import TINY
from sim.campaigns.hostile.cage import Wrong
from sim.campaigns.hostile.kind import Kind, door, must_accept
from sim.campaigns.hostile.mutations import damaged

__all__ = ["NETWORKS"]

GRAPHS  = 10
NAMES   = ("", "mask", "c1", "d1", "x_packed", "x_stored", "x_alpha", "[red]x[/]", "a\nb",
           "\x1b[31m", "../../x", "x" * 5000, "<b>", "é", "image", "a b", "'", '"')
SCALES  = (0.0, -1.0, math.nan, math.inf, 1e-45, 1e-30, 1e30, 3e38, 1.0, 0.5, 255.0)
NUMBERS = (0, 1, -1, 2, 3, 4, 7, 255, 256, -129, 2**31 - 1, -2**31, 2**40, 2**63 - 1)
TYPES   = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8,
           TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL,
           TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.BFLOAT16, 17, 0, 99)
OPS     = ("Relu", "Identity", "Sigmoid", "Softmax", "ArgMax", "Clip", "Neg", "Abs", "Transpose",
           "Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Conv",
           "ConvTranspose", "QuantizeLinear", "DequantizeLinear", "BatchNormalization", "Loop",
           "If", "Reshape", "Shape", "Cast", "Unknown", "Slice", "Pad", "Split", "Flatten",
           "Dropout", "Where", "Expand", "Constant", "ConstantOfShape", "LeakyRelu")
INSIDE  = ("Relu", "Identity", "Sigmoid", "Neg", "Abs", "Dropout", "Tanh", "Softmax", "Flatten",
           "Shape", "Not", "Transpose", "ArgMax", "GlobalAveragePool")
PATHS   = ("weights.bin", "../weights.bin", "/etc/passwd", "missing.bin", "/dev/zero", "", "..",
           "in", "model.onnx")


def _corpus(run):
    """Small good files: random networks, and one of the project's own."""
    found = [export(arbitrary_graph(seed, depth=1 + seed % 2, widths=(3, 6), largest_side=12))
             for seed in range(GRAPHS)]
    found.append(export(load_graph("elec4848", 16, 4)))
    return [model.SerializeToString() for model in found]


# Accidents to a graph. Each takes a generator of random choices and a model, which it changes.

def _renamed(random, model):
    """One end of an edge has another name."""
    node  = random.choice(model.graph.node)
    names = random.choice((node.input, node.output))
    if names:
        names[random.randrange(len(names))] = random.choice((*NAMES, _edge(random, model)))


def _renamed_everywhere(random, model):
    old, new = _edge(random, model), random.choice(NAMES)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for info in (*model.graph.input, *model.graph.output, *model.graph.value_info,
                 *model.graph.initializer):
        if info.name == old:
            info.name = new


def _edge(random, model):
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    return random.choice(names) if names else ""


def _removed(random, model):
    part = random.choice((model.graph.node, model.graph.node, model.graph.initializer,
                          model.graph.value_info, model.graph.input, model.graph.output))
    if part:
        del part[random.randrange(len(part))]


def _bypassed(random, model):
    """A node is left out, and what read it reads its first input."""
    place = random.randrange(len(model.graph.node))
    node  = model.graph.node[place]
    if node.input and node.output:
        old, new = node.output[0], node.input[0]
        del model.graph.node[place]
        for other in model.graph.node:
            for index, name in enumerate(other.input):
                if name == old:
                    other.input[index] = new
        for info in model.graph.output:
            if info.name == old:
                info.name = new


def _inserted(random, model):
    """Another operator stands in an edge."""
    place = random.randrange(len(model.graph.node))
    node  = model.graph.node[place]
    if node.input:
        old = node.input[0]
        node.input[0] = f"{old}_more"
        more = helper.make_node(random.choice(INSIDE), [old], [f"{old}_more"])
        model.graph.node.insert(place, more)


def _doubled(random, model):
    node = model.graph.node.add()
    node.CopyFrom(random.choice(model.graph.node[:-1] or [node]))
    if random.random() < 0.5 and node.output:
        node.output[0] += "_2"
    if random.random() < 0.3 and node.output:
        model.graph.output.add().name = node.output[0]


def _shuffled(random, model):
    nodes = list(model.graph.node)
    random.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _cyclic(random, model):
    early, late = sorted(random.choices(range(len(model.graph.node)), k=2))
    node, other = model.graph.node[early], model.graph.node[late]
    if node.input and other.output:
        node.input[random.randrange(len(node.input))] = other.output[0]


def _retyped(random, model):
    random.choice(model.graph.node).op_type = random.choice(OPS)


def _attribute(random, model):
    node = random.choice([node for node in model.graph.node if node.attribute]
                         or model.graph.node)
    if not node.attribute or random.random() < 0.1:
        node.attribute.append(helper.make_attribute(random.choice((
            "axis", "group", "auto_pad", "strides", "mode", "block_size", "ceil_mode")),
            random.choice((1, "SAME_UPPER", [2, 2], 0, -5))))
        return
    attribute = random.choice(node.attribute)
    match random.randrange(4):
        case 0:
            node.attribute.remove(attribute)
        case 1:
            attribute.type = random.randrange(15)
        case _ if attribute.ints:
            if random.random() < 0.3:
                attribute.ints.append(random.choice(NUMBERS))
            else:
                attribute.ints[random.randrange(len(attribute.ints))] = random.choice(NUMBERS)
        case _ if attribute.type == onnx.AttributeProto.INT:
            attribute.i = random.choice(NUMBERS)
        case _ if attribute.type == onnx.AttributeProto.FLOAT:
            attribute.f = random.choice(SCALES)
        case _:
            attribute.s = random.choice((b"", b"linear", b"cubic", b"\xff", b"half_pixel"))


def _constant(random, model):
    """Values, types, sides or bytes of a constant."""
    tensors = list(model.graph.initializer)
    if not tensors:
        return
    tensor = random.choice(tensors)
    match random.randrange(8):
        case 0 | 1 | 2:
            values = _values(tensor)
            if values is not None and values.size:
                values = values.copy()
                flat = values.reshape(-1)
                with np.errstate(all="ignore"):
                    if values.dtype.kind == "f":
                        flat[random.randrange(flat.size)] = random.choice(SCALES)
                    else:
                        flat[random.randrange(flat.size)] = np.array(
                            random.choice(NUMBERS)).astype(values.dtype)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        case 3:
            values = _values(tensor)
            if values is not None and random.random() < 0.8:
                kind = random.choice(("f4", "f2", "f8", "i1", "u1", "i4", "i8", "?"))
                with np.errstate(all="ignore"):
                    tensor.CopyFrom(numpy_helper.from_array(values.astype(kind), tensor.name))
            else:
                tensor.data_type = random.choice(TYPES)
        case 4:
            if tensor.dims and random.random() < 0.7:
                tensor.dims[random.randrange(len(tensor.dims))] = random.choice(NUMBERS)
            else:
                tensor.dims.append(random.choice(NUMBERS))
        case 5:
            tensor.raw_data = damaged(random, tensor.raw_data, most=1)
        case 6:
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", random.choice(PATHS)),
                               ("offset", str(random.choice((0, 4, -1, 2**40, "x")))),
                               ("length", str(random.choice((0, 4, -1, 2**40, "x"))))):
                if random.random() < 0.7:
                    tensor.external_data.add(key=key, value=value)
        case 7:
            other = random.choice(tensors)
            name  = tensor.name
            tensor.CopyFrom(other)
            tensor.name = name


def _values(tensor):
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return None


def _shape(random, model):
    """The declared type of an input, output or tensor between."""
    infos = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not infos:
        return
    kind = random.choice(infos).type.tensor_type
    match random.randrange(4):
        case 0:
            kind.elem_type = random.choice(TYPES)
        case 1:
            kind.ClearField("shape")
        case 2:
            kind.shape.dim.add().dim_value = random.choice(NUMBERS)
        case _ if kind.shape.dim:
            dim = random.choice(kind.shape.dim)
            if random.random() < 0.2:
                dim.dim_param = random.choice(("N", "", "height"))
            else:
                dim.dim_value = random.choice((*NUMBERS, 8, 12, 16))


def _whole(random, model):
    """Versions, domains and outputs."""
    match random.randrange(6):
        case 0:
            model.ir_version = random.choice((0, 1, 3, 7, 8, 99, 2**40))
        case 1 if model.opset_import:
            model.opset_import[0].version = random.choice((0, 1, 7, 9, 10, 12, 13, 17, 19, 21, 99))
        case 2:
            model.opset_import.add(domain=random.choice(("", "com.microsoft", "x")), version=1)
        case 3:
            del model.opset_import[:]
        case 4:
            model.graph.output.add().name = _edge(random, model)
        case 5:
            model.graph.node[random.randrange(len(model.graph.node))].domain = random.choice(
                ("com.microsoft", "ai.onnx", "x"))


def _message(random, model):
    """Any field of any message."""
    found = [model]
    for _ in range(random.randint(1, 6)):       # a walk down
        inner = [value for field, value in found[-1].ListFields()
                 if field.type == field.TYPE_MESSAGE]
        if not inner:
            break
        value = random.choice(inner)
        found.append(value if hasattr(value, "ListFields") else random.choice(list(value)))
    message = found[-1]
    fields  = message.ListFields()
    if not fields:
        return
    field, value = random.choice(fields)
    if random.random() < 0.5:
        message.ClearField(field.name)
    elif field.type == field.TYPE_MESSAGE and not hasattr(value, "ListFields"):
        value.add().CopyFrom(random.choice(list(value)))


ACCIDENTS = (_renamed, _renamed_everywhere, _removed, _bypassed, _inserted, _doubled, _shuffled,
             _cyclic, _retyped, _attribute, _attribute, _constant, _constant, _constant, _shape,
             _whole, _message)


def _graph(random, corpus, folder):
    """A file with a graph that its exporter did not make."""
    model = onnx.ModelProto()
    blob  = random.choice(corpus)
    model.ParseFromString(blob)
    good  = random.random() < 0.03
    for _ in range(0 if good else random.choice((1, 1, 1, 2, 3))):
        if model.graph.node:
            random.choice(ACCIDENTS)(random, model)
    return _tried(random, folder, model.SerializeToString(), good)


def _bytes(random, corpus, folder):
    """A file with bytes that are none of its exporter's."""
    blob = random.choice(corpus)
    for _ in range(random.choice((1, 1, 2))):
        blob = damaged(random, blob, random.choice(corpus), most=2)
    return _tried(random, folder, blob, False)


def _tried(random, folder, blob, good):
    path = folder / "in" / "model.onnx"
    path.write_bytes(blob)
    (folder / "in" / "weights.bin").write_bytes(random.randbytes(64))
    seed = random.getrandbits(31)

    def read():
        imported = import_onnx(str(path))
        graph    = imported.graph
        t        = graph.tensors[graph.input]
        if t.height * t.width > 1 << 16:
            return              # right as far as it goes; it would take long
        generator = torch.Generator().manual_seed(seed)
        picture = torch.randint(0, 256, (3, t.height, t.width), dtype=torch.uint8,
                                generator=generator)
        frame   = imported.frame(picture)
        values  = integer.run(graph, frame)
        for name, value in values.items():
            made = graph.tensors[name]
            if tuple(value.shape) != (made.channels, made.height, made.width):
                raise Wrong(f"{name} has shape {tuple(value.shape)}")
        mask = imported.mask(values[graph.output].numpy())
        if mask.shape != (1, t.height, t.width) or mask.dtype != np.uint8:
            raise Wrong(f"a mask of {mask.dtype} {mask.shape}")
        verdicts = judge(imported, frame)
        for verdict in verdicts:
            if verdict.steps > STEP_BAR:
                raise Wrong(f"ONNX Runtime differs by {verdict.steps} steps in {verdict.name!r}")
        if not any(verdict.different for verdict in verdicts):
            apart = np.abs(imported.segment(picture).numpy() * 256 - mask[0]).max()
            if not apart <= 1:
                raise Wrong(f"the mask is {apart} of 256 from ONNX Runtime's of the whole file")
        try:
            compile_network(graph, TINY)
        except CompileError:
            pass                # another preset may run it
    return must_accept(door(read)) if good else door(read)


NETWORKS = (
    Kind("onnx-bytes", _corpus, _bytes, 25),
    Kind("onnx-graph", _corpus, _graph, 45),
)
