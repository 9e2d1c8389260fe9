"""What is looked at before a file is believed: its bytes, its constants, and ONNX's own rules.

Whatever a file is, reading it takes bounded time and memory: nothing is allocated, expanded or
followed before its size is known.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx.checker
import onnx.inliner
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from onnx import TensorProto, defs, helper, numpy_helper

from golden.errors import InputError
from hw.compiler.importer.errors import Refused
from hw.compiler.importer.rewrites import KNOWN, REWRITES
from hw.config import MIB, PRESETS

LARGEST_MEMORY    = max(config.offchip_bytes for config in PRESETS.values())
LARGEST_CONSTANTS = 4 * LARGEST_MEMORY      # bytes: a float for every byte that any machine holds
LARGEST_FILE      = LARGEST_CONSTANTS + 64 * MIB
MOST_NODES        = 50_000                  # with functions written out
DEEPEST_CALL      = 32                      # of functions by functions
EXPORT            = "export the network as ONNX QDQ"
TOLD              = 300                     # characters of another program's complaint
LONGEST_NAME      = 120
MARKUP            = str.maketrans("[]", "()")       # brackets mean something to what prints
PACKED_BITS       = {TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4,
                     **{getattr(TensorProto, name): 2 for name in ("INT2", "UINT2")
                        if hasattr(TensorProto, name)}}


def read_model(path):
    """The model of a file, its external data not yet read.

    Raises
    ------
    InputError
        If there is no such file, or it holds no model.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; MODEL is the path of an ONNX file")
    if not path.exists():
        raise InputError(f"No file {path}; MODEL is the path of an ONNX file")
    if not path.is_file():
        raise InputError(f"{path} is a device or pipe; MODEL is the path of an ONNX file")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes, and no machine has room for "
                         f"a network of more than {LARGEST_FILE:,}; use a smaller network")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        raise InputError(f"{path}: not an ONNX model; {EXPORT}") from None
    return model


def plain(model, path):
    """A copy of a model with its constants at hand and without functions, which keeps the rules of
    ONNX. Its external data may lie in the folder of ``path``.

    Raises
    ------
    Refused
        If there are operators that its opset does not have.
    InputError
        If anything else is wrong.
    """
    def refuse(what):
        raise InputError(f"{path}: {what}")

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _check_text(copy, refuse)
    if _count(copy, refuse) > MOST_NODES:
        refuse(f"more than {MOST_NODES:,} nodes, functions written out; use a smaller network")
    _check_constants(copy, Path(path).parent, refuse)
    # What annotates tensors means nothing here, and stops ONNX's own tools.
    del copy.graph.quantization_annotation[:]
    _check_rules(copy, path, refuse)
    if copy.functions:
        try:
            copy = onnx.inliner.inline_local_functions(copy)
        except Exception as error:
            refuse(f"its functions cannot be written out ({told(error)}); export without functions")
    _check_names(copy.graph, refuse)
    return copy


def told(error):
    """What another program complains about, in one line."""
    text = str(error).partition("==> Context")[0].replace("[ShapeInferenceError]", "")
    return printable(" ".join(text.split())[:TOLD]) or type(error).__name__


def printable(text):
    """Text of a file as it can be shown in one line of a terminal."""
    return "".join(x if x.isprintable() else x.encode("unicode_escape", "backslashreplace").decode()
                   for x in text)


def spoken(name):
    """A name of the file as one that can go anywhere: into a line, a table, the name of a file."""
    name = printable(name).translate(MARKUP)
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME - 2]}.."


def name_of(node):
    """What a node is called: by its name, or by what it makes."""
    return node.name or next(iter(node.output), "") or node.op_type


def _check_text(message, refuse):
    """Every name can be read: ONNX's are text in UTF-8. Others come as bytes."""
    for field, value in message.ListFields():
        values = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (
            [value])
        if field.type == FieldDescriptor.TYPE_STRING and any(isinstance(x, bytes) for x in values):
            refuse(f"names that are not text; {EXPORT}")
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for one in values:
                _check_text(one, refuse)


def _graphs(graph):
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        yield from _inside(node)


def _inside(node):
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from _graphs(graph)


def _nodes(owner):
    """Nodes of a graph or a function, and of the graphs inside them."""
    for node in owner.node:
        yield node
        for graph in _inside(node):
            yield from graph.node


def _count(model, refuse):
    """Nodes once every function is written out, or just more than :data:`MOST_NODES`."""
    bodies = {(body.domain, body.name): body for body in model.functions}
    known  = {}

    def size(key, depth):
        if depth > DEEPEST_CALL:
            refuse(f"function {key[1]!r} calls itself, or functions call each other more than "
                   f"{DEEPEST_CALL} deep; export without functions")
        if key not in known:
            known[key] = total(bodies[key], depth + 1)
        return known[key]

    def total(owner, depth):
        return sum(size((node.domain, node.op_type), depth)
                   if (node.domain, node.op_type) in bodies else 1 for node in _nodes(owner))

    for key in bodies:
        size(key, 0)
    return total(model.graph, 0)


def _tensors(model):
    """Every constant of a model, as (name of it or of its node, tensor)."""
    owners = [*_graphs(model.graph), *model.functions]
    for body in model.functions:
        for node in body.node:
            owners += _inside(node)
    for owner in owners:
        for tensor in getattr(owner, "initializer", ()):
            yield tensor.name, tensor
        for node in owner.node:
            for attribute in node.attribute:
                tensors = list(attribute.tensors)
                if attribute.HasField("t"):
                    tensors.append(attribute.t)
                for tensor in tensors:
                    yield name_of(node), tensor
                if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                    yield name_of(node), None
        if getattr(owner, "sparse_initializer", ()):
            yield owner.sparse_initializer[0].values.name, None


def _check_constants(model, folder, refuse):
    """Constants are whole and not too large; what lies outside the file is brought in."""
    total = 0
    for name, tensor in _tensors(model):
        name = printable(name)
        if tensor is None:
            refuse(f"constant {name!r} is sparse; export it dense")
        if tensor.data_type not in TensorProto.DataType.values() or not tensor.data_type:
            refuse(f"constant {name!r} has no type that ONNX knows ({tensor.data_type}); {EXPORT}")
        if tensor.HasField("segment"):
            refuse(f"constant {name!r} comes in segments; export it in one piece")
        size = _size(tensor)
        if size is None:
            refuse(f"constant {name!r} has the shape {list(tensor.dims)}; {EXPORT}")
        total += size
        if total > LARGEST_CONSTANTS:
            refuse(f"its constants, up to {name!r}, take {total:,} bytes, and no machine has room "
                   f"for more than {LARGEST_CONSTANTS:,}; use a smaller network")
        if tensor.data_location == TensorProto.EXTERNAL:
            _bring(tensor, name, size, folder, refuse)
        try:
            numpy_helper.to_array(tensor)
        except Exception as error:
            held = len(tensor.raw_data) if tensor.HasField("raw_data") else "other"
            refuse(f"constant {name!r} of shape {list(tensor.dims)} needs {size:,} bytes and has "
                   f"{held} ({told(error)}); export it again")


def _size(tensor):
    """Bytes that a tensor of this type and shape takes; None if there is no such shape."""
    if any(side < 0 for side in tensor.dims):
        return None
    count = math.prod(tensor.dims)
    bits  = PACKED_BITS.get(tensor.data_type)
    return -(-count * bits // 8) if bits else (
        count * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _bring(tensor, name, size, folder, refuse):
    """Put the bytes of external data into a tensor."""
    facts = {entry.key: entry.value for entry in tensor.external_data}
    where = facts.get("location", "")
    shown = printable(where)
    folder = folder.resolve()
    if not where or "\0" in where:
        refuse(f"constant {name!r} lies in a file without a name; export with its data inside")
    path = (folder / where).resolve()
    if not path.is_relative_to(folder):
        refuse(f"constant {name!r} lies in {shown!r}, outside the folder of the model; put its "
               "data beside the model")
    if not path.is_file():
        refuse(f"constant {name!r} lies in {shown!r}, and there is no such file; put it beside the "
               "model")
    try:
        offset = int(facts.get("offset", 0))
        length = int(facts.get("length", size))
    except ValueError:
        offset = length = -1
    if offset < 0 or length != size or offset + length > path.stat().st_size:
        refuse(f"constant {name!r} needs {size:,} bytes of {shown!r}, which has "
               f"{path.stat().st_size:,}, where the file says offset {facts.get('offset', 0)} and "
               f"length {facts.get('length', 'open')}; export it again")
    with path.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(length)
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT


def _check_rules(model, path, refuse):
    """The rules of ONNX, by its own checker, which wants a shape of every output."""
    known = onnx.ModelProto()
    known.CopyFrom(model)
    for info in known.graph.output:
        if info.type.WhichOneof("value") in (None, "tensor_type"):
            info.type.tensor_type.shape.SetInParent()
            if not info.type.tensor_type.elem_type:
                info.type.tensor_type.elem_type = TensorProto.FLOAT
    known.ir_version = min(known.ir_version, onnx.IR_VERSION)
    newest = defs.onnx_opset_version()
    opset  = next((x.version for x in known.opset_import if x.domain in ("", "ai.onnx")), 0)
    if opset > newest:
        refuse(f"opset {opset} is newer than {newest}, the newest that is known; export with an "
               "older one")
    try:
        onnx.checker.check_model(known)
    except Exception as error:
        unknown = [f"node {printable(name_of(node))!r} ({printable(node.op_type)}): "
                   f"opset {opset} has no such operator; {REWRITES.get(node.op_type, KNOWN)}"
                   for node in known.graph.node if _is_unknown(node, opset, known)]
        if unknown:
            raise Refused(path, unknown) from None
        refuse(f"onnx.checker: {told(error)}; {EXPORT}")


def _is_unknown(node, opset, model):
    """Whether ONNX has no such operator, or no longer."""
    called = [(body.domain, body.name) for body in model.functions]
    if node.domain not in ("", "ai.onnx") or (node.domain, node.op_type) in called:
        return False
    try:
        return defs.get_schema(node.op_type, opset, "").deprecated
    except defs.SchemaError:
        return True


def _check_names(graph, refuse):
    """Every tensor is made once, and every output at all."""
    made  = [x.name for x in graph.initializer]
    made += [name for node in graph.node for name in node.output if name]
    twice = next((name for name, count in Counter(made).items() if count > 1), None)
    if twice is not None:
        refuse(f"tensor {printable(twice)!r} is made twice; {EXPORT}")
    if not graph.output:
        refuse(f"no outputs; {EXPORT}")
    known = {*made, *(x.name for x in graph.input)}
    for output in graph.output:
        if output.name not in known:
            refuse(f"output {printable(output.name)!r} is made by no node; {EXPORT}")
