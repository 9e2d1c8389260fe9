"""What moves values, and makes no new ones."""

import math
from dataclasses import replace

import numpy as np

from golden.integer import INTERPOLATED
from hw.compiler.importer.constants import numbers
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.names import by, clean
from hw.compiler.importer.read_means import spread
from hw.compiler.importer.values import Constant, Result

EXPORTED = "export with fixed rows and columns"
HALF_PIXEL = INTERPOLATED[0]


def _concat(reader, node, facts, *values):
    if facts.get("axis") not in (1, -3):
        raise Refusal(f"axis {facts.get('axis')}", "concatenate channels, axis 1")
    values = tuple(reader.float_(value, node) for value in values)
    return [Result("concat", clean(node.output[0]), node, values)]


def _resize(reader, node, facts, value, roi=None, scales=None, sizes=None):
    if not all(x is None or isinstance(x, Constant) for x in (scales, sizes)):
        raise Refusal("its size depends on the frame", "use constant scales")
    shapes = [reader.dims(value, node.input[0]), reader.file.shape(node.output[0])]
    if shapes[1] is None and scales is not None and len(scales.real) == 4 and shapes[0]:
        shapes[1] = tuple(math.floor(side * factor) for side, factor
                          in zip(shapes[0], numbers(scales.real), strict=True))
    rewrite = "use x2 nearest (asymmetric, floor) or linear of any size"
    if None in shapes:
        raise Refusal("a size that does not follow from the file", "use constant scales")
    mode  = facts.get("mode", "nearest")
    place = facts.get("coordinate_transformation_mode", "half_pixel")
    pixel = tuple(shapes[0][2:]) == (1, 1) and mode != "cubic" and place != "tf_crop_and_resize"
    sides = [shape[2:] for shape in shapes]
    twice = [2 * side for side in sides[0]] == list(sides[1])
    exact = (facts.get("keep_aspect_ratio_policy", "stretch") == "stretch"
             if scales is None or not scales.real.size else
             np.allclose(scales.real[-2:] * sides[0], sides[1], rtol=1e-5))
    if mode == "nearest" and exact and twice and all(
            _nearest(side, place, facts.get("nearest_mode", "round_prefer_floor"))
            for side in sides[0]):
        return [Result("nearest", clean(node.output[0]), node, (reader.float_(value, node),))]
    place  = HALF_PIXEL if place == "half_pixel_symmetric" or (
        place == "pytorch_half_pixel" and min(sides[1]) > 1) else place
    linear = mode == "linear" and place in INTERPOLATED and not facts.get("antialias")
    if linear and exact and place == HALF_PIXEL and twice:
        return [Result("linear", clean(node.output[0]), node, (reader.real(value, node),))]
    if pixel:
        return [spread(reader, node, reader.real(value, node), sides[1])]
    if list(shapes[0][:2]) != list(shapes[1][:2]) or (mode == "nearest" and not twice):
        raise Refusal(f"it makes {by(shapes[1])} of {by(shapes[0])}", rewrite)
    if not linear:
        raise Refusal(f"mode {mode} with {facts.get('coordinate_transformation_mode', HALF_PIXEL)}"
                      + (f" and {facts.get('nearest_mode', 'round_prefer_floor')}"
                         if mode == "nearest" else ""), rewrite)
    if not exact and place != "align_corners":
        raise Refusal("its factors do not make whole rows and columns", "resize to sizes")
    return [Result("interpolated", clean(node.output[0]), node, (reader.real(value, node),),
                   {"shape": tuple(shapes[1][1:]), "place": place})]


def _pad(reader, node, facts, value, pads=None, constant=None, axes=None):
    if not all(x is None or isinstance(x, Constant) for x in (pads, constant, axes)):
        raise Refusal("what it pads depends on the frame", "use constant pads")
    given = [] if pads is None else [int(x) for x in pads.real.reshape(-1)]
    along = range(4) if axes is None else [int(x) % 4 for x in axes.real.reshape(-1)]
    if len(given) != 2 * len(along):
        raise Refusal(f"{len(given)} pads for {len(along)} axes", "give two for each axis")
    if not any(given):
        return [value]
    source = reader.real(value, node, pads=True)
    sides  = [0] * 8
    for index, axis in enumerate(along):
        sides[axis], sides[axis + 4] = given[index], given[index + len(along)]
    filled = 0 if constant is None or not constant.real.size else float(
        numbers(constant.real).reshape(-1)[0])
    rewrite = "pad rows and columns with zeros, before a Conv"
    if facts.get("mode", "constant") != "constant" or filled:
        raise Refusal(f"mode {facts.get('mode', 'constant')} with a value of {filled:g}",
                      rewrite)
    if any(x < 0 for x in sides) or any(sides[i] for i in (0, 1, 4, 5)):
        raise Refusal(f"pads of {by(sides)}", rewrite)
    more = (sides[2], sides[3], sides[6], sides[7])
    return [replace(source, pads=tuple(a + b for a, b in zip(source.pads, more, strict=True)))]


def _slice(reader, node, facts, value, starts=None, ends=None, axes=None, steps=None):
    """Rows and columns are cropped by a convolution that only moves; channels are picked by one."""
    parts = (starts, ends, axes, steps)
    if not all(isinstance(part, Constant | None) for part in parts):
        raise Refusal("what it takes depends on the frame", "use constant starts and ends")
    shape = reader.dims(value, node.input[0])
    if shape is None:
        raise Refusal("a size that does not follow from the file", EXPORTED)
    starts, ends, axes, steps = (None if part is None else [int(x) for x in part.real.reshape(-1)]
                                 for part in parts)
    axes  = range(len(starts)) if axes is None else axes
    taken = {axis % 4: slice(start, end, step) for axis, start, end, step in zip(
        axes, starts, ends, steps or [1] * len(starts), strict=True)}
    whole = [range(side)[taken.get(axis, slice(None))] for axis, side in enumerate(shape)]
    return [_part(reader, node, node.output[0], value, shape, whole)]


def _split(reader, node, facts, value, sizes=None):
    """Each part is picked by a convolution of its own."""
    shape = reader.dims(value, node.input[0])
    if shape is None or not isinstance(sizes, Constant | None):
        raise Refusal("a size that does not follow from the file", EXPORTED)
    axis, count = facts.get("axis", 0) % 4, len(node.output)
    each  = -(-shape[axis] // count)
    sizes = ([min(each, shape[axis] - each * index) for index in range(count)] if sizes is None
             else [int(x) for x in sizes.real.reshape(-1)])
    found, start = [], 0
    for name, size in zip(node.output, sizes, strict=True):
        whole = [range(side) for side in shape]
        whole[axis] = range(start, start + size)
        start += size
        found.append(_part(reader, node, name, value, shape, whole))
    return found


def _part(reader, node, name, value, shape, whole):
    """The part of a map in these ranges of frames, channels, rows and columns."""
    batch, channels, *sides = whole
    if min(map(len, whole)) < 1 or any(side.step < 1 for side in whole) or len(batch) != 1:
        turned = " backwards" if any(side.step < 1 for side in whole) else ""
        raise Refusal(f"it takes {by(map(len, whole))} of {by(shape)}{turned}",
                      "take some channels, rows and columns, in order")
    steps = [side.step for side in sides]
    if steps[0] != steps[1] or steps[0] > 2:
        raise Refusal(f"steps of {by(steps)}", "take every row and column, or every second of both")
    value = reader.float_(value, node)
    picks, crops = len(channels) < shape[1], [len(side) for side in sides] != list(shape[2:])
    if picks:
        value = Result("pick", f"{clean(name)}_picked" if crops else clean(name), node, (value,), {
            "channels": list(channels), "shape": (len(channels), *shape[2:])})
    if crops or not picks:
        value = Result("crop", clean(name), node, (value,), {
            "first": [side.start for side in sides], "stride": steps[0],
            "shape": (len(channels), *map(len, sides))})
    return value


def _identity(reader, node, facts, value):
    return [value]


def _dropout(reader, node, facts, value, ratio=None, training=None):
    if training is not None and not (isinstance(training, Constant)
                                     and not np.any(training.real)):
        raise Refusal("it is in training mode", "export in evaluation mode")
    return [value]


def _nearest(side, place, rounding):
    """Whether this way to double a side copies every value twice."""
    x = np.arange(2 * side, dtype=np.float64)
    match place:
        case "half_pixel" | "pytorch_half_pixel" | "half_pixel_symmetric":
            x = (x + 0.5) / 2 - 0.5
        case "asymmetric":
            x = x / 2
        case "tf_half_pixel_for_nn":
            x = (x + 0.5) / 2
        case "align_corners":
            x = x * (side - 1) / max(1, 2 * side - 1)
        case _:
            return False
    match rounding:
        case "floor":
            x = np.floor(x)
        case "ceil":
            x = np.ceil(x)
        case "round_prefer_floor":
            x = np.ceil(x - 0.5)
        case "round_prefer_ceil":
            x = np.floor(x + 0.5)
    return np.array_equal(x.clip(0, side - 1), np.arange(2 * side) // 2)


OPERATORS = {
    "Concat":   _concat,
    "Resize":   _resize,
    "Pad":      _pad,
    "Slice":    _slice,
    "Split":    _split,
    "Identity": _identity,
    "Dropout":  _dropout,
}
