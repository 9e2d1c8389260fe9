import struct
import zlib

import pytest

from golden.errors import InputError
from sim.fst import Fst, read_fst

NAMES = (b"\xfe\x00top\0\0" + b"\x10\x00clk\0\x01\x00" + b"\xfc\x00\x00a note\0\x05"
         + b"\xfe\x00chip\0\0" + b"\x10\x00bus [127:0]\0\x80\x01\x00" + b"\xff\xfd" + b"\xff")
SIGNALS = {"top.clk": 1, "top.chip.bus": 128}


def block(kind, body):
    return bytes([kind]) + struct.pack(">Q", len(body) + 8) + body


def header(start=20, end=80):
    return block(0, struct.pack(">QQ", start, end) + struct.pack("<d", 2.7182818284590452354)
                 + bytes(40) + struct.pack("b", -12) + bytes(256))


def literals(text):
    """An LZ4 block without any copies."""
    length = len(text) - 15
    return b"\xf0" + b"\xff" * (length // 255) + bytes([length % 255]) + text


def hierarchy(kind, packed, size=None):
    return block(kind, struct.pack(">Q", size or len(NAMES)) + packed)


def gzip(text):
    packer = zlib.compressobj(wbits=31)
    return packer.compress(text) + packer.flush()


@pytest.mark.parametrize("names", [
    hierarchy(4, gzip(NAMES)),
    hierarchy(6, literals(NAMES)),
    hierarchy(7, struct.pack(">Q", len(literals(NAMES))) + literals(literals(NAMES))),
], ids=["gzip", "lz4", "lz4 twice"])
def test_times_and_names(tmp_path, names):
    path = tmp_path / "wave.fst"
    path.write_bytes(header() + block(1, b"values") + names)
    assert read_fst(path) == Fst(20, 80, -12, SIGNALS)


def test_copies_may_overlap_what_they_write(tmp_path):
    # Three literals, and twelve more of the last of them
    text = b"\xfe\x00" + b"a" * 13 + b"\0\0" + b"\x10\x00x\0\x01\x00\xff"
    rest = text[15:]
    lz4  = bytes([0x30 | 12 - 4]) + text[:3] + b"\x01\x00" + bytes([len(rest) << 4]) + rest
    path = tmp_path / "wave.fst"
    path.write_bytes(header() + hierarchy(6, lz4, len(text)))
    assert read_fst(path).signals == {"a" * 13 + ".x": 1}


@pytest.mark.parametrize("raw", [
    b"", b"$date today $end", header(), header()[:50], hierarchy(6, literals(NAMES)),
    (header() + hierarchy(6, literals(NAMES)))[:-1],
])
def test_what_is_no_whole_file_is_refused(tmp_path, raw):
    path = tmp_path / "wave.fst"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=f"^'{path}' is no whole FST file$"):
        read_fst(path)


@pytest.mark.parametrize("names", [hierarchy(6, literals(NAMES), 7),
                                   hierarchy(4, gzip(NAMES + b"\x99"))])
def test_damaged_hierarchy_is_refused(tmp_path, names):
    path = tmp_path / "wave.fst"
    path.write_bytes(header() + names)
    with pytest.raises(InputError, match="^The hierarchy of the FST file is damaged$"):
        read_fst(path)
