import os
import re

import pytest

from golden.data import find
from golden.errors import InputError


def refused(path, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        find(path)


def test_nothing_there(tmp_path):
    path = tmp_path / "none"
    refused(path, f"No data at {str(path)!r}; name a folder, a table (.csv), or phantom")


def test_one_file(tmp_path):
    path = tmp_path / "scan.png"
    path.touch()
    refused(path, f"{str(path)!r} is one file; name a folder, a table (.csv), or phantom")


def test_unknown_layout(tmp_path):
    (tmp_path / "pictures").mkdir()
    refused(tmp_path, f"No data set that is known in {str(tmp_path)!r}; expected "
                      f"Dataset_BUSI_with_GT with benign, malignant and normal, or images and "
                      f"masks, or ID/images and ID/masks")


def test_a_name_that_no_table_can_hold(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in (b"a.png", b"\xff.png"):
            (tmp_path / folder / os.fsdecode(name)).touch()
    refused(tmp_path, r"Image '\udcff.png' has a name that is not UTF-8; rename it")
