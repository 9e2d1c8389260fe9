import re

import pytest

from golden.data import Sample, check_fold, read_split, split, write_split
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


def test_every_group_is_tested_in_exactly_one_fold():
    folds = [split(SAMPLES, fold=(number, 5)) for number in range(1, 6)]
    for parts in folds:
        groups = [{s.group for s in part} for part in parts.values()]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 100
        assert 0.1 < len(parts["test"]) / 200 < 0.3
        assert 0.02 < len(parts["validation"]) / 200 < 0.2
    tested = [s.name for parts in folds for s in parts["test"]]
    assert sorted(tested) == sorted(s.name for s in SAMPLES)
    assert split(SAMPLES, 1, fold=(1, 5))["test"] != folds[0]["test"]
    validated = [s.name for parts in folds for s in parts["validation"]]
    assert len(set(validated)) < len(validated)     # the same ones in most folds


@pytest.mark.parametrize("number, count, message", [
    (0, 5, "FOLDS and FOLD belong together, such as FOLDS=5 FOLD=1"),
    (1, 0, "FOLDS and FOLD belong together, such as FOLDS=5 FOLD=1"),
    (6, 5, "FOLD must be 1 to 5, as there are FOLDS, not 6"),
    (-1, 5, "FOLD must be 1 to 5, as there are FOLDS, not -1"),
    (1, 1, "FOLDS must be 2 to 10, not 1"),
    (1, 11, "FOLDS must be 2 to 10, not 11"),
])
def test_folds_that_cannot_be(number, count, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        check_fold(number, count)


def test_a_fold_or_none():
    assert check_fold(0, 0) is None
    assert check_fold(2, 5) == (2, 5)
