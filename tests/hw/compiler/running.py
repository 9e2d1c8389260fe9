"""Small ONNX models on the machine as the interpreter has it, every tensor compared."""

import torch

from golden import integer
from hw.compiler import compile_network
from hw.compiler.importer import import_onnx, judge
from hw.config import TINY
from sim.campaigns.fuzz import interpreted
from sim.compare import compare_tensors


def picture(imported, seed=0):
    """A picture of noise for an imported network."""
    frame = imported.graph.tensors[imported.graph.input]
    return torch.randint(0, 256, (3, frame.height, frame.width), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(seed))


def runs(model, config=TINY):
    """Import a model and run it: ONNX Runtime agrees on every layer, the machine on every byte,
    and the masks of golden and ONNX Runtime are equal; returns what was imported."""
    imported = import_onnx("small.onnx", model=model)
    seen     = picture(imported)
    frame    = imported.frame(seen)
    for layer in judge(imported, frame):
        assert layer.steps <= 1, layer
    values   = {name: x.numpy() for name, x in integer.run(imported.graph, frame).items()}
    program  = compile_network(imported.graph, config)
    compared = compare_tensors([values], *(lambda outputs, recorded: ([outputs], recorded))(
        *interpreted(program, config, frame, 0)))
    assert compared["problems"] == []
    assert compared["mismatched"] == 0, compared["first_mismatch"]
    return imported
