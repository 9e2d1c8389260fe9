import re

import pytest

from golden.data import busi as reader
from golden.data import find, load
from golden.errors import InputError


def test_classes_groups_and_masks(busi):
    dataset = find(busi)
    assert dataset.layout == "BUSI"
    assert [s.kind for s in dataset.samples] == 3 * ["benign"] + 2 * ["malignant"] + ["normal"]
    assert [s.group for s in dataset.samples][:3] == ["benign/benign (1).png", "7", "7"]
    assert [len(s.masks) for s in dataset.samples] == [3, 1, 1, 1, 1, 1]
    assert dataset.notes == ()


def test_masks_are_merged(busi):
    frames = load(find(busi), 32)
    row = (frames.truth[0, 16] > 0).int()
    assert row.diff().ne(0).sum() == 5          # three stripes, the first on the edge
    assert row.sum() == 16
    assert not frames.truth[-1].any()
    assert frames.image.shape == (6, 1, 32, 32)
    assert frames.frame(0).shape == (3, 32, 32)


@pytest.mark.parametrize("place", ["", "Dataset_BUSI_with_GT"])
def test_without_an_index_groups_come_from_a_screen(busi, place):
    (busi / "index.csv").unlink()
    frames = load(find(busi / place), 32)
    assert [s.group for s in frames.samples] == [s.name for s in frames.samples]
    assert frames.notes == ("related groups come from a screen for near duplicates, which found 0",)


def test_only_images_on_disk_count(busi):
    place = busi / "Dataset_BUSI_with_GT" / "benign"
    for path in place.glob("benign (3)*"):
        path.unlink()
    dataset = reader.read(busi)
    assert len(dataset.samples) == 5
    assert dataset.notes == ("index.csv lists 1 more images, which are not there",)


def test_empty_class(busi):
    place = busi / "Dataset_BUSI_with_GT" / "normal"
    for path in place.iterdir():
        path.unlink()
    with pytest.raises(InputError, match=(
            f"^Class 'normal' is empty: no image in {re.escape(repr(str(place)))}; copy its images "
            f"there, or remove the folder$")):
        find(busi)
    place.rmdir()
    dataset = find(busi)
    assert dataset.notes == ("no class 'normal'", ("index.csv lists 1 more images, which are not "
                             "there"))


def test_index_without_groups(busi):
    (busi / "index.csv").write_text("name,kind\n")
    dataset = find(busi)
    assert dataset.notes == ("index.csv has no columns file, related_group; it is not used",)
    assert {s.group for s in dataset.samples} == {""}
