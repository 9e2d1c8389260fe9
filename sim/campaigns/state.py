"""Every flip-flop and memory of a simulated machine, by name, within reach of C++.

Registers and memories of the Verilog are kept by Verilator as members of one C++ object, under the
names of their places in the hierarchy. :func:`mark` asks for this, :func:`find_targets` lists them,
and :func:`write_table` tells ``upsets.cpp`` their addresses.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from sim.errors import SimulationError

__all__ = ["GUARDED", "Target", "block", "find_targets", "mark", "read_table", "write_table"]

OWN      = "ff$"
MARK     = " /*verilator public_flat_rd*/"
MODULE   = re.compile(r"^(?=module )", re.MULTILINE)
NAME     = r"(?:\\\S+ |\w+)"
CLOCKED  = re.compile(rf"^\s+({NAME})\s*(?:\[[^=\n]*\])?\s*<=(?=\s)", re.MULTILINE)
DECLARED = re.compile(rf"^(  reg (?:\[(\d+):0\] )?)({NAME})((?: \[(\d+):0\])?)((?: = [^;]*)?;)$",
                      re.MULTILINE)
MEMBER   = re.compile(r"^\s+(?:\w+|Vl\w+<.*>)(?:/\*\d+:0\*/)? (\w+);$", re.MULTILINE)

# The first pattern that is found in the path of a register tells its class.
BLOCKS = {
    r"\.front_\w+$":                    "front ends",
    r"\.fetcher\b":                     "program fetch",
    r"\.ledger\b":                      "performance counters",
    r"\.registers$":                    "host registers",
    r"\.controller$":                   "run control",
    r"\.sequencer\b":                   "sequencers",
    r"\.array\b":                       "MAC arrays",
    r"\.(drain\.lane|requantizer)_\d+$": "requantisation",
    r"\.drain\b":                       "drains",
    r"\.conv\.writer\b":                "result writers",
    r"\.conv\.weights\b":               "weight memory ports",
    r"\.conv\b":                        "convolution engines",
    r"\.fill\b":                        "fill engines",
    r"\.rows\b":                        "row memory ports",
    r"\.gate\b":                        "gate",
    r"\.(load|stores)\b":               "load and store",
    r"\.(onchip|memory)\b":             "on-chip memory ports",
    r"\.(monitor|alpha_rows|alpha)\b":  "monitor and alpha",
}
# The same for memories.
MEMORIES = {
    r"\.onchip\.":                      "on-chip memory",
    r"\.decoder\.memory\.":             "feedback memory",
    r"\.rows\.":                        "row memories",
    r"\.weights\.weights_":             "weights",
    r"\.weights\.params_":              "requantise params",
    r"\.weights\.table\b":              "lookup tables",
    r"\.conv\.slots\b":                 "layer slots",
    r"\.alpha_rows\.slots\b":           "alpha row slots",
    r"\.alpha\.words\b":                "alpha store",
    r"\.gate\.params\.":                "gate parameters",
    r"\.buffer\.memory\b":              "instruction buffer",
    r"\.fetcher\.streams\b":            "program streams",
    r"\.ledger\.":                      "counter memories",
    r"\.drain\.queue\.":                "drain queues",
    r"\.storage$":                      "other queues",
}


# Classes of memories that hw.config.MEMORIES has, too.
GUARDED = {
    "on-chip memory": "onchip", "feedback memory": "feedback", "row memories": "rows",
    "weights": "weights", "requantise params": "params", "lookup tables": "table",
    "layer slots": "slots", "alpha row slots": "slots", "alpha store": "alpha",
    "gate parameters": "gate_params", "instruction buffer": "instructions",
    "program streams": "streams", "drain queues": "queues", "other queues": "queues",
}


@dataclass(frozen=True)
class Target:
    """A register, or a memory of ``depth`` rows; ``path`` is its place in the hierarchy.

    ``kind`` is the class of state it counts to, None outside of the chip.
    """
    path:   str
    width:  int
    depth:  int
    memory: bool
    kind:   str | None

    @property
    def bits(self):
        return self.width * self.depth


def block(path, *, memory):
    """The class of the register or memory at ``path``.

    Raises
    ------
    SimulationError
        If it belongs to none: a new block needs a line in the tables of this module.
    """
    where = path if memory else path.rpartition(".")[0]
    for pattern, kind in (MEMORIES if memory else BLOCKS).items():
        if re.search(pattern, where):
            return kind
    raise SimulationError(f"Nothing says to which class of state {path} belongs")


def mark(verilog):
    """``verilog``, which :func:`hw.verilog.export` made, with its registers and memories public,
    and a list of them: module, name, width, depth, and whether it is a memory.

    A register that is a port would live on as a signal of the parent, of which the public name is
    only a copy; so each becomes one of its own, called ``ff$`` and its name.
    """
    parts, found = [], []
    for body in MODULE.split(verilog):
        module  = re.match(rf"module ({NAME})", body)
        clocked = set(CLOCKED.findall(body))

        def declare(match, module=module, clocked=clocked):
            head, msb, name, rows, last, tail = match.groups()
            if name not in clocked:
                return match[0]
            found.append((_plain(module[1]), _plain(name if rows else _own(name)),
                          int(msb or 0) + 1, int(last or 0) + 1, bool(rows)))
            if rows:
                return f"{head}{name}{rows}{MARK}{tail}"
            return (f"{head}{_own(name)}{MARK}{tail}\n"
                    f"{head.replace('reg', 'wire', 1)}{name} = {_own(name)};")

        body = DECLARED.sub(declare, body) if module else body
        memories = {name for place, name, *_, memory in found
                    if memory and module and place == _plain(module[1])}
        parts.append(CLOCKED.sub(
            lambda match, memories=memories: match[0] if _plain(match[1]) in memories
            else match[0].replace(match[1], _own(match[1]), 1), body))
    return "".join(parts), found


def find_targets(found, header):
    """A list of :class:`Target` and the C++ member of each.

    Raises
    ------
    SimulationError
        If Verilator kept one of them elsewhere.
    """
    members, targets = set(MEMBER.findall(header)), []
    for module, name, width, depth, memory in found:
        path   = f"{module}.{name.removeprefix(OWN)}"
        member = "__DOT__".join(_encoded(part) for part in (*module.split("."), name))
        if member not in members:
            raise SimulationError(f"Verilator kept {path} nowhere")
        inside = module.startswith("top.chip")
        kind   = block(path, memory=memory) if inside else None
        targets.append((Target(path, width, depth, memory, kind), member))
    return targets


def write_table(folder, c_folder, targets, observers=()):
    """``targets.json`` for :func:`read_table`, and ``targets.inc``, which ``upsets.cpp`` includes.

    ``observers`` are paths of registers that count errors, ``corrected`` ones or others: a machine
    that differs in nothing else is held to be the same.
    """
    (Path(c_folder) / "targets.inc").write_text("".join(
        f"{'MEMORY' if target.memory else 'REGISTER'}({member})\n" for target, member in targets)
        + "".join(f"OBSERVER({member}, {'corrected' in target.path:d})\n"
                  for target, member in targets if target.path in observers))
    (Path(folder) / "targets.json").write_text(json.dumps([asdict(target)
                                                           for target, _ in targets]))


def read_table(folder):
    """The targets in the order of their numbers."""
    return [Target(**one) for one in json.loads((Path(folder) / "targets.json").read_text())]


def _own(name):
    return f"\\{OWN}{_plain(name)} "


def _plain(name):
    return name.strip().removeprefix("\\")


def _encoded(name):
    """As Verilator encodes the name of a signal or instance (``AstNode::encodeName``)."""
    name = name.replace("__", "_\0")
    return "".join("__05F" if char == "\0" else char if char.isalnum() or char == "_"
                   else f"__0{ord(char):02X}" for char in name)
