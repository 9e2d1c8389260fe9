"""On which unit each layer runs, after figure 10 of ELEC4848."""

import functools
from dataclasses import replace

from golden.integer import Gate, Input, Interpolate, TransposedConv, Upsample

__all__ = ["placed"]


def placed(layers, outputs):
    """The layers with their units.

    Attention: products, and what is only there to make their first factor, the attention map.
    Decoder: what depends on an upsampled tensor or a product otherwise. Encoder: the rest, down to
    the bottleneck.
    """
    cones = _cones(layers, outputs)
    decoded, found = set(), []
    for layer in layers:
        if isinstance(layer, Input):
            found.append(layer)
            continue
        after = any(name in decoded for name in layer.inputs)
        grows = isinstance(layer, Upsample | TransposedConv | Interpolate)
        if isinstance(layer, Gate):
            unit = "attention"
            decoded.add(layer.name)
        elif layer.name in cones:
            unit = "attention"
            if after:
                decoded.add(layer.name)
        else:
            unit = "decoder" if grows or after else "encoder"
            if unit == "decoder":
                decoded.add(layer.name)
        found.append(replace(layer, unit=unit))
    return tuple(found)


def _cones(layers, outputs):
    """Tensors from which every way to an output leads through some product's attention map.

    Of every tensor the nearest one through which all its ways lead is known once its readers' are:
    it is the last that theirs have in common. So these make a tree, whose root is what comes after
    the outputs, and a tensor is in a cone if an attention map is on its way to the root.
    """
    alphas  = {layer.alpha for layer in layers if isinstance(layer, Gate)}
    readers = {}
    for layer in layers:
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer.name)
    tree, cones = _Tree(), set()
    for layer in reversed(layers):
        name  = layer.name
        ahead = None if name in outputs else functools.reduce(tree.common, readers[name])
        tree.add(name, ahead)
        if name in alphas or ahead in cones:
            cones.add(name)
    return cones


class _Tree:
    """A tree that grows from its root, None. Besides its parent every node knows one further up, so
    that ways up take a number of steps like the logarithm of their length."""

    def __init__(self):
        self._parent, self._far, self._depth = {None: None}, {None: None}, {None: 0}

    def add(self, name, parent):
        """A leaf."""
        far   = self._far[parent]
        equal = (self._depth[parent] - self._depth[far]
                 == self._depth[far] - self._depth[self._far[far]])
        self._parent[name] = parent
        self._far[name]    = self._far[far] if equal else parent
        self._depth[name]  = self._depth[parent] + 1

    def common(self, a, b):
        """The node furthest from the root that is above both, or one of them."""
        if self._depth[a] < self._depth[b]:
            a, b = b, a
        while self._depth[a] > self._depth[b]:
            near = self._depth[self._far[a]] < self._depth[b]
            a = (self._parent if near else self._far)[a]
        while a != b:
            same = self._far[a] == self._far[b]
            a, b = ((self._parent[a], self._parent[b]) if same else
                    (self._far[a], self._far[b]))
        return a
