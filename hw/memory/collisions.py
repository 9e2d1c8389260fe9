"""What a memory's read port shows where a row is read in the very cycle in which it is written.

Amaranth's memories then show the old row, which block RAM does not do by itself: Yosys puts a copy
of the last write and comparators of addresses around it. On an ECP5 that is a register and a
multiplexer for each bit of every memory. Memories made with :data:`UNTOUCHED` are those whose
reader never uses such a row, because programs name what they wait for, or because a row is only
asked for once it is there; :func:`relax` tells Yosys so.

Simulations keep the old row. What they do with rows that are wrong instead is a test:
``tests/sim/test_collisions.py``.
"""

import re

__all__ = ["UNTOUCHED", "relax"]

UNTOUCHED = {"no_rw_check": 1}
"""Attributes of a memory. Yosys itself heeds them for ports that it makes, not for Amaranth's."""

_MODULE    = re.compile(r"^module .*?^end$", re.MULTILINE | re.DOTALL)
_MEMORY    = re.compile(r"^ *attribute \\no_rw_check 1\n(?: *attribute .*\n)* *memory .*(\\\S+)$",
                        re.MULTILINE)
_READ_PORT = re.compile(r"^ *cell \$memrd_v2 .*?^ *end$", re.MULTILINE | re.DOTALL)
_MASK      = re.compile(r"(\\COLLISION_X_MASK \d+)'0+$", re.MULTILINE)


def relax(text):
    """RTLIL in which registered read ports of memories with :data:`UNTOUCHED` may show anything
    where their row is being written."""
    return _MODULE.sub(_relax_module, text)


def _relax_module(module):
    names = set(_MEMORY.findall(module[0]))

    def relaxed(port):
        name = re.search(r'\\MEMID "\\(\\\S+)"', port[0])[1]
        if name not in names or "\\CLK_ENABLE 1" not in port[0]:
            return port[0]
        return _MASK.sub(lambda mask: f"{mask[1]}'{'1' * int(mask[1].split()[1])}", port[0])

    return _READ_PORT.sub(relaxed, module[0])
