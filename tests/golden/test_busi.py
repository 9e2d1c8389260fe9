import re

import numpy as np
import pytest
from PIL import Image

from golden import busi
from golden.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """Forty images in twenty groups, and one on its own with three masks."""
    home = tmp_path / "a copy (of BUSI)"
    images = home / "Dataset_BUSI_with_GT" / "benign"
    images.mkdir(parents=True)
    rows = ["file,class,related_group"]
    rows += [f"benign/benign ({i}).png,benign,{i // 2}" for i in range(40)]
    rows += ["benign/benign (195).png,benign,"]
    (home / "index.csv").write_text("\n".join(rows) + "\n")
    Image.fromarray(np.full((20, 30), 90, np.uint8)).save(images / "benign (195).png")
    for k, suffix in enumerate(["", "_1", "_2"]):
        mask = np.zeros((20, 30), np.uint8)
        mask[:, 10 * k:10 * k + 5] = 255
        Image.fromarray(mask).save(images / f"benign (195)_mask{suffix}.png")
    return home


def test_related_images_stay_together(folder):
    parts = busi.split(folder)
    assert sum(len(part) for part in parts.values()) == 41
    groups = [{record.group for record in part} for part in parts.values()]
    assert sum(len(g) for g in groups) == len(set.union(*groups)) == 21
    assert parts == busi.split(folder)
    assert parts["train"]
    assert parts["test"]


def test_masks_are_merged(folder):
    record = busi.records(folder)[-1]
    assert record.group == "benign/benign (195).png"
    image, truth = busi.read_pair(folder, record, 16)
    assert image.unique().tolist() == [90]
    row = (truth[0] > 0).int()
    assert row.diff().ne(0).sum() == 5          # three stripes, the first on the edge
    assert row.sum() == 8


def test_missing_mask(folder):
    record = busi.records(folder)[0]
    path = folder / "Dataset_BUSI_with_GT" / record.file
    with pytest.raises(InputError, match=re.escape(
            f"No mask beside {str(path)!r}; expected 'benign (0)_mask.png'")):
        busi.read_pair(folder, record, 16)


def test_missing_index(tmp_path):
    with pytest.raises(InputError, match=(
            f"^No file {re.escape(repr(str(tmp_path / 'index.csv')))}; name the folder that holds "
            f"BUSI's index.csv$")):
        busi.records(tmp_path)
