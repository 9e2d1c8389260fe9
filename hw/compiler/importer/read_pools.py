"""Windows: the largest of 2x2 and 3x3, and averages."""


from hw.compiler.importer.build_moves import shift
from hw.compiler.importer.errors import Refusal
from hw.compiler.importer.layers import LARGEST_KERNEL
from hw.compiler.importer.names import by, clean
from hw.compiler.importer.read_convolutions import pads_of
from hw.compiler.importer.values import Result


def _max_pool(reader, node, facts, value):
    if (list(facts["kernel_shape"]), list(facts.get("strides", []))) == ([3, 3], [2, 2]):
        return [_window(reader, node, facts, reader.real(value, node))]
    _check_pool(reader, node, facts, value)
    return [Result("pool", clean(node.output[0]), node, (reader.float_(value, node),))]


def _average_pool(reader, node, facts, value):
    source  = reader.real(value, node)
    kernel  = list(facts["kernel_shape"])
    strides = list(facts.get("strides", [1] * len(kernel)))
    if (len(kernel) != 2 or max(kernel) > LARGEST_KERNEL or strides[0] != strides[-1]
            or strides[0] not in (1, 2) or any(x != 1 for x in facts.get("dilations", ()))):
        raise Refusal(f"a window of {by(kernel)} with strides of {by(strides)}",
                      "use up to 7x7 with a stride of 1 or 2 in both")
    pads = tuple(int(x) for x in pads_of(reader, facts, source, kernel, strides[0]))
    if any(side >= k for side, k in zip(pads, 2 * kernel, strict=True)):
        raise Refusal(f"pads of {by(pads)}", "pad less than the window")
    if any(pads) and not facts.get("count_include_pad"):
        raise Refusal("at the border it averages fewer pixels",
                      "use count_include_pad=1, or no pads")
    t = reader.builder.tensors[source.name]
    rest = [(side + pads[more] + pads[more + 2] - k) % strides[0] for more, (side, k) in
            enumerate(zip((t.height, t.width), kernel, strict=True))]
    if facts.get("ceil_mode") and any(rest):
        raise Refusal("a last window that is cut", "use ceil_mode=0")
    return [Result("average", clean(node.output[0]), node, (source,), {
        "kernel": tuple(kernel), "stride": strides[0], "padding": pads})]


def _window(reader, node, facts, source):
    """Windows of 3x3, of which the four of 2x2 begin at shifts of rows and columns."""
    t    = reader.builder.tensors[source.name]
    pads = tuple(int(x) for x in pads_of(reader, facts, source, [3, 3], 2))
    if max(pads) > 1 or any(x != 1 for x in facts.get("dilations", ())):
        raise Refusal(f"a window of 3x3 with pads of {by(pads)} and dilations of "
                      f"{by(facts.get('dilations', (1, 1)))}",
                      "pad at most one row and column")
    sides  = [_windows(side, pads[more], pads[more + 2], facts.get("ceil_mode", 0))
              for more, side in enumerate((t.height, t.width))]
    if min(sides) < 1:
        raise Refusal(f"a window of 3x3 on a map of {t.height}x{t.width}", "use a larger frame")
    shifts = [[shift(side, offset - pads[more], 2 * made) for offset in range(2)]
              for more, (side, made) in enumerate(zip((t.height, t.width), sides, strict=True))]
    return Result("window", clean(node.output[0]), node, (source,), {
        "shifts": shifts, "pads": pads, "shape": (t.channels, *sides)})


def _check_pool(reader, node, facts, value):
    kernel, strides = facts["kernel_shape"], facts.get("strides", [1, 1])
    pads = facts.get("pads", [0] * 4)
    if (list(kernel), list(strides)) != ([2, 2], [2, 2]) or any(pads) or any(
            x != 1 for x in facts.get("dilations", (1,))):
        raise Refusal(f"a window of {by(kernel)} with strides of {by(strides)} and pads of "
                      f"{by(pads)}", "use 2x2 with stride 2 and no pads, or a Conv with "
                                     "stride 2")
    shape = reader.dims(value, node.input[0])
    odd = shape is not None and any(side % 2 for side in shape[2:])
    if odd and (facts.get("ceil_mode") or facts.get("auto_pad", "NOTSET") not in (
            "NOTSET", "VALID")):
        raise Refusal(f"a last window that is cut, on a map of {by(shape[2:])}",
                      "use ceil_mode=0, or a frame whose sides are even at every level")


def _windows(side, before, after, rounded_up):
    """How many windows of 3, two apart, begin in a padded side."""
    space = side + before + after - 3
    count = (-(-space // 2) if rounded_up else space // 2) + 1
    return count - (rounded_up and 2 * (count - 1) >= side + before)


OPERATORS = {
    "MaxPool":     _max_pool,
    "AveragePool": _average_pool,
}
