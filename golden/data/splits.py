"""Which images train, which choose, which test: by group, fixed by a seed, kept in a file."""

import csv
import hashlib

from golden.data.rows import read_rows
from golden.errors import InputError
from golden.names import PARTS

__all__ = ["PARTS", "check_fold", "check_folds", "read_split", "split", "write_split"]

# Shares of the groups, by hash: the rest is for training.
TEST_SHARE = 0.12
VALIDATION_SHARE = 0.08
VALIDATION_OF_REST = 0.1        # of what a fold does not test
MOST_FOLDS = 10
COLUMNS = ["name", "class", "group", "part"]


def split(samples, seed=0, path=None, fold=None):
    """Samples as a dictionary of ``train``, ``validation`` and ``test``.

    A group's part depends on its name and the seed alone, so that it stays when images come or go.
    With ``path`` the split is what :func:`write_split` wrote there. With ``fold``, number k from 1
    and how many, test is the k-th of that many shares: each group is in exactly one of them.
    """
    if path is not None:
        return read_split(path, samples)
    parts = {part: [] for part in PARTS}
    for sample in samples:
        parts[_part(sample.group or sample.name, seed, fold)].append(sample)
    return parts


def _part(group, seed, fold):
    place = _place(group, seed)
    if fold is None:
        return ("test" if place < TEST_SHARE else
                "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train")
    number, count = fold
    if int(place * count) == number - 1:
        return "test"
    return "validation" if _place(f"validation {group}", seed) < VALIDATION_OF_REST else "train"


def _place(name, seed):
    """A number from 0 to 1, without 1, that the name and the seed decide."""
    text = f"attune {name}" + (f" {seed}" if seed else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32


def check_fold(number, count):
    """``fold`` of :func:`split` from what a person gives; None for neither."""
    if not number and not count:
        return None
    if not number or not count:
        raise InputError("FOLDS and FOLD belong together, such as FOLDS=5 FOLD=1")
    check_folds(count)
    if not 1 <= number <= count:
        raise InputError(f"FOLD must be 1 to {count}, as there are FOLDS, not {number!r}")
    return number, count


def check_folds(count):
    """Refuse a number of folds that cannot be."""
    if not 2 <= count <= MOST_FOLDS:
        raise InputError(f"FOLDS must be 2 to {MOST_FOLDS}, not {count!r}")


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
