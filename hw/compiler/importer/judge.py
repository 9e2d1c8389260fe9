"""ONNX Runtime as referee of an imported network: every layer, on identical inputs."""

import onnx
import torch
from onnx.utils import Extractor

from golden.integer import Add, Input, run
from golden.referee import STEP_BAR, LayerVerdict, session, steps


def judge(imported, frame_CHW, *, progress=None):
    """Compare every tensor that file and graph share, made by the file from the tensors above it.

    ``frame_CHW`` is in bytes of the input's grid. Layers that the importer put in belong to the
    next one that the file has. ``progress``, if given, is called with the number of layers done.
    """
    graph  = imported.graph
    values = run(graph, frame_CHW)
    model  = onnx.shape_inference.infer_shapes(imported.model)
    extractor = Extractor(model)
    floats    = {info.name for info in model.graph.value_info}
    verdicts  = []
    for done, layer in enumerate(graph.layers, 1):
        if layer.name in imported.stored and not isinstance(layer, Input):
            verdicts.append(_judge_layer(extractor, floats, imported, layer, values))
        if progress:
            progress(done)
    return tuple(verdicts)


def worst(verdicts):
    """The layer in which most differs, and a line about it."""
    layer = max(verdicts, key=lambda layer: (layer.steps, layer.different))
    where = (f", most in {layer.name!r} ({layer.kind}): {layer.different:,} of {layer.elements:,} "
             "elements") if layer.steps else ""
    return layer, ("ONNX Runtime, layer by layer on the same inputs: "
                   f"{steps(layer.steps)} apart at most{where} (bar {STEP_BAR})")


def _judge_layer(extractor, floats, imported, layer, values):
    graph, stored = imported.graph, imported.stored
    feeds, open_  = {}, list(layer.inputs)
    while open_:
        name = open_.pop()
        if name == graph.input:
            feeds.update(imported.given(values[name]))
        elif name in stored:
            feeds.update((tensor, _as_stored(values[name], offset))
                         for tensor, offset in stored[name])
        elif isinstance(graph.layer(name), Add) and name in floats:
            real = values[name].to(torch.float64) * graph.tensors[name].scale
            feeds[name] = real[None].to(torch.float32).numpy()
        else:
            open_ += graph.layer(name).inputs
    output, offset = stored[layer.name][0]
    part = extractor.extract_model(list(feeds), [output])
    seen = torch.from_numpy(session(part).run([output], feeds)[0][0]).to(torch.int32) + offset
    apart = (seen - values[layer.name].to(torch.int32)).abs()
    return LayerVerdict(layer.name, type(layer).__name__, apart.numel(), int((apart > 0).sum()),
                        int(apart.max()))


def _as_stored(value_CHW, offset):
    value = value_CHW.to(torch.int16) - offset
    return value.to(torch.int8 if offset else torch.uint8)[None].numpy()
