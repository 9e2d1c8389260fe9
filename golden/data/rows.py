"""Tables of text with a first line of names: CSV in UTF-8."""

import csv

from golden.errors import InputError

__all__ = ["read_rows"]


def read_rows(path, what="Table"):
    """Names of the columns, and a dictionary per line; both empty of an empty file.

    A file that is no such text, a name that stands twice in the first line, or a line with more or
    fewer cells than that is an :class:`InputError` that calls the file ``what``.
    """
    where = f"{what} {str(path)!r}"
    if path.exists() and not path.is_file():
        raise InputError(f"{where} is no file; name a file of comma-separated text")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file, strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where} is not comma-separated text ({error}); export it as CSV in "
                         f"UTF-8") from None
    columns = lines[0] if lines else []
    for name in columns:
        if columns.count(name) > 1:
            raise InputError(f"{where} has two columns {name!r}; keep one")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(columns):
            raise InputError(f"{where} has {len(line)} cells in row {number}, and {len(columns)} "
                             f"columns; put quotes around a cell with a comma in it")
        for cell in line:
            if not cell.isprintable():
                raise InputError(f"{where} has an unprintable character in row {number}, in "
                                 f"{cell[:40]!r}; remove it")
    return columns, [dict(zip(columns, line, strict=True)) for line in lines[1:]]
