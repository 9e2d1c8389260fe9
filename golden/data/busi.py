"""BUSI, the breast ultrasound images of Al-Dhabyani et al. (2020), as published.

A folder ``Dataset_BUSI_with_GT`` with the classes ``benign``, ``malignant`` and ``normal``; beside
``NAME.png`` lie ``NAME_mask.png`` and at times ``NAME_mask_1.png``, which are merged. An
``index.csv`` with the columns ``file`` and ``related_group``, if there is one, names the images
that belong together; blank stands for none.
"""

import re

from golden.data.rows import read_rows
from golden.data.sample import Dataset, Sample, pictures
from golden.errors import InputError

__all__ = ["CLASSES", "home", "read"]

CLASSES = ("benign", "malignant", "normal")
MASK = re.compile(r"_mask(_\d+)?$")


def home(folder):
    """The folder that holds the classes, at or right below ``folder``; None if there is none."""
    for place in (folder / "Dataset_BUSI_with_GT", folder):
        if any((place / kind).is_dir() for kind in CLASSES):
            return place
    return None


def read(folder):
    """All images on disk, class by class."""
    place = home(folder)
    samples, notes = [], []
    groups = _groups(folder, place, notes)
    for kind in CLASSES:
        if not (place / kind).is_dir():
            notes.append(f"no class {kind!r}")
            continue
        paths = pictures(place / kind)
        images = [path for path in paths if not MASK.search(path.stem)]
        if not images:
            raise InputError(f"Class {kind!r} is empty: no image in {str(place / kind)!r}; copy "
                             f"its images there, or remove the folder")
        masks = {}
        for path in paths:
            if found := MASK.search(path.stem):
                masks.setdefault(path.stem[:found.start()], []).append(path)
        for path in images:
            name = f"{kind}/{path.name}"
            group = (groups.pop(name, "") or name) if groups is not None else ""
            samples.append(Sample(name, path, tuple(masks.get(path.stem, ())), kind, group))
    if groups:
        notes.append(f"index.csv lists {len(groups)} more images, which are not there")
    return Dataset(str(folder), "BUSI", tuple(samples), tuple(notes))


def _groups(folder, place, notes):
    """Related group of every file that ``index.csv`` lists; None if there is none to use."""
    for index in (folder / "index.csv", place.parent / "index.csv"):
        if index.is_file():
            columns, rows = read_rows(index)
            if not {"file", "related_group"} <= set(columns):
                notes.append("index.csv has no columns file, related_group; it is not used")
                return None
            return {row["file"]: row["related_group"] for row in rows}
    return None
