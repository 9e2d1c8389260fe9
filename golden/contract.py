"""Whether an integer graph keeps the contract: what the types of :mod:`golden.integer` alone do not
say, and a graph that comes from a file may break."""

import math

import torch

from golden.integer import (
    Conv,
    Gate,
    Input,
    Lookup,
    TransposedConv,
    output_shape,
)

__all__ = ["check_graph"]

DTYPES = {"weight": torch.int8, "bias": torch.int32, "multiplier": torch.int16,
          "shift": torch.uint8, "table": torch.uint8, "floor": torch.uint8,
          "ceiling": torch.uint8}
SHIFTS = range(1, 48)
LEAST_MULTIPLIER = 2**14


def check_graph(graph):
    """Raise ``ValueError``, which names the layer, where a graph breaks the contract: types, shapes
    and ranges of arrays and numbers, and shapes of tensors that do not follow from each other."""
    names = [layer.name for layer in graph.layers]
    _demand(len(set(names)) == len(names), "two layers have one name")
    inputs = [layer.name for layer in graph.layers if isinstance(layer, Input)]
    _demand(inputs == [graph.input], f"inputs are {inputs}, not {graph.input!r}")
    for name, t in graph.tensors.items():
        _demand(t.name == name, f"tensor {name!r} is called {t.name!r}")
        _demand(min(t.channels, t.height, t.width) >= 1, f"tensor {name!r} has no elements")
        _demand(math.isfinite(t.scale) and t.scale > 0 and 0 <= t.zero_point <= 255,
                f"tensor {name!r} has no usable scale or zero point")
    _demand(not graph.classes or (len(set(graph.classes)) == len(graph.classes) >= 2
                                  and graph.tensors[graph.output].channels == 1),
            f"its mask cannot tell {len(graph.classes)} classes apart")
    for layer in graph.layers:
        if not isinstance(layer, Input):
            _check_layer(graph, layer)
    for name, factors_C in graph.equalisation.items():
        _demand(name in graph.tensors and factors_C.shape == (graph.tensors[name].channels,)
                and bool((factors_C > 0).all()), f"equalisation of {name!r} does not fit it")


def _check_layer(graph, layer):
    where = f"layer {layer.name!r}"
    arrays = {part: getattr(layer, part) for part in DTYPES
              if getattr(layer, part, None) is not None}
    for part, array in arrays.items():
        _demand(array.dtype == DTYPES[part], f"{part} of {where} is {array.dtype}, not "
                                             f"{DTYPES[part]}")
    outputs = 1
    if isinstance(layer, (Conv, TransposedConv)):
        _demand(layer.weight.dim() == 4 and min(layer.weight.shape) >= 1,
                f"weights of {where} have shape {tuple(layer.weight.shape)}")
        outputs = layer.weight.shape[0 if isinstance(layer, Conv) else 1]
        _demand(int(layer.weight.min()) >= -127, f"weights of {where} go below -127")
    elif isinstance(layer, Gate):
        outputs = graph.tensors[layer.skip].channels
    elif isinstance(layer, Lookup):
        _demand(layer.table.shape == (256,), f"table of {where} has no 256 entries")
    for part in ("bias", "multiplier", "shift", "floor", "ceiling"):
        if part in arrays:
            _demand(arrays[part].shape == (outputs,), f"{part} of {where} has shape "
                                                      f"{tuple(arrays[part].shape)}")
    if "multiplier" in arrays:
        m_C, s_C = arrays["multiplier"].to(torch.int32), arrays["shift"].to(torch.int32)
        size_C = m_C.abs() if isinstance(layer, Gate) else m_C
        _demand(bool(((size_C >= LEAST_MULTIPLIER) | (m_C == 0)).all()),
                f"a multiplier of {where} is not normalised")
        _demand(bool(((s_C >= SHIFTS[0]) & (s_C <= SHIFTS[-1])).all()),
                f"a shift of {where} is not within {SHIFTS[0]}..{SHIFTS[-1]}")
        _demand(0 <= layer.low <= layer.high <= 255, f"bounds of {where} are {layer.low} and "
                                                     f"{layer.high}")
    if isinstance(layer, Gate):
        _demand(layer.zero_point == graph.tensors[layer.name].zero_point,
                f"zero points of {where} differ")
    shapes = [(graph.tensors[name].channels, graph.tensors[name].height, graph.tensors[name].width)
              for name in layer.inputs]
    made, t = output_shape(layer, *shapes), graph.tensors[layer.name]
    _demand(tuple(made) == (t.channels, t.height, t.width),
            f"tensor {layer.name!r} has shape {t.channels}x{t.height}x{t.width}, and its layer "
            f"makes {'x'.join(map(str, made))}")


def _demand(fulfilled, rule):
    if not fulfilled:
        raise ValueError(rule)
