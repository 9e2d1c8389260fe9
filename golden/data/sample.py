"""What every data set is made of."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Dataset", "Sample", "pictures"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


@dataclass(frozen=True)
class Sample:
    """One image: a name that is unique in its data set, its masks (any pixel of any), its class.

    Samples of one ``group`` show the same scene and never land on two sides of a split; blank:
    not known. A phantom is its own image and mask.
    """
    name: str
    image: Path | str
    masks: tuple[Path | str, ...]
    kind: str
    group: str = ""


@dataclass(frozen=True)
class Dataset:
    """Samples in a fixed order, where they come from, and what a person should know of them."""
    source: str
    layout: str
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()


def pictures(folder):
    """Image files of a folder, sorted by name."""
    return sorted(path for path in folder.iterdir()
                  if path.suffix.lower() in SUFFIXES and path.is_file())
