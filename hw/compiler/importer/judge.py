"""ONNX Runtime as referee of an imported network: every layer, on identical inputs."""

import onnx
import torch
from onnx.utils import Extractor

from golden.integer import Add, Input, run
from golden.referee import LayerVerdict, session


def judge(imported, frame_CHW, *, progress=None):
    """Compare every tensor that file and graph share, made by the file from the tensors above it.

    ``frame_CHW`` is in bytes of the input's grid. Layers that the importer put in belong to the
    next one that the file has. ``progress``, if given, is called with the number of layers done.
    """
    graph  = imported.graph
    values = run(graph, frame_CHW)
    model  = onnx.shape_inference.infer_shapes(imported.model)
    extractor = Extractor(model)
    verdicts  = []
    for layer in graph.layers:
        if layer.name in imported.stored and not isinstance(layer, Input):
            verdicts.append(_judge_layer(extractor, imported, layer, values))
        if progress:
            progress(len(verdicts))
    return tuple(verdicts)


def _judge_layer(extractor, imported, layer, values):
    graph, stored = imported.graph, imported.stored
    feeds, open_  = {}, list(layer.inputs)
    while open_:
        name = open_.pop()
        if name == graph.input:
            feeds.update(imported.given(values[name]))
        elif name in stored:
            feeds.update((tensor, _as_stored(values[name], offset))
                         for tensor, offset in stored[name])
        elif isinstance(graph.layer(name), Add) and name in extractor.vimap:
            real = values[name].to(torch.float64) * graph.tensors[name].scale
            feeds[name] = real[None].to(torch.float32).numpy()
        else:
            open_ += graph.layer(name).inputs
    output, offset = stored[layer.name][0]
    part = extractor.extract_model(list(feeds), [output])
    seen = torch.from_numpy(session(part).run([output], feeds)[0][0]).to(torch.int32) + offset
    steps = (seen - values[layer.name].to(torch.int32)).abs()
    return LayerVerdict(layer.name, type(layer).__name__, steps.numel(), int((steps > 0).sum()),
                        int(steps.max()))


def _as_stored(value_CHW, offset):
    value = value_CHW.to(torch.int16) - offset
    return value.to(torch.int8 if offset else torch.uint8)[None].numpy()
