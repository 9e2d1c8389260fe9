"""Layer descriptors: what the rows of one convolution share, as the engine keeps it."""

from amaranth import *
from amaranth.lib import data

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


def impossible(layer, *, pixels, targets):
    """Whether no engine could run ``layer``: an empty kernel or map, a stride that the banks
    cannot follow, or a destination that the unit lacks. Only whole vectors that lie in on-chip,
    feedback or alpha memory can be packed, and alpha maps always are."""
    checks = [
        layer.vectors   == 0,
        layer.kernel_h  == 0,
        layer.kernel_w  == 0,
        layer.width_in  == 0,
        layer.width_out == 0,
        ~Cat(layer.target == target for target in targets).any(),
        layer.packed & (layer.target == Target.ROW),
        ~layer.packed & (layer.target == Target.ALPHA),
    ]
    if pixels > 1:
        checks.append(layer.stride2)
    return Cat(checks).any()
