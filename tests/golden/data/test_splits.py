import re

import pytest

from golden.data import Sample, read_split, split, write_split
from golden.errors import InputError

SAMPLES = [Sample(f"{i}.png", f"{i}.png", (), "benign", f"group {i // 2}") for i in range(200)]


def test_groups_stay_together_and_shares_are_met():
    parts = split(SAMPLES)
    assert sum(map(len, parts.values())) == 200
    groups = [{s.group for s in part} for part in parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 100
    assert 0.6 < len(parts["train"]) / 200 < 0.95
    assert parts["validation"] and parts["test"]


def test_fixed_by_seed():
    assert split(SAMPLES) == split(SAMPLES)
    assert split(SAMPLES, 1) != split(SAMPLES)


def test_a_part_does_not_depend_on_the_other_images():
    test = {s.name for s in split(SAMPLES)["test"]}
    half = {s.name for s in split(SAMPLES[:100])["test"]}
    assert half == {name for name in test if int(name[:-4]) < 100}


def test_written_and_read_back(tmp_path):
    path = tmp_path / "split.csv"
    parts = split(SAMPLES, 3)
    write_split(path, parts)
    assert path.read_text().startswith("name,class,group,part\n")
    assert read_split(path, SAMPLES) == parts


@pytest.mark.parametrize("change, message", [
    (lambda t: t.replace("name,class", "file,class"),
     "Split {} must begin with the line name,class,group,part; let training write it anew"),
    (lambda t: t.replace("7.png,benign,group 3,train\n", ""),
     ("Split {} is of other data: '7.png' is in the data alone; name the split that was written "
     "for this data")),
    (lambda t: t + "x.png,benign,,test\n",
     ("Split {} is of other data: 'x.png' is in the split alone; name the split that was written "
     "for this data")),
    (lambda t: t.replace("7.png,benign,group 3,train", "7.png,benign,group 3,rest"),
     "Split {} puts '7.png' in 'rest'; parts are train, validation, test"),
    (lambda t: t.replace("7.png,benign,group 3,train", "7.png,benign,group 3,test"),
     "Split {} puts group 'group 3' both in train and in test; keep a group together"),
])
def test_refused(tmp_path, change, message):
    path = tmp_path / "split.csv"
    path.write_text(change("name,class,group,part\n6.png,benign,group 3,train\n"
                           "7.png,benign,group 3,train\n"))
    with pytest.raises(InputError, match=f"^{re.escape(message.format(repr(str(path))))}$"):
        read_split(path, SAMPLES[6:8])


def test_missing(tmp_path):
    path = tmp_path / "none.csv"
    with pytest.raises(InputError, match=(f"^No split at {re.escape(repr(str(path)))}; training "
                                          f"writes split.csv into its folder$")):
        read_split(path, SAMPLES)
