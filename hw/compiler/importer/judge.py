"""ONNX Runtime as referee of an imported network: every layer, on identical inputs."""

import onnx
import torch
from onnx import TensorProto, helper

from golden.errors import InputError
from golden.integer import Add, Input, run
from golden.places import COMMAND
from golden.referee import STEP_BAR, LayerVerdict, session, steps
from hw.compiler.importer.check import told


def judge(imported, frame_CHW, *, progress=None):
    """Compare every tensor that file and graph share, made by the file from the tensors above it.

    ``frame_CHW`` is in bytes of the input's grid. Layers that the importer put in belong to the
    next one that the file has. ``progress``, if given, is called with the number of layers done.
    """
    graph  = imported.graph
    values = run(graph, frame_CHW)
    parts  = _Parts(imported.model)
    verdicts = []
    for done, layer in enumerate(graph.layers, 1):
        if layer.name in imported.stored and not isinstance(layer, Input):
            verdicts.append(_judge_layer(parts, imported, layer, values))
        if progress:
            progress(done)
    return tuple(verdicts)


def answer(model, output, feeds):
    """What ONNX Runtime makes of a model.

    Raises
    ------
    InputError
        If it cannot run it.
    """
    try:
        return session(model).run([output], feeds)[0]
    except Exception as error:      # its own classes, all of them directly below this one
        raise InputError(f"ONNX Runtime does not run the file ({told(error)}); change that, or "
                         f"leave its opinion out with REFEREE=0 ({COMMAND} check-model)") from None


def worst(verdicts):
    """The layer in which most differs, and a line about it."""
    layer = max(verdicts, key=lambda layer: (layer.steps, layer.different))
    where = (f", most in {layer.name!r} ({layer.kind}): {layer.different:,} of {layer.elements:,} "
             "elements") if layer.steps else ""
    return layer, ("ONNX Runtime, layer by layer on the same inputs: "
                   f"{steps(layer.steps)} apart at most{where} (bar {STEP_BAR})")


def _judge_layer(parts, imported, layer, values):
    graph, stored = imported.graph, imported.stored
    feeds, open_  = {}, list(layer.inputs)
    while open_:
        name = open_.pop()
        if name == graph.input:
            feeds.update(imported.given(values[name]))
        elif name in stored:
            feeds.update((tensor, _as_stored(values[name], offset))
                         for tensor, offset in stored[name])
        elif isinstance(graph.layer(name), Add) and name in parts.floats:
            real = values[name].to(torch.float64) * graph.tensors[name].scale
            feeds[name] = real[None].numpy().astype(parts.floats[name])
        else:
            open_ += graph.layer(name).inputs
    output, offset = stored[layer.name][0]
    part = parts.between(feeds, output)
    seen = torch.from_numpy(answer(part, output, feeds)[0]).to(torch.int32) + offset
    apart = (seen - values[layer.name].to(torch.int32)).abs()
    return LayerVerdict(layer.name, type(layer).__name__, apart.numel(), int((apart > 0).sum()),
                        int(apart.max()))


class _Parts:
    """Cuts models out of one: ``floats`` maps the tensors of floats in it to their types."""

    def __init__(self, model):
        self.model  = model
        self.makes  = {name: node for node in model.graph.node for name in node.output if name}
        self.order  = {name: index for index, node in enumerate(model.graph.node)
                       for name in node.output if name}
        self.stored = {x.name: x for x in model.graph.initializer}
        kinds = {info.name: info.type.tensor_type.elem_type for info in model.graph.value_info}
        self.floats = {name: helper.tensor_dtype_to_np_dtype(kind) for name, kind in kinds.items()
                       if kind in (TensorProto.FLOAT, TensorProto.FLOAT16)}

    def between(self, feeds, output):
        """The model that makes ``output`` of tensors with values like those of ``feeds``."""
        nodes, stored, open_ = {}, {}, [output]
        while open_:
            name = open_.pop()
            if not name or name in feeds or name in stored:
                continue
            if name in self.stored:
                stored[name] = self.stored[name]
            elif self.order[name] not in nodes:
                node = nodes[self.order[name]] = self.makes[name]
                open_ += node.input
        inputs = [helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in feeds.items()]
        graph = helper.make_graph([nodes[index] for index in sorted(nodes)], "part", inputs,
                                  [onnx.ValueInfoProto(name=output)], list(stored.values()))
        return helper.make_model(graph, ir_version=self.model.ir_version,
                                 opset_imports=self.model.opset_import)


def _as_stored(value_CHW, offset):
    value = value_CHW.to(torch.int16) - offset
    return value.to(torch.int8 if offset else torch.uint8)[None].numpy()
