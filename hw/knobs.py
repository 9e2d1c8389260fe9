"""Knobs: fields of frozen dataclasses that say once what they mean, in what unit, and what they may
be. Checks, files of machines, their JSON schema and their help all come from that.

A class of knobs is a frozen dataclass whose fields :func:`knob` makes, or are such classes
themselves (*tables*). Its ``RULES``, of :class:`Rule`, say what several fields owe each other. It
calls :func:`demand` when it is made, so that no wrong one exists.
"""

import math
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from decimal import Decimal

__all__ = ["Knob", "Mistakes", "Rule", "UNITS", "demand", "differences", "is_table", "knob",
           "knob_named", "knob_of", "mistakes", "read_amount", "read_value", "schema", "spoken",
           "written"]

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

UNITS = {
    "bytes":   {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB},
    "bytes/s": {"B/s": 1, "kB/s": 10**3, "MB/s": 10**6, "GB/s": 10**9, "KiB/s": KIB,
                "MiB/s": MIB, "GiB/s": GIB},
    "MHz":     {"MHz": 1, "kHz": Decimal("0.001"), "GHz": 1000},
    "ns":      {"ns": 1, "ps": Decimal("0.001"), "us": 1000, "µs": 1000, "ms": 10**6},
}
"""Unit of a knob -> the words that may follow a number, and what they multiply it by."""

NUMBER = r"[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?"
SHOWN  = 60         # characters of a wrong value


class Mistakes(ValueError):
    """``lines``: every mistake, in words that begin with the field's name."""

    def __init__(self, lines):
        super().__init__("; ".join(lines))
        self.lines = lines


@dataclass(frozen=True)
class Knob:
    """What a field means and may be.

    ``unit`` is a key of :data:`UNITS`, if any. A number is from ``least`` to ``most`` and, with
    ``power``, a power of two; a text matches ``pattern``, which ``shape`` puts into words.
    What is said ``about`` another field does not outlive a change of that: it has its default then.
    """
    text:    str
    unit:    str = ""
    least:   float = None
    most:    float = None
    power:   bool = False
    pattern: str = None
    shape:   str = ""
    about:   str = None


@dataclass(frozen=True)
class Rule:
    """What the fields ``names`` (with blanks between) owe each other: ``broken`` takes their values
    and returns the mistake in words, or None. A rule is asked when all of its fields are right."""
    names:  str
    broken: Callable


def knob(text, unit="", *, default=MISSING, **limits):
    """A field of a dataclass with a :class:`Knob`."""
    return field(default=default, metadata={"knob": Knob(text, unit, **limits)})


def knob_of(each):
    """The :class:`Knob` of a dataclass' field; None of one that is a table, or nobody's to set."""
    return each.metadata.get("knob")


def knob_named(kind, name):
    """The :class:`Knob` of that name of the dataclass ``kind``."""
    return next(knob_of(each) for each in fields(kind) if each.name == name)


def is_table(each):
    """Whether a dataclass' field holds a class of knobs."""
    return is_dataclass(each.type)


def demand(made):
    """Refuse an instance with mistakes.

    Raises
    ------
    Mistakes
    """
    values = {each.name: getattr(made, each.name) for each in fields(made)}
    lines  = [line for each in fields(made) if knob_of(each)
              for line in [_mistake(each, values[each.name])] if line]
    wrong  = {line.partition(" ")[0] for line in lines}
    lines += mistakes(type(made), {name: value for name, value in values.items()
                                   if name not in wrong})
    if lines:
        raise Mistakes(lines)


def mistakes(kind, values):
    """The rules of ``kind`` that ``values``, right each by itself and by name, break: a list of
    lines."""
    lines = []
    for rule in kind.RULES:
        names = rule.names.split()
        if all(name in values for name in names):
            line = rule.broken(*(values[name] for name in names))
            if line:
                lines.append(line)
    return lines


def read_value(each, value):
    """The value of a field as TOML has it, a number also as a text with its unit ("4 MiB").

    Raises
    ------
    Mistakes
        With the one thing that is wrong.
    """
    found = _measured(each, value) if isinstance(value, str) and each.type is not str else value
    if each.type is float and type(found) is int:
        found = float(found) if abs(found) < 1 << 1000 else math.inf
    line = _mistake(each, found)
    if line:
        raise Mistakes([line])
    return found


def read_amount(each, value):
    """A number in the unit of a knob, which need not be what the knob may be: a difference of two
    of its values.

    Raises
    ------
    Mistakes
    """
    found = _measured(each, value) if isinstance(value, str) else value
    if type(found) not in (int, each.type) or not 0 < found < math.inf:
        raise Mistakes([f"{each.name} goes in steps of a number above 0, not {_quoted(value)}"])
    return found


def _measured(each, text):
    """A number with a unit behind it; anything else as it is."""
    known = UNITS.get(knob_of(each).unit, {})
    parts = re.fullmatch(rf"\s*({NUMBER})\s*([^\s0-9.]+)\s*", text)
    if not parts or not known:
        return text
    if parts[2] not in known:
        raise Mistakes(
            [f"{each.name} has an unknown unit: {_quoted(text)}; known are {', '.join(known)}"])
    number = Decimal(parts[1].replace("_", "")) * known[parts[2]]
    if each.type is float:
        return float(number)
    if number != number.to_integral_value():
        raise Mistakes([(f"{each.name} must be a whole number of {knob_of(each).unit}, and "
                         f"{text.strip()} is {number.normalize():f}")])
    return int(number)


def _mistake(each, value):
    """What is wrong with the value of a knob, as a line; None if nothing."""
    about = knob_of(each)
    kinds = {bool: "true or false", str: "a text", int: "a whole number", float: "a number"}
    right = type(value) in ((int, float) if each.type is float else (each.type,))
    if not right or each.type is float and not math.isfinite(value):
        also = f', or one with its unit ("{_example(each)}")' if about.unit in UNITS else ""
        return f"{each.name} must be {kinds[each.type]}{also}, not {_quoted(value)}"
    if each.type is str:
        good = about.pattern is None or re.fullmatch(about.pattern, value)
        return None if good else f"{each.name} must be {about.shape}, not {_quoted(value)}"
    if each.type is bool:
        return None
    if about.least <= value <= about.most and not (about.power and value & (value - 1)):
        return None
    return (f"{each.name} must be {'a power of two ' if about.power else ''}from "
            f"{spoken(about.least, about.unit)} to {spoken(about.most, about.unit)}, not "
            f"{spoken(value, about.unit)}")


def _example(each):
    return {"bytes": "2 MiB", "bytes/s": "3.2 GB/s", "MHz": "300 MHz", "ns": "14.16 ns"}[
        knob_of(each).unit]


def _quoted(value):
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def spoken(value, unit=""):
    """A value of a knob for people, in the largest unit in which it stays short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) or value is None:
        return str(value)
    if unit == "bytes":
        for word in ("GiB", "MiB", "KiB"):
            if value and not value % UNITS[unit][word]:
                return f"{value // UNITS[unit][word]} {word}"
        return f"{value} B"
    if unit == "bytes/s":
        for word in ("GB/s", "MB/s", "kB/s"):
            if value >= UNITS[unit][word]:
                return f"{value / UNITS[unit][word]:g} {word}"
        return f"{value} B/s"
    number = f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)
    return f"{number} {unit}" if unit in UNITS else number


def differences(a, b, prefix=""):
    """What differs between two of one class: a list of (path, value of ``a``, value of ``b``) with
    values for people. Tables with names that differ count as one knob."""
    found = []
    for each in fields(a):
        one, other = getattr(a, each.name), getattr(b, each.name)
        path = f"{prefix}{each.name}"
        if is_table(each):
            names = [getattr(table, "name", None) for table in (one, other)]
            inner = differences(one, other, f"{path}.")
            if inner and names[0] != names[1] and len(inner) > 1:
                found.append((path, *names))
            else:
                found += inner
        elif knob_of(each) and each.name != "name" and one != other:
            unit = knob_of(each).unit
            found.append((path, spoken(one, unit), spoken(other, unit)))
    return found


def written(made, comments=True, table=""):
    """The lines of a TOML file that says all of an instance, each knob with what it means."""
    lines = []
    for each in sorted(fields(made), key=is_table):
        value = getattr(made, each.name)
        if is_table(each):
            lines += ["", f"[{table}{each.name}]",
                      *written(value, comments, f"{table}{each.name}.")]
        elif knob_of(each):
            unit = knob_of(each).unit
            text = (f'"{spoken(value, unit)}"' if unit == "bytes" and value % KIB == 0 else
                    f'"{value}"' if isinstance(value, str) else str(value).lower())
            note = f"{knob_of(each).text}{_limits(each)}" if comments else ""
            lines.append(f"{f'{each.name} = {text}':<32}# {note}" if note else
                         f"{each.name} = {text}")
    return lines


def _limits(each):
    about = knob_of(each)
    if each.type in (str, bool):
        return ""
    unit  = f", in {about.unit}" if about.unit and about.unit != "bytes" else ""
    return (f"{unit}: {'a power of two ' if about.power else ''}from "
            f"{spoken(about.least, about.unit)} to {spoken(about.most, about.unit)}")


def schema(kind):
    """The JSON schema of a table of ``kind``."""
    places = {each.name: schema(each.type) if is_table(each) else _schema_of(each)
              for each in fields(kind) if is_table(each) or knob_of(each)}
    return {"type": "object", "additionalProperties": False, "properties": places}


def _schema_of(each):
    about = knob_of(each)
    words = {"description": about.text + _limits(each)}
    if each.type is bool:
        return {"type": "boolean", **words}
    if each.type is str:
        shape = {"pattern": f"^(?:{about.pattern})$"} if about.pattern else {}
        return {"type": "string", **shape, **words}
    number = {"type": "integer" if each.type is int else "number", "minimum": about.least,
              "maximum": about.most}
    if about.power:
        least, most = int(about.least), int(about.most)
        number = {"enum": [1 << bit for bit in range(64) if least <= 1 << bit <= most]}
    if about.unit not in UNITS:
        return {**number, **words}
    units = "|".join(map(re.escape, UNITS[about.unit]))
    return {"anyOf": [number, {"type": "string", "pattern": rf"^\s*{NUMBER}\s*({units})\s*$"}],
            **words}
