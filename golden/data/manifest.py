"""A table of images: columns ``file``, ``mask``, ``label`` and, if wanted, ``group``.

Paths are relative to the table. Several masks of one image are separated by ``;``. A blank group
stands for none.
"""

from collections import Counter

from golden.data.rows import read_rows
from golden.data.sample import Dataset, Sample
from golden.errors import InputError

__all__ = ["read"]

COLUMNS = ("file", "mask", "label")


def read(path):
    """All rows of a table."""
    columns, rows = read_rows(path)
    if missing := [column for column in COLUMNS if column not in columns]:
        raise InputError(f"Table {str(path)!r} has no column {missing[0]!r}; its first line must "
                         f"be {','.join(COLUMNS)}")
    if not rows:
        raise InputError(f"Table {str(path)!r} lists no image; add a line per image")
    home = path.parent
    samples = []
    for row in rows:
        if not row["file"]:
            raise InputError(f"Table {str(path)!r} has a row without a file; name one, or remove "
                             f"the row")
        masks = tuple(home / mask.strip() for mask in row["mask"].split(";") if mask.strip())
        group = (row["group"] or row["file"]) if "group" in columns else ""
        samples.append(Sample(row["file"], home / row["file"], masks, row["label"], group))
    counts = Counter(sample.name for sample in samples)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise InputError(f"Table {str(path)!r} lists {min(repeated)!r} more than once; keep one "
                         f"line, with all its masks separated by ';'")
    return Dataset(str(path), "table", tuple(samples))
