"""Which images train, which choose, which test: by group, fixed by a seed, kept in a file."""

import csv
import hashlib

from golden.data.rows import read_rows
from golden.errors import InputError
from golden.names import PARTS

__all__ = ["PARTS", "read_split", "split", "write_split"]

# Shares of the groups, by hash: the rest is for training.
TEST_SHARE = 0.12
VALIDATION_SHARE = 0.08
COLUMNS = ["name", "class", "group", "part"]


def split(samples, seed=0, path=None):
    """Samples as a dictionary of ``train``, ``validation`` and ``test``.

    A group's part depends on its name and the seed alone, so that it stays when images come or go.
    With ``path`` the split is what :func:`write_split` wrote there.
    """
    if path is not None:
        return read_split(path, samples)
    parts = {part: [] for part in PARTS}
    for sample in samples:
        text = f"attune {sample.group or sample.name}" + (f" {seed}" if seed else "")
        place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32
        part = ("test" if place < TEST_SHARE else
                "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train")
        parts[part].append(sample)
    return parts


def write_split(path, parts):
    """One line per sample, with its class, group and part."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for part, samples in parts.items():
            rows.writerows([s.name, s.kind, s.group, part] for s in samples)


def read_split(path, samples):
    """The split that :func:`write_split` wrote, for the same samples.

    Samples that it does not list, and those it lists that are not there, are refused.
    """
    try:
        columns, lines = read_rows(path, "Split")
    except FileNotFoundError:
        raise InputError(f"No split at {str(path)!r}; training writes split.csv into its "
                         f"folder") from None
    if columns != COLUMNS:
        raise InputError(f"Split {str(path)!r} must begin with the line {','.join(COLUMNS)}; let "
                         f"training write it anew")
    rows = {line["name"]: line["part"] for line in lines}
    if len(rows) != len(lines):
        raise InputError(f"Split {str(path)!r} has a name twice; let training write it anew")
    known = {sample.name for sample in samples}
    for name in sorted(known ^ set(rows)):
        where = "data" if name in known else "split"
        raise InputError(f"Split {str(path)!r} is of other data: {name!r} is in the {where} "
                         f"alone; name the split that was written for this data")
    for name, part in rows.items():
        if part not in PARTS:
            raise InputError(f"Split {str(path)!r} puts {name!r} in {part!r}; parts are "
                             f"{', '.join(PARTS)}")
    parts = {part: [] for part in PARTS}
    for sample in samples:
        parts[rows[sample.name]].append(sample)
    groups = {}
    for part, members in parts.items():
        for sample in members:
            if sample.group and groups.setdefault(sample.group, part) != part:
                raise InputError(f"Split {str(path)!r} puts group {sample.group!r} both in "
                                 f"{groups[sample.group]} and in {part}; keep a group together")
    return parts
