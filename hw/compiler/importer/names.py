"""What things are called, in the graph and in what is said about a file."""

from hw.compiler.importer.check import name_of, printable, spoken
from hw.compiler.ops import COPIED

SUFFIXES = ("_quantized", "_QuantizeLinear_Output", "_QuantizeLinear_Input", "_output_0")
BREVITAS = ("act_quant", "activation_impl", "export_handler")   # its own parts of a module's path


def node_said(node):
    return f"node {printable(name_of(node))!r} ({node.op_type})"


def clean(name):
    """A name of the file as one of a tensor."""
    changed = True
    while changed:
        changed = False
        for suffix in SUFFIXES:
            if name.endswith(suffix) and name != suffix:
                name, changed = name.removesuffix(suffix), True
    parts = name.strip("/").replace("/", ".").split(".")
    name = spoken(".".join([part for part in parts[:-1] if part not in BREVITAS] + parts[-1:]))
    return f"{name}_" if name.endswith(COPIED) else name


def by(sides):
    return "x".join(str(side) for side in sides)
