"""Machines and off-chip memories are TOML files: reading them, and every mistake in them.

A file gives knobs (:mod:`hw.knobs`) by their names, those of a part in a table of its own. With
``base``, the name of a shipped one or the path of a file (from the folder of this one), it says
only what differs. Without ``name``, it is called as its file. Where a part is a file too, its name
or path stands for the table.
"""

import re
import shlex
import tomllib
from dataclasses import MISSING, fields
from difflib import get_close_matches
from pathlib import Path

from golden.errors import InputError, shown
from hw.knobs import Mistakes, is_table, knob_of, mistakes, read_value, schema

__all__ = ["CHANGED", "Shelf", "is_path", "parse_changes", "read_toml", "refuse", "unknown"]

MOST_BYTES = 1 << 16        # of a file; the presets have a hundredth
MOST_SHOWN = 20             # mistakes of one file that are told
CHANGED    = "-changed"


def is_path(name):
    """Whether the name of a machine or memory is the path of a file."""
    return name.endswith(".toml") or "/" in name


class Shelf:
    """The shipped files of one kind, by name, and a reader of others.

    Parameters
    ----------
    kind : type
        A class of knobs with a ``name``.
    what : str
        What one is called in messages.
    folder : Path
    names : tuple
        In the order in which they are listed.
    parts : dict
        Name of a field -> the :class:`Shelf` of what is in it.
    """

    def __init__(self, kind, what, folder, names, parts=None):
        self.kind, self.what, self.parts = kind, what, parts or {}
        self.files   = {name: folder / f"{name}.toml" for name in names}
        self.shipped = {name: self._read(file, ())[0] for name, file in self.files.items()}

    def load(self, name, beside=Path(), reading=()):
        """The instance called ``name``, or that of a file, whose path is relative to ``beside``;
        and the one that it began from: itself where it has no base.

        Raises
        ------
        InputError
            With every mistake in the file on a line of its own.
        """
        if not is_path(name):
            if name not in self.files:
                raise InputError(f"Unknown {self.what} {_safe(name)!r}; known are "
                                 f"{', '.join(self.files)}, or the path of a .toml file")
            return (self.shipped[name],) * 2
        return self._read(beside / name, reading)

    def change(self, begin, table, where, beside=Path()):
        """``begin`` with what the nested dictionary ``table`` gives; ``where`` is what messages
        call it. Its name tells that it is another.

        Raises
        ------
        InputError
        """
        table = {"name": begin.name.removesuffix(CHANGED) + CHANGED, **table}
        made, lines = self._build(self.kind, table, begin, beside, ())
        refuse(where, lines)
        return made

    def schema(self):
        """The JSON schema of such a file: every knob with what it means and may be."""
        made   = schema(self.kind)
        places = made["properties"]
        for name, shelf in self.parts.items():
            places[name] = {"anyOf": [shelf.reference(), shelf.schema()]}
        places["base"] = self.reference()
        return made

    def reference(self):
        """The JSON schema of a text that names one."""
        return {"type": "string", "description":
                f"{', '.join(self.files)}, or the path of a file from the folder of this one"}

    def _read(self, file, reading):
        table = read_toml(file, self.what)
        same  = file.resolve()
        if same in reading:
            raise InputError(f"{shown(file)}: its base is itself, by way of "
                             f"{', '.join(shown(other.name) for other in reading)}")
        base, begin, lines = table.pop("base", None), None, []
        if base is not None and not isinstance(base, str):
            lines.append(f"base must be the name of a {self.what} or a path, not {base!r}")
        elif base is not None:
            begin, first = self.load(base, file.parent, (*reading, same))
        named = "name" in table
        made, found = self._build(self.kind, {"name": file.stem, **table}, begin, file.parent,
                                  reading, complete=base is None)
        if not named:
            found = [f"{line}, the name of the file; give it another, or a name in it"
                     if line.startswith("name must") else line for line in found]
        refuse(shown(file), lines + found)
        return made, made if begin is None else first

    def _build(self, kind, table, begin, beside, reading, complete=False, prefix=""):
        """An instance of ``kind``, and mistakes; None where there are any."""
        known  = {each.name: each for each in fields(kind) if knob_of(each) or is_table(each)}
        lines  = [unknown(kind, self.kind, name, prefix) for name in table if name not in known]
        values, missing = {}, []
        for name, each in known.items():
            if is_table(each):
                value, wrong = self._part(each, table, begin, beside, reading)
                if wrong is None:
                    missing.append(name)
                elif wrong:
                    lines += wrong
                else:
                    values[name] = value
            elif name in table:
                try:
                    values[name] = read_value(each, table[name])
                except Mistakes as wrong:
                    lines += wrong.lines
            elif begin is not None and knob_of(each).about not in table:
                values[name] = getattr(begin, name)
            elif each.default is not MISSING:
                values[name] = each.default
            else:
                missing.append(name)
        if missing and (complete or begin is None):
            lines.append(f"lacks {', '.join(missing)}, and names no base that would have "
                         f"{'them' if len(missing) > 1 else 'it'}")
        lines += mistakes(kind, values)
        return (None if lines or missing else kind(**values)), lines

    def _part(self, each, table, begin, beside, reading):
        """The instance for a field that is a table, and its mistakes; None for these where nothing
        is said of it."""
        name, shelf = each.name, self.parts.get(each.name)
        inner = getattr(begin, name, None)
        if name not in table:
            return inner, None if inner is None else []
        value = table[name]
        if shelf and isinstance(value, str):
            try:
                return shelf.load(value, beside)[0], []
            except InputError as error:
                return None, [f"{name}: {error}"]
        if not isinstance(value, dict):
            also = f"a name ({', '.join(shelf.files)}), a path or " if shelf else ""
            return None, [f"{name} must be {also}a table, not {value!r}"]
        value = dict(value)
        if shelf:
            base = value.pop("base", None)
            try:
                if base is not None:
                    inner = shelf.load(str(base), beside)[0]
            except InputError as error:
                return None, [f"{name}.base: {error}"]
            if inner is not None:
                value = {"name": inner.name.removesuffix(CHANGED) + CHANGED, **value}
        made, lines = (shelf or self)._build(each.type, value, inner, beside, reading,
                                             prefix=f"{name}.")
        return made, [f"{name}.{line}" if not line.startswith("lacks ") else f"{name} {line}"
                      for line in lines]


def parse_changes(text):
    """What SET gives, ``"decoder.outputs=16 onchip_bytes=2MiB"``, as a nested dictionary.

    Raises
    ------
    InputError
    """
    table = {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"SET={text!r} cannot be read ({error})") from None
    for word in words:
        path, equals, value = word.partition("=")
        if not (path and equals and value):
            raise InputError(f"SET takes NAME=value with blanks between, such as "
                             f"'decoder.outputs=16 onchip_bytes=2MiB'; not {word!r}")
        *parts, name = path.split(".")
        inner = table
        for part in parts:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise InputError(f"SET gives {part} both as a whole and in parts")
        if name in inner:
            raise InputError(f"SET gives {path} twice")
        inner[name] = _typed(value)
    return table


def _typed(text):
    """A word of the command line as TOML would have it."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def read_toml(file, what):
    """The table of the file of a ``what``.

    Raises
    ------
    InputError
        If it cannot be read, or is no TOML.
    """
    try:
        if not file.is_file():
            raise InputError(f"No file {shown(file)!r}; name the TOML file of a {what}")
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise InputError(f"{shown(file)} has more than {MOST_BYTES >> 10} KiB; a {what} needs "
                             "less")
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise InputError(f"{shown(file)} is no text in UTF-8 (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{shown(file)} is no TOML: {shown(error)}") from None
    except (RecursionError, ValueError) as error:       # also digits beyond what Python converts
        if isinstance(error, InputError):
            raise
        raise InputError(f"{shown(file)} cannot be read as TOML: nested too deeply, or a number "
                         "too long") from None


def unknown(kind, whole, name, prefix):
    """That no knob of ``kind`` is called ``name``, and what may be meant; ``kind`` is ``whole``, or
    a table in it whose names begin with ``prefix``."""
    known = [each.name for each in fields(kind) if knob_of(each) or is_table(each)]
    near  = [f"{each.name}.{inner.name}" for each in fields(whole) if is_table(each)
             for inner in fields(each.type) if inner.name == name and kind is whole]
    if not near:
        near = [prefix + close for close in get_close_matches(name, known, 1)]
    hint  = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    return f"{_safe(name)} is unknown; {hint}"


def _safe(name):
    """A key as it stands where it is a bare one, so that no line breaks."""
    return name if re.fullmatch(r"[\w.-]{1,60}", name) else repr(name[:60])


def refuse(where, lines):
    """Refuse what has the mistakes ``lines``, if there are any; ``where`` is what it is called.

    Raises
    ------
    InputError
    """
    if len(lines) == 1:
        raise InputError(f"{where}: {lines[0]}")
    if lines:
        more = [f"and {len(lines) - MOST_SHOWN} more"] if len(lines) > MOST_SHOWN else []
        raise InputError("\n  ".join([f"{where} has {len(lines)} mistakes", *lines[:MOST_SHOWN],
                                      *more]))
