"""Convolutions, dense, grouped, dilated and transposed, as results that wait for their grid."""

from dataclasses import replace

import numpy as np

from golden.integer import TRANSPOSED_KERNELS
from hw.compiler.importer.check import name_of, printable, spoken
from hw.compiler.importer.constants import demand_finite, numbers, weights_of
from hw.compiler.importer.dilation import met, moved_apart, with_zeros
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.layers import LARGEST_KERNEL, UNIT_WEIGHT
from hw.compiler.importer.names import by, clean
from hw.compiler.importer.values import Constant, Result

AUTO_PADS  = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
SAME_SCALE = 1e-6       # relative: a bias in steps of its convolution's accumulator


def _conv(reader, node, facts, value, weight, bias=None):
    groups = facts.get("group", 1)
    whole, scale = weights_of(weight, axis=0)
    if isinstance(value, Result) and groups == 1 and 2 * whole.shape[2] <= LARGEST_KERNEL:
        value = reader.builder.exact_sum(value) or value    # its rows, for each operand
    source = reader.real(value, node, pads=True)
    channels = reader.channels(source)
    outputs, inputs, *kernel = whole.shape
    if groups < 1 or groups * inputs != channels or outputs % groups:
        raise Refusal(f"{groups} groups of {inputs} channels for {outputs} outputs of "
                      f"{channels} channels", "export with the shape that ONNX infers")
    if groups > 1 and (inputs > 1 or outputs != channels):
        whole, groups = _ungrouped(whole, groups), 1
        reader.notes.append(f"{spoken(name_of(node))!r} has {facts['group']} groups: it runs as "
                            "a dense convolution with zeros, and counts as one")
    strides = facts.get("strides", [1] * len(kernel))
    if len(kernel) != 2 or strides[0] != strides[-1] or strides[0] not in (1, 2):
        raise Refusal(f"a kernel of {by(kernel)} with strides of {by(strides)}",
                      "use two dimensions and a stride of 1 or 2 in both")
    dilations = facts.get("dilations", [1] * len(kernel))
    reached = [(k - 1) * x + 1 for k, x in zip(kernel, dilations, strict=True)]
    own  = pads_of(reader, facts, source, reached, strides[0])
    pads = tuple(int(a + b) for a, b in zip(own, source.pads, strict=True))
    if any(x != 1 for x in dilations):
        if min(dilations) < 1:
            raise Refusal(f"a dilation of {by(dilations)}", "use at least 1")
        source, whole, pads = _dilated(reader, node, source, whole, dilations, strides[0], pads,
                                       groups)
        groups = groups if whole.shape[1] == 1 else 1
        kernel = whole.shape[2:]
    if max(kernel) > LARGEST_KERNEL:
        raise Refusal(f"a kernel of {by(kernel)}", "use several of up to 7x7")
    if any(side >= k for side, k in zip(pads, 2 * tuple(kernel), strict=True)):
        raise Refusal(f"padding of {by(pads)} (top, left, bottom, right) is not less than "
                      f"the {by(kernel)} kernel", "pad less, or use a larger kernel")
    return _convolved(reader, "conv", node, source, whole, scale, bias, {
        "stride": strides[0], "padding": pads, "groups": groups if channels > 1 else 1})


def _dilated(reader, node, source, whole, dilations, stride, pads, groups):
    """What a convolution with pixels between its weights reads, its weights and its pads."""
    shape  = reader.shape(source)
    kernel = whole.shape[2:]
    if stride == 1:
        rows, columns = (met(side, k, x, pads[more], pads[more + 2]) for more, (side, k, x)
                         in enumerate(zip(shape[1:], kernel, dilations, strict=True)))
        whole = whole[:, :, rows[0].start:rows[0].stop, columns[0].start:columns[0].stop]
        pads  = rows[1][0], columns[1][0], rows[1][1], columns[1][1]
    reached = [(k - 1) * x + 1 for k, x in zip(whole.shape[2:], dilations, strict=True)]
    named   = f"{spoken(name_of(node))!r} has a dilation of {by(dilations)}: it"
    if max(reached) <= LARGEST_KERNEL:
        reader.notes.append(f"{named} runs, and counts, as a kernel of {by(reached)} with zeros")
        return source, with_zeros(whole, dilations), pads
    stays = all(before + after == reach - 1 for before, after, reach in zip(
        pads[:2], pads[2:], reached, strict=True))
    if stride > 1 or not stays:
        raise Refusal(f"a kernel of {by(kernel)} with a dilation of {by(dilations)}",
                      "reach over up to 7x7 pixels, or pad so that the map keeps its size")
    if groups > 1:
        whole = _ungrouped(whole, groups)
    name, whole, pads = moved_apart(reader.builder, source.name, whole, dilations, pads)
    reader.notes.append(f"{named} reads {reader.builder.tensors[name].channels} channels of moved "
                        "maps")
    return replace(source, name=name, pads=(0,) * 4), whole, pads


def _transposed(reader, node, facts, value, weight, bias=None):
    source = reader.real(value, node)
    whole, scale = weights_of(weight, axis=1)
    kernel = whole.shape[2:]
    rewrite = "use 2x2 to 4x4 with stride 2, or Resize and a Conv"
    if facts.get("group", 1) != 1:
        raise Refusal(f"{facts['group']} groups", "use one group")
    if (len(kernel) != 2 or any(k not in TRANSPOSED_KERNELS for k in kernel)
            or list(facts.get("strides", [])) != [2, 2]
            or any(x != 1 for x in facts.get("dilations", (1, 1)))):
        raise Refusal(f"a kernel of {by(kernel)} with strides of "
                      f"{by(facts.get('strides', [1, 1]))}", rewrite)
    shape = reader.file.shape(node.output[0])
    if facts.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in facts:
        if shape is None:
            raise Refusal("a shape that does not follow from the file", "give pads instead")
        tensor = reader.builder.tensors[source.name]
        total  = [2 * (side - 1) + k - out for side, k, out in zip(
            (tensor.height, tensor.width), kernel, shape[2:], strict=True)]
        upper  = facts.get("auto_pad") == "SAME_UPPER"
        first  = [x // 2 if upper else x - x // 2 for x in total]
        pads   = [*first, *(x - y for x, y in zip(total, first, strict=True))]
    else:
        pads  = facts.get("pads", [0] * 4)
        extra = facts.get("output_padding", [0, 0])
        pads  = [*pads[:2], *(x - y for x, y in zip(pads[2:], extra, strict=True))]
    if any(not 0 <= side < k for side, k in zip(pads, 2 * kernel, strict=True)):
        raise Refusal(f"{by(pads)} (top, left, bottom, right) to be cropped", rewrite)
    return _convolved(reader, "transposed", node, source, whole, scale, bias,
                      {"padding": tuple(pads)}, outputs=whole.shape[1])


def _depth_to_space(reader, node, facts, value):
    """Pixels out of channels: a transposed convolution that only moves."""
    source, block = reader.real(value, node), facts["blocksize"]
    channels = reader.channels(source)
    if block != 2 or channels % 4:
        raise Refusal(f"blocks of {block}x{block} out of {channels} channels",
                      "use 2x2 out of four times the channels")
    made  = channels // 4
    place = np.arange(channels)             # of output, row and column
    if facts.get("mode", "DCR") == "DCR":
        place = place.reshape(2, 2, made).transpose(2, 0, 1)
    whole = np.zeros((channels, made, 2, 2), np.int64)
    whole[place.reshape(made, 2, 2), *np.indices((made, 2, 2))] = UNIT_WEIGHT
    return [Result("transposed", clean(node.output[0]), node, (source,), {
        "weight": whole, "scale": np.full(made, 1 / UNIT_WEIGHT), "padding": (0,) * 4})]


def _convolved(reader, kind, node, source, whole, scale, bias, facts, outputs=None):
    outputs = outputs or len(whole)
    scale_O = np.broadcast_to(scale, outputs)
    integers, offset = None, 0.0
    if bias is not None:
        if not isinstance(bias, Constant):
            raise Refusal("its bias depends on the frame", "use a constant bias")
        if bias.real.size != outputs:
            raise Refusal(f"{bias.real.size} biases for {outputs} channels",
                          "give one for each channel")
        unit_O = np.float64(source.scale) * scale_O.astype(np.float64)
        steps  = None if bias.whole is None else np.broadcast_to(bias.scale, outputs)
        if steps is not None and np.allclose(steps, unit_O, rtol=SAME_SCALE, atol=0):
            integers = bias.whole.reshape(-1)
        else:
            offset = numbers(bias.real).reshape(-1)
            demand_finite(offset)
    return [Result(kind, clean(node.output[0]), node, (source,),
                   {"weight": whole, "scale": scale_O, **facts}, integers, offset=offset)]


def pads_of(reader, facts, source, kernel, stride):
    """(top, left, bottom, right) of a convolution."""
    mode = facts.get("auto_pad", "NOTSET")
    if mode not in AUTO_PADS:
        raise Refusal(f"auto_pad {printable(mode)!r}", f"use one of {', '.join(AUTO_PADS)}")
    if mode in ("NOTSET", "VALID"):
        return facts.get("pads", [0] * 4) if mode == "NOTSET" else [0] * 4
    tensor = reader.builder.tensors[source.name]
    first, last = [], []
    for side, k, more in zip((tensor.height, tensor.width), kernel, range(2), strict=True):
        side += source.pads[more] + source.pads[more + 2]
        total = max(0, (-(-side // stride) - 1) * stride + k - side)
        first.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
        last.append(total - first[-1])
    return first + last


def _ungrouped(whole, groups):
    """Weights of a grouped convolution as a dense one has them, with zeros."""
    outputs, inputs, *kernel = whole.shape
    dense = np.zeros((groups, outputs // groups, groups, inputs, *kernel), whole.dtype)
    for group in range(groups):
        dense[group, :, group] = whole.reshape(groups, -1, inputs, *kernel)[group]
    return dense.reshape(outputs, groups * inputs, *kernel)


OPERATORS = {
    "Conv":          _conv,
    "ConvTranspose": _transposed,
    "DepthToSpace":  _depth_to_space,
}
