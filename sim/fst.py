"""What a waveform file holds: the times and the names of an FST file, not the values.

The format is that of GTKWave's writer: blocks of a type byte and a big-endian length; the first is
the header, and one has the hierarchy, compressed.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from golden.errors import InputError

__all__ = ["Fst", "read_fst"]

HEADER, HIERARCHY_GZIP, HIERARCHY_LZ4, HIERARCHY_LZ4_TWICE = 0, 4, 6, 7
ENDIAN_TEST = 2.7182818284590452354
SCOPE, UPSCOPE, ATTRIBUTE, END_ATTRIBUTE = 254, 255, 252, 253
LAST_KIND   = 29        # of a variable


@dataclass(frozen=True)
class Fst:
    """``start`` and ``end`` are in units of ``10**timescale`` seconds; ``signals`` maps the full
    name of a signal, scopes joined by dots, to its width."""
    start:     int
    end:       int
    timescale: int
    signals:   dict[str, int]


def read_fst(path):
    """The header and the hierarchy.

    Raises
    ------
    InputError
        If it is no FST file, or not a whole one.
    """
    raw, header, signals, at = Path(path).read_bytes(), None, None, 0
    while at + 9 <= len(raw):
        kind, length = raw[at], struct.unpack_from(">Q", raw, at + 1)[0]
        body         = raw[at + 9:at + 1 + length]
        if len(body) != length - 8:
            break
        if kind == HEADER and len(body) >= 72:
            header = body
        elif kind in (HIERARCHY_GZIP, HIERARCHY_LZ4, HIERARCHY_LZ4_TWICE):
            signals = dict(_variables(_hierarchy(kind, body)))
        at += 1 + length
    if header is None or struct.unpack_from("<d", header, 16)[0] != ENDIAN_TEST or not signals:
        raise InputError(f"{str(path)!r} is no whole FST file")
    start, end = struct.unpack_from(">QQ", header)
    return Fst(start, end, struct.unpack_from("b", header, 64)[0], signals)


def _hierarchy(kind, body):
    size, packed = struct.unpack_from(">Q", body)[0], body[8:]
    if kind == HIERARCHY_GZIP:
        return zlib.decompress(packed, 31)
    if kind == HIERARCHY_LZ4_TWICE:
        once, packed = struct.unpack_from(">Q", packed)[0], packed[8:]
        packed = _unpack_lz4(packed, once)
    return _unpack_lz4(packed, size)


def _unpack_lz4(packed, size):
    """One block of LZ4: literals, then a copy of what came before, again and again."""
    out, at = bytearray(), 0

    def count(short):
        nonlocal at
        if short == 15:
            while True:
                more   = packed[at]
                at    += 1
                short += more
                if more != 255:
                    break
        return short

    while at < len(packed):
        token    = packed[at]
        at      += 1
        literals = count(token >> 4)
        out     += packed[at:at + literals]
        at      += literals
        if at >= len(packed):
            break
        offset = packed[at] | packed[at + 1] << 8
        at    += 2
        length = count(token & 15) + 4
        while length:
            part    = out[-offset:][:length]
            out    += part
            length -= len(part)
    if len(out) != size:
        raise InputError("The hierarchy of the FST file is damaged")
    return bytes(out)


def _variables(text):
    """Full name and width of each variable; a range that is part of its name is left out."""
    scopes, at = [], 0

    def string():
        nonlocal at
        end   = text.index(b"\0", at)
        value = text[at:end].decode()
        at    = end + 1
        return value

    def number():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte   = text[at]
            at    += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(text):
        tag = text[at]
        at += 1
        if tag == SCOPE:
            at += 1
            scopes.append(string())
            string()
        elif tag == UPSCOPE:
            scopes.pop()
        elif tag == ATTRIBUTE:
            at += 2
            string()
            number()
        elif tag == END_ATTRIBUTE:
            pass
        elif tag <= LAST_KIND:
            at   += 1
            name  = string()
            width = number()
            number()
            yield ".".join([*scopes, name.split(" [")[0].strip()]), width
        else:
            raise InputError("The hierarchy of the FST file is damaged")
