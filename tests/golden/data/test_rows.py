import re

import pytest

from golden.data.rows import read_rows
from golden.errors import InputError


def refused(path, text, blob):
    path.write_bytes(blob)
    with pytest.raises(InputError, match=f"^Table {re.escape(repr(str(path)))} {text}$"):
        read_rows(path)


def test_names_and_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffa,b\r\n1,\"x, y\"\r\n\r\n2,ü\r\n".encode())
    assert read_rows(path) == (["a", "b"], [{"a": "1", "b": "x, y"}, {"a": "2", "b": "ü"}])
    path.write_bytes(b"")
    assert read_rows(path) == ([], [])


NO_TEXT = "is not comma-separated text \\({}\\); export it as CSV in UTF-8"
QUOTES  = "put quotes around a cell with a comma in it"


@pytest.mark.parametrize("blob, text", [
    ("a,b\n1,2\n".encode("utf-16"), NO_TEXT.format(".*")),
    (b"a\n" + b"x" * 140_000, NO_TEXT.format("field larger than .*")),
    (b'a\n"x', NO_TEXT.format("unexpected end of data")),
    (b"a,b,a\n1,2,3\n", "has two columns 'a'; keep one"),
    (b"a,b\n1\n", f"has 1 cells in row 2, and 2 columns; {QUOTES}"),
    (b"a,b\n1,2,3\n", f"has 3 cells in row 2, and 2 columns; {QUOTES}"),
    (b"a,b\n1,\x1b[2J\n", r"has an unprintable character in row 2, in '\\x1b\[2J'; remove it"),
    (b"a,b\n1,\0\n", r"has an unprintable character in row 2, in '\\x00'; remove it"),
])
def test_refusals(tmp_path, blob, text):
    refused(tmp_path / "a.csv", text, blob)


def test_a_folder_or_a_device_is_no_table(tmp_path):
    (tmp_path / "a.csv").symlink_to("/dev/zero")
    for path in (tmp_path, tmp_path / "a.csv"):
        with pytest.raises(InputError, match=f"^Split {re.escape(repr(str(path)))} is no file; "
                                             "name a file of comma-separated text$"):
            read_rows(path, "Split")
