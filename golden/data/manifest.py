"""A table of images: columns ``file``, ``mask``, ``label`` and, if wanted, ``group``.

Names of columns may be in capitals, as in unet-busi's source. Paths are relative to the table, or
to the current folder where the table is a pandas DataFrame. Several masks of one image are
separated by ``;``. A blank group stands for none.
"""

from collections import Counter
from pathlib import Path

from golden.data.rows import read_rows
from golden.data.sample import Dataset, Sample
from golden.errors import InputError

__all__ = ["is_frame", "read", "read_frame"]

COLUMNS = ("file", "mask", "label")
FRAME = "DataFrame"


def read(path):
    """All rows of a table."""
    columns, rows = read_rows(path)
    return _dataset(f"Table {str(path)!r}", str(path), path.parent, columns, rows,
                    f"its first line must be {','.join(COLUMNS)}")


def is_frame(value):
    """Whether ``value`` is a DataFrame of pandas, or like one."""
    return all(hasattr(value, name) for name in ("columns", "to_dict"))


def read_frame(frame):
    """All rows of a DataFrame; cells without a value are blank."""
    columns = [str(column) for column in frame.columns]
    rows = [{str(name): "" if value is None or value != value else str(value)
             for name, value in row.items()} for row in frame.to_dict("records")]
    return _dataset(FRAME, FRAME, Path(), columns, rows,
                    f"its columns must be {', '.join(COLUMNS)}")


def _dataset(what, source, home, columns, rows, way_out):
    """The samples of rows, dictionaries by column; ``what`` is what errors call the table."""
    lower = [column.strip().lower() for column in columns]
    for name in lower:
        if lower.count(name) > 1:
            raise InputError(f"{what} has two columns {name!r}; keep one")
    rows = [dict(zip(lower, row.values(), strict=True)) for row in rows]
    if missing := [column for column in COLUMNS if column not in lower]:
        raise InputError(f"{what} has no column {missing[0]!r}; {way_out}")
    if not rows:
        raise InputError(f"{what} lists no image; add a line per image")
    samples = []
    for row in rows:
        if not row["file"]:
            raise InputError(f"{what} has a row without a file; name one, or remove the row")
        masks = tuple(home / mask.strip() for mask in row["mask"].split(";") if mask.strip())
        group = (row["group"] or row["file"]) if "group" in lower else ""
        samples.append(Sample(row["file"], home / row["file"], masks, row["label"], group))
    counts = Counter(sample.name for sample in samples)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise InputError(f"{what} lists {min(repeated)!r} more than once; keep one line, with all "
                         f"its masks separated by ';'")
    return Dataset(source, "table", tuple(samples))
