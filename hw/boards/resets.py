"""Resets on the networks of clocks.

Yosys ties a reset to thousands of registers all over the chip, and nextpnr moves only clocks to
the networks made for that; its router then spends minutes on a thousand wires of such a reset. An
ECP5's DCCA takes any net to a network of clocks, eight of which reach the reset inputs of
registers.
"""

__all__ = ["MANY", "NETWORKS", "spread"]

MANY     = 1000     # registers that a reset has, from which on it is worth one
NETWORKS = 8


def spread(module):
    """Move the resets of ``MANY`` registers and more, those of most first, to networks of clocks;
    how many registers each has. ``module`` is one of Yosys' JSON, mapped to an ECP5."""
    cells = module["cells"]
    users = {}
    for cell in cells.values():
        net = cell["connections"].get("LSR") if cell["type"] == "TRELLIS_FF" else None
        if net and isinstance(net[0], int):
            users.setdefault(net[0], []).append(cell)
    free  = 1 + max(bit for net in module["netnames"].values() for bit in net["bits"]
                    if isinstance(bit, int))
    many  = sorted((net for net in users if len(users[net]) >= MANY),
                   key=lambda net: -len(users[net]))[:NETWORKS]
    for net in many:
        for cell in users[net]:
            cell["connections"]["LSR"] = [free]
        cells[f"reset_{free}"] = {
            "hide_name": 0, "type": "DCCA", "parameters": {}, "attributes": {},
            "port_directions": {"CLKI": "input", "CE": "input", "CLKO": "output"},
            "connections": {"CLKI": [net], "CE": ["1"], "CLKO": [free]}}
        module["netnames"][f"reset_{free}"] = {"hide_name": 0, "bits": [free], "attributes": {}}
        free += 1
    return [len(users[net]) for net in many]
