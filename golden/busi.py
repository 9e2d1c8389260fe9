"""BUSI, the breast ultrasound images of Al-Dhabyani et al. (2020), read from a given folder.

The folder holds ``index.csv`` and ``Dataset_BUSI_with_GT``. Images of one scan share a
``related_group`` and never land on two sides of the split.
"""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from golden.errors import InputError
from golden.images import read_image, read_truth

__all__ = ["Record", "read_pair", "records", "split"]

# Shares of the groups, by hash: the rest is for training.
TEST_SHARE = 0.12
VALIDATION_SHARE = 0.08


@dataclass(frozen=True)
class Record:
    """One image: its file below the data set's folder, its class, and the group it belongs to."""
    file: str
    kind: str
    group: str


def records(folder):
    """All images that ``index.csv`` lists, in its order."""
    index = Path(folder) / "index.csv"
    if not index.is_file():
        raise InputError(f"No file {str(index)!r}; name the folder that holds BUSI's index.csv")
    with index.open(newline="") as file:
        return tuple(Record(row["file"], row["class"], row["related_group"] or row["file"])
                     for row in csv.DictReader(file))


def split(folder):
    """Records as a dictionary of ``train``, ``validation`` and ``test``; the same every time."""
    parts = {"train": [], "validation": [], "test": []}
    for record in records(folder):
        digest = hashlib.sha256(f"attune {record.group}".encode()).digest()
        place = int.from_bytes(digest[:4]) / 2**32
        name = ("test" if place < TEST_SHARE else
                "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train")
        parts[name].append(record)
    return parts


def read_pair(folder, record, size):
    """Frame (3 x size x size) and the union of its masks (size x size, 0 or 255), uint8."""
    path = Path(folder) / "Dataset_BUSI_with_GT" / record.file
    masks = sorted(path.parent.glob(f"{_escape(path.stem)}_mask*.png"))
    if not masks:
        raise InputError(f"No mask beside {str(path)!r}; expected '{path.stem}_mask.png'")
    truth_HW = torch.zeros(size, size, dtype=torch.uint8)
    for mask in masks:
        truth_HW |= read_truth(mask, size)
    return read_image(path, size), truth_HW


def _escape(stem):
    return "".join(f"[{c}]" if c in "*?[" else c for c in stem)
