"""Layer descriptors: what the rows of one convolution share, as the engine keeps it."""

from amaranth import *
from amaranth.lib import data

from hw.compute.transform import COLUMNS
from hw.isa import FORMS, Opcode, Target

_OWN = set(FORMS[Opcode.LAYER].members) - set(FORMS[Opcode.SYNC].members) - {"slot"}

LAYER = data.StructLayout({name: shape for name, shape in FORMS[Opcode.LAYER].members.items()
                           if name in _OWN})
"""The fields of a LAYER instruction without its header and slot."""

TARGETS = {
    "encoder":   (Target.ROW, Target.ONCHIP),
    "attention": (Target.ROW, Target.ONCHIP, Target.ALPHA),
    "decoder":   (Target.ROW, Target.ONCHIP, Target.FEEDBACK),
}
"""Where the convolutions of each unit can write."""


def descriptor(instruction):
    """The fields of :data:`LAYER`, taken from a LAYER ``instruction``, as one value."""
    return Cat(Value.cast(instruction[name]) for name in LAYER.members)


def impossible(layer, *, banks, targets, transform):
    """Whether no engine could run ``layer``: an empty kernel or map, a destination or ``transform``
    that the unit lacks, or modes that exclude each other.

    Only whole vectors that lie in on-chip, feedback or alpha memory can be packed, and alpha maps
    always are. A packed layer has one channel, so it is neither depthwise nor spread. The table
    serves ``outputs`` channels, so no depthwise layer has one. Clamped padding reaches at most
    ``banks - 1`` pixels to the left. Transformed layers have three kernel columns, a stride of 1,
    and are neither depthwise nor spread nor clamped.
    """
    checks = [
        layer.vectors   == 0,
        layer.kernel_h  == 0,
        layer.kernel_w  == 0,
        layer.width_in  == 0,
        layer.width_out == 0,
        ~Cat(layer.target == target for target in targets).any(),
        layer.packed & (layer.target == Target.ROW),
        ~layer.packed & (layer.target == Target.ALPHA),
        layer.packed & (layer.depthwise | layer.spread),
        layer.depthwise & layer.table,
        layer.clamp & (layer.pad_left >= banks),
        layer.transformed & ((layer.kernel_w != len(COLUMNS)) | layer.stride2 | layer.depthwise
                             | layer.spread | layer.clamp | (not transform)),
    ]
    return Cat(checks).any()
