"""Files of integer graphs: arrays as safetensors, everything else as JSON in their metadata."""

import json
from dataclasses import MISSING, fields
from typing import get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from golden.contract import check_graph
from golden.errors import InputError
from golden.integer import LAYERS, IntegerGraph, Tensor
from golden.places import COMMAND

__all__ = ["load", "save"]

EQUALISATION = ".equalisation"


def save(graph, path, *, extra=None):
    """Write one safetensors file: arrays as ``layer.field``, everything else as JSON metadata.

    ``extra`` maps further names to arrays that travel along.
    """
    arrays, records = dict(extra or {}), []
    for layer in graph.layers:
        record = {"kind": type(layer).__name__}
        for part in fields(layer):
            value = getattr(layer, part.name)
            if isinstance(value, torch.Tensor):
                arrays[f"{layer.name}.{part.name}"] = value.contiguous()
            else:
                record[part.name] = value
        records.append(record)
    for name, factors_C in graph.equalisation.items():
        arrays[f"{name}{EQUALISATION}"] = factors_C
    header = {"network": graph.network, "input": graph.input, "output": graph.output,
              "outputs": graph.outputs, "classes": graph.classes, "layers": records,
              "tensors": [vars(t) for t in graph.tensors.values()]}
    save_file(arrays, str(path), {"attune": json.dumps(header)})


def load(path):
    """Read what :func:`save` wrote: the graph, and the extra arrays.

    Files written before a layer had some field get that field's default. A file that is none, or
    whose graph cannot be, is an :class:`InputError`.
    """
    try:
        with safe_open(str(path), "pt") as file:
            header = json.loads((file.metadata() or {}).get("attune", "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        return _graph(header, arrays), arrays
    except FileNotFoundError:
        raise InputError(f"No weights at {str(path)!r}; `{COMMAND} export` writes some") from None
    except (SafetensorError, RecursionError, OSError, ValueError) as error:
        raise InputError(f"Weights {str(path)!r} cannot be used ({' '.join(str(error).split())}); "
                         "take the file from the repository again, or export it anew") from None


def _graph(header, arrays):
    """The graph that a file describes; takes its arrays out of ``arrays``."""
    top = _record(header, {"network": str, "input": str, "output": str, "layers": list,
                           "tensors": list, "outputs": list, "classes": list},
                  {"outputs": [], "classes": []})
    layers = []
    for record in top["layers"]:
        kind = LAYERS.get(_record(record, {"kind": str, "name": str})["kind"])
        if kind is None:
            raise ValueError(f"there are no layers of kind {record['kind'][:40]!r}")
        parts  = {part.name: part.type for part in fields(kind)}
        values = {}
        for part in fields(kind):
            key = f"{record['name']}.{part.name}"
            if part.type in (torch.Tensor, torch.Tensor | None):
                if key not in arrays and part.default is MISSING:
                    raise ValueError(f"it lacks {key!r}")
                values[part.name] = arrays.pop(key, None)
        defaults = {part.name: part.default for part in fields(kind) if part.default is not MISSING}
        layers.append(kind(**_record(record, {name: type_ for name, type_ in parts.items()
                                              if name not in values}, defaults), **values))
    equalisation = {name.removesuffix(EQUALISATION): arrays.pop(name)
                    for name in list(arrays) if name.endswith(EQUALISATION)}
    tensors = [Tensor(**_record(record, {part.name: part.type for part in fields(Tensor)}))
               for record in top["tensors"]]
    outputs, classes = (tuple(_typed(name, str, what) for name in top[what])
                        for what in ("outputs", "classes"))
    graph = IntegerGraph(top["network"], {t.name: t for t in tensors}, tuple(layers), top["input"],
                         top["output"], equalisation, outputs, classes)
    check_graph(graph)
    return graph


def _record(value, kinds, defaults=None):
    """Of a JSON object the values of ``kinds``, name -> type, which must be of these types."""
    if not isinstance(value, dict):
        raise ValueError(f"it has {str(value)[:40]!r} where a description belongs")
    defaults = defaults or {}
    if missing := [name for name in kinds if name not in value and name not in defaults]:
        raise ValueError(f"a description lacks {missing[0]!r}")
    return {name: _typed(value.get(name, defaults.get(name)), kind, name)
            for name, kind in kinds.items()}


def _typed(value, kind, name):
    inner = get_args(kind)
    if inner:                   # of a tuple, which JSON has as a list
        inner = inner[:1] * len(value) if inner[-1] is ... and isinstance(value, list) else inner
        if isinstance(value, (list, tuple)) and len(value) == len(inner):
            return tuple(_typed(one, type_, name) for one, type_ in zip(value, inner, strict=True))
    elif isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool):
        return value
    raise ValueError(f"{name!r} is {str(value)[:40]!r}")
