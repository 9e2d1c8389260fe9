"""The chip in parts: each block of it alone, with the blocks inside it hollow."""

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable, Instance, Module, ResetInserter, Signal, Value
from amaranth.lib.wiring import Flow

from hw.memory.collisions import relax

__all__ = ["BLOCKS", "parts"]

UNIT = ("compute.conv.array", "compute.conv.drain", "compute.conv.weights", "compute.conv",
        "compute.rows", "compute.fill", "")
BLOCKS = (
    "controller",
    "load",
    "stores",
    "onchip",
    *(f"encoder.{part}".rstrip(".") for part in UNIT),
    "attention.gate",
    "attention.alpha",
    *(f"attention.{part}".rstrip(".") for part in UNIT),
    "decoder.memory",
    *(f"decoder.{part}".rstrip(".") for part in UNIT),
    "monitor",
)
"""Blocks of :class:`hw.top.Chip`, by their place in it."""

WAYS = {"i": "input", "o": "output"}


def parts(component, blocks=BLOCKS):
    """``{block: part}`` of ``component`` cut along ``blocks``, inner ones first, without those
    that it has not; ``""`` is the rest.
    """
    found = {}
    _cut(component, "", blocks, found, reset=False)
    return found


def _cut(component, path, blocks, found, *, reset):
    """Its body with hollow blocks, and these. With ``reset``, it can be reset from outside, as
    :class:`amaranth.hdl.ResetInserter` does on the chip."""
    component._MustUse__used = True         # else Amaranth warns of it
    m, inside = component.elaborate(None), []
    for name, (part, place) in getattr(m, "_named_submodules", {}).items():
        inner = f"{path}.{name}".lstrip(".")
        if not any(block == inner or block.startswith(f"{inner}.") for block in blocks):
            continue
        whole = getattr(part, "_elaboratable_", part)
        part._MustUse__used = True
        cut, deeper = _cut(whole, inner, blocks, found, reset=reset or part is not whole)
        if inner in blocks:
            cut = _Hollow(whole, inner)
            inside.append(cut)
        else:
            inside += deeper
        m._named_submodules[name] = (cut, place)
    if path == "" or path in blocks:
        found[path] = _Part(component, m, inside, reset)
    return m, inside


class _Part:
    """A block alone: its component, with a body in which the blocks ``inside`` are hollow."""

    def __init__(self, component, body, inside, reset):
        self._component, self._body, self._inside = component, body, inside
        self._reset = reset

    def text(self):
        """Its RTLIL, module ``top``, relaxed as :mod:`hw.memory.collisions` has it. Taps are left
        open, so that their logic goes away."""
        ports = {name: value for name, _, value in _ports(self._component)
                 if not name.startswith("tap")}
        body  = self._body
        if self._reset:
            ports["clear"] = clear = Signal()
            body = ResetInserter(clear)(body)
        return relax(rtlil.convert(
            body, name="top", emit_src=False,
            ports={name: (value, None) for name, value in ports.items()},
        )) + "".join(hollow.declaration for hollow in self._inside)


class _Hollow(Elaboratable):
    """A component's ports around nothing."""

    def __init__(self, component, path):
        self._ports = [("o" if member.flow is Flow.Out else "i", name, value)
                       for name, member, value in _ports(component)]
        self._name  = "hollow_" + path.replace(".", "_")

    def elaborate(self, platform):
        m = Module()
        m.submodules.inside = Instance(self._name, *self._ports)
        return m

    @property
    def declaration(self):
        """RTLIL that says that nobody knows what is in it, and that it stays."""
        wires = [f"  wire width {len(value)} {WAYS[way]} {number} \\{name}"
                 for number, (way, name, value) in enumerate(self._ports, 1)]
        return "\n".join(["", "attribute \\blackbox 1", "attribute \\keep 1",
                          f"module \\{self._name}", *wires, "end", ""])


def _ports(component):
    """Name, member and value of every wire at its edge."""
    return [("__".join(map(str, path)), member, Value.cast(value))
            for path, member, value in component.signature.flatten(component)]
