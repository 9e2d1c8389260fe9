import math
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


def test_columns_as_their_source_spells_them(table):
    dataset = find(table("FILE,MASK,LABEL\n./raw/normal/1.png,./raw/normal/1_mask.png,Normal\n"))
    (sample,) = dataset.samples
    assert (sample.name, sample.kind, len(sample.masks)) == ("./raw/normal/1.png", "Normal", 1)
    mixed = find(table("Label, file ,Mask,GROUP\ncyst,a.png,,g\n"))
    assert (mixed.samples[0].name, mixed.samples[0].kind, mixed.samples[0].group) == (
        "a.png", "cyst", "g")
    assert mixed.samples[0].masks == ()
    path = table("file,FILE,mask,label\na.png,b.png,,x\n")
    with pytest.raises(InputError, match=f"^Table {re.escape(repr(str(path)))} has two columns "
                                         f"'file'; keep one$"):
        find(path)


class DataFrame:
    """What there is of pandas' here: its columns in order, and its rows as dictionaries."""

    def __init__(self, rows):
        self.columns, self.rows = list(rows[0]) if rows else [], rows

    def to_dict(self, orient):
        assert orient == "records"
        return self.rows


def test_a_data_frame(save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "m.png"):
        save(tmp_path / name, np.full((16, 16), 255))
    dataset = find(DataFrame([{"FILE": "a.png", "MASK": "m.png", "LABEL": "benign"},
                              {"FILE": tmp_path / "b.png", "MASK": "m.png", "LABEL": math.nan}]))
    assert (dataset.source, dataset.layout) == ("DataFrame", "table")
    assert [sample.kind for sample in dataset.samples] == ["benign", ""]
    assert load(dataset, 16).truth.all()
    for rows, message in (
            ([{"file": "a.png", "label": "x"}],
             "DataFrame has no column 'mask'; its columns must be file, mask, label"),
            ([], "DataFrame has no column 'file'; its columns must be file, mask, label"),
            ([{"file": None, "mask": "m.png", "label": "x"}],
             "DataFrame has a row without a file; name one, or remove the row")):
        with pytest.raises(InputError, match=f"^{message}$"):
            find(DataFrame(rows))


def test_not_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match=r"is not comma-separated text \(.*\); export it as CSV "
                                         r"in UTF-8$"):
        find(path)
