"""Images with their truth, from folders as published, tables or phantoms, and how they are split.
"""

from golden.data.frames import Frames, load
from golden.data.sample import Dataset, Sample
from golden.data.source import find
from golden.data.splits import (
    PARTS,
    check_fold,
    check_folds,
    read_split,
    split,
    write_split,
)

__all__ = ["PARTS", "Dataset", "Frames", "Sample", "check_fold", "check_folds", "find", "load",
           "read_split", "split", "write_split"]
