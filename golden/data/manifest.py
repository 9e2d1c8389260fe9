"""A table of images: columns ``file``, ``mask``, ``label`` and, if wanted, ``group``.

Paths are relative to the table. Several masks of one image are separated by ``;``. A blank group
stands for none.
"""

import csv

from golden.data.sample import Dataset, Sample
from golden.errors import InputError

__all__ = ["read"]

COLUMNS = ("file", "mask", "label")


def read(path):
    """All rows of a table."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            missing = [column for column in COLUMNS if column not in columns]
            if missing:
                raise InputError(f"Table {str(path)!r} has no column {missing[0]!r}; its first "
                                 f"line must be {','.join(COLUMNS)}")
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"Table {str(path)!r} is not comma-separated text ({error}); export it "
                         f"as CSV in UTF-8") from None
    if not rows:
        raise InputError(f"Table {str(path)!r} lists no image; add a line per image")
    home = path.parent
    samples = []
    for row in rows:
        masks = tuple(home / mask.strip() for mask in (row["mask"] or "").split(";")
                      if mask.strip())
        group = (row["group"] or row["file"]) if "group" in columns else ""
        samples.append(Sample(row["file"], home / row["file"], masks, row["label"] or "", group))
    repeated = {s.name for s in samples if sum(t.name == s.name for t in samples) > 1}
    if repeated:
        raise InputError(f"Table {str(path)!r} lists {min(repeated)!r} more than once; keep one "
                         f"line, with all its masks separated by ';'")
    return Dataset(str(path), "table", tuple(samples))
