import re

import numpy as np
import pytest

from golden.data import find, load
from golden.errors import InputError


@pytest.fixture
def table(tmp_path):
    def table(text):
        path = tmp_path / "my table.csv"
        path.write_text(text)
        return path

    return table


def test_rows(table, tmp_path, save):
    save(tmp_path / "scans/one.png", np.full((16, 16), 9))
    for k in (0, 8):
        mask = np.zeros((16, 16))
        mask[k] = 255
        save(tmp_path / f"{k}.png", mask)
    dataset = find(table("\ufefffile,mask,label,group\nscans/one.png,0.png; 8.png,cyst,g\n"))
    assert dataset.layout == "table"
    assert (dataset.samples[0].kind, dataset.samples[0].group) == ("cyst", "g")
    frames = load(dataset, 16)
    assert (frames.truth[0, :, 3] > 0).nonzero().flatten().tolist() == [0, 8]


@pytest.mark.parametrize("text, message", [
    ("file,label\na.png,x\n",
     "Table {} has no column 'mask'; its first line must be file,mask,label"),
    ("", "Table {} has no column 'file'; its first line must be file,mask,label"),
    ("file,mask,label\n", "Table {} lists no image; add a line per image"),
    ("file,mask,label\na.png,b.png,\na.png,c.png,\n",
     "Table {} lists 'a.png' more than once; keep one line, with all its masks separated by ';'"),
])
def test_refused(table, text, message):
    path = table(text)
    with pytest.raises(InputError, match=f"^{re.escape(message.format(repr(str(path))))}$"):
        find(path)


def test_not_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match=r"is not comma-separated text \(.*\); export it as CSV "
                                         r"in UTF-8$"):
        find(path)
