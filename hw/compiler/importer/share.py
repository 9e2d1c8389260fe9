"""How much of a network that is refused would run as it is."""

import math

AROUND = ("QuantizeLinear", "DequantizeLinear", "Identity", "Constant")     # no work of their own
PRODUCTS = {"Conv": 1, "ConvTranspose": 0, "MatMul": 1, "Gemm": 1}
"""Operators that multiply by weights: whether each weight is for every pixel of what they make, or
of what they take."""


def said(file, refused):
    """A line about the operators of ``file`` but those ``refused``, and the multiplications in
    them, as far as shapes are known."""
    names = {id(node) for node in refused}
    nodes = [node for node in file.nodes if node.op_type not in AROUND
             and not all(name in file.constants for name in node.input if name)]
    left  = [node for node in nodes if id(node) not in names]
    whole, part = (sum(_macs(file, node) for node in each) for each in (nodes, left))
    line  = f"{len(left)} of {len(nodes)} operators would run as they are"
    return line if not whole else f"{line}, with {part / whole:.0%} of the multiplications"


def _macs(file, node):
    if node.op_type not in PRODUCTS:
        return 0
    weights = file.shape(node.input[1])
    pixels  = file.shape(node.output[0] if PRODUCTS[node.op_type] else node.input[0])
    return 0 if None in (weights, pixels) else math.prod(weights) * math.prod(pixels[2:])
