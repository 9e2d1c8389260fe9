"""On which unit each layer runs, after figure 10 of ELEC4848."""

from dataclasses import replace

from golden.integer import Gate, Input, TransposedConv, Upsample

__all__ = ["placed"]


def placed(layers, outputs):
    """The layers with their units.

    Attention: products, and what is only there to make their first factor, the attention map.
    Decoder: what depends on an upsampled tensor or a product otherwise. Encoder: the rest, down to
    the bottleneck.
    """
    by_name = {layer.name: layer for layer in layers}
    cones   = _cones(layers, by_name, outputs)
    decoded, found = set(), []
    for layer in layers:
        if isinstance(layer, Input):
            found.append(layer)
            continue
        after = any(name in decoded for name in layer.inputs)
        grows = isinstance(layer, Upsample | TransposedConv)
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


def _cones(layers, by_name, outputs):
    """Tensors from which every way to an output leads through some product's attention map."""
    cones = set()
    for gate in (layer for layer in layers if isinstance(layer, Gate)):
        above  = _above([gate.alpha], by_name)
        others = _above([name for name in outputs if name != gate.alpha], by_name,
                        without=gate.alpha)
        cones |= above - others
    return {name for name in cones if not isinstance(by_name[name], Input)}


def _above(names, by_name, *, without=None):
    """These tensors and all that they depend on, ``without`` one and what only it needs."""
    seen, open_ = set(), [name for name in names if name != without]
    while open_:
        name = open_.pop()
        if name not in seen:
            seen.add(name)
            open_ += [source for source in by_name[name].inputs if source != without]
    return seen
