"""``make disasm``: a program as text, ``python -m hw.disasm program.bin [--engine gate]``.

One line per instruction, made from the layouts of :mod:`hw.isa`, so it cannot disagree with them::

    encoder_conv, 3 instructions
        0  layer  layer 1             slot=0 vectors=1 kernel_h=3 ...
        1  conv   layer 1 row 0       slot=0 rows=[-,0,64] ...   after encoder_fill#2

``after encoder_fill#2`` waits until that engine has retired 2 instructions.
"""

import sys
from enum import Enum
from pathlib import Path

from amaranth.lib import data

from golden.command import Parser, exit_code
from golden.errors import InputError
from golden.files import check_file
from hw.isa import FORMS, INSTRUCTION_BYTES, PROGRAM_MAGIC, Engine, Opcode, StreamHeader

HEADER_FIELDS = ("opcode", "layer", "row", "waits")
HEADERS_BYTES = len(Engine) * INSTRUCTION_BYTES


def format_instruction(bits):
    """One instruction as text. A word that is none is shown in hexadecimal."""
    try:
        opcode = Opcode(bits & 0xF)
    except ValueError:
        return f"?      {bits:#066x}"
    form  = FORMS[opcode]
    view  = form.from_bits(bits & ((1 << form.size) - 1))
    place = f"layer {view.layer}" + (f" row {view.row}" if view.row else "")
    if not view.layer and not view.row:
        place = ""
    fields = [f"{name}={_format(name, _value(view, name))}" for name, _ in form
              if name not in HEADER_FIELDS and not name.startswith("_")]
    waits = [f"{_engine(_value(wait, 'engine'))}#{wait.count}"
             for wait in view.waits if wait.count]
    text  = f"{opcode.name.lower():5}  {place:18}  {' '.join(fields)}".rstrip()
    return f"{text}   after {', '.join(waits)}" if waits else text


def disassemble(program, *, at=None, engines=tuple(Engine)):
    """The lines of a program.

    Parameters
    ----------
    program : bytes
        Headers and streams as :meth:`hw.compiler.emit.Emitter.assemble` lays them out; or, with
        ``at``, an image of off-chip memory from address 0.
    at : int, optional
        Address of the headers in the image.
    engines : sequence of Engine
        Whose streams to show.

    Raises
    ------
    ValueError
        If there is no program, or a stream leaves it.
    """
    start = at or 0
    table = program[start:start + HEADERS_BYTES]
    if len(table) < HEADERS_BYTES:
        raise ValueError(f"Program of {len(program)} bytes has no room for "
                         f"{len(Engine)} headers at {start:#x}")
    headers = [StreamHeader.from_bits(_word(table, e * INSTRUCTION_BYTES)) for e in Engine]
    for engine, header in zip(Engine, headers):
        if header.magic != PROGRAM_MAGIC or _value(header, "engine") != engine:
            raise ValueError(f"No program at {start:#x}: header {engine} is not that of "
                             f"{_engine(engine)}")

    # Addresses are absolute; a bare program begins where its first stream says.
    base = 0 if at is not None else min(header.address for header in headers) - HEADERS_BYTES
    for engine in engines:
        header = headers[engine]
        first  = header.address - base
        if first < 0 or first + header.count * INSTRUCTION_BYTES > len(program):
            raise ValueError(f"Stream of {_engine(engine)} leaves the program")
        yield f"{_engine(engine)}, {header.count} instructions"
        for index in range(header.count):
            yield f"{index:5}  " + format_instruction(
                _word(program, first + index * INSTRUCTION_BYTES))


def _word(program, offset):
    return int.from_bytes(program[offset:offset + INSTRUCTION_BYTES], "little")


def _value(view, name):
    """A field; where its bits name no member of its enumeration, the bits."""
    try:
        return view[name]
    except ValueError:
        field = data.Layout.cast(view.shape())[name]
        return view.as_bits() >> field.offset & ((1 << field.width) - 1)


def _engine(value):
    return value.name.lower() if isinstance(value, Engine) else f"engine{value}"


def _format(name, value):
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, data.Const):      # rows of a convolution
        return "[" + ",".join(str(row.base) if row.valid else "-" for row in value) + "]"
    return f"{value:#x}" if name == "offchip" else str(value)


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments, ValueError)


def _command(arguments):
    options = _parse(arguments)
    names   = [_engine(engine) for engine in Engine]
    if options.engine not in (None, *names):
        raise InputError(f"Unknown engine {options.engine!r}; known are {', '.join(names)}")
    engines = tuple(Engine) if options.engine is None else (Engine[options.engine.upper()],)
    check_file(options.program, "a program")
    program = options.program.read_bytes()
    try:
        for line in disassemble(program, at=options.at, engines=engines):
            print(line)
    except BrokenPipeError:
        sys.stderr.close()


def _parse(arguments):
    parser = Parser("hw.disasm", __doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("--engine", help="show only this engine's stream")
    parser.add_argument("--at", type=lambda text: int(text, 0), metavar="ADDRESS",
                        help="the file is an image of off-chip memory, with the headers here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
