import re

import numpy as np
import pytest
import torch
from PIL import Image

from golden.data import find, load
from golden.errors import InputError


@pytest.fixture
def place(busi):
    return busi / "Dataset_BUSI_with_GT" / "benign"


def check_broken(busi, name, reason):
    """The pair is refused by name, or left out by name."""
    with pytest.raises(InputError, match="^" + re.escape(
            f"1 of 6 pairs in {str(busi)!r} are broken: {name}: {reason}. Repair them, or leave "
            f"them out with SKIP=1") + "$"):
        load(find(busi), 32)
    frames = load(find(busi), 32, skip=True)
    assert len(frames) == len(frames.image) == len(frames.truth) == 5
    assert frames.broken == (f"{name}: {reason}",)


def test_missing_mask(busi, place):
    (place / "benign (2)_mask.png").unlink()
    check_broken(busi, "benign/benign (2).png", "no mask belongs to it")


def test_mask_of_another_size(busi, place, save):
    mask = save(place / "benign (2)_mask.png", np.zeros((21, 30)))
    check_broken(busi, "benign/benign (2).png",
                 f"mask {str(mask)!r} has 30 x 21 pixels, its image 30 x 20")


def test_corrupt_image(busi, place):
    path = place / "benign (2).png"
    path.write_bytes(b"no picture")
    check_broken(busi, "benign/benign (2).png",
                 f"File {str(path)!r} is not a usable PNG, JPEG or BMP image; convert it to PNG")


def test_cut_mask(busi, place):
    path = place / "benign (2)_mask.png"
    path.write_bytes(path.read_bytes()[:60])
    frames = load(find(busi), 32, skip=True)
    assert len(frames.broken) == 1
    assert frames.broken[0].startswith(f"benign/benign (2).png: Image {str(path)!r} cannot be "
                                       f"decoded (")


def test_many_are_counted_and_three_named(busi):
    for path in (busi / "Dataset_BUSI_with_GT").glob("*/*_mask.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"^6 of 6 pairs in .* and 3 more\. Repair them, or leave "
                                         r"them out with SKIP=1$"):
        load(find(busi), 32)
    with pytest.raises(InputError, match=r"^All 6 pairs in .* are broken; the first: benign/benig"):
        load(find(busi), 32, skip=True)


def test_16_bits_and_alpha_are_read(busi, place):
    grey = np.full((20, 30), 100 * 257, np.uint16)
    Image.fromarray(grey).save(place / "benign (2).png")
    rgba = np.full((20, 30, 4), (50, 100, 150, 255), np.uint8)
    Image.fromarray(rgba).save(place / "benign (3).png")
    frames = load(find(busi), 32)
    assert frames.image.shape[1] == 3
    assert frames.frame(1).unique().tolist() == [100]
    assert frames.frame(2)[:, 0, 0].tolist() == [50, 100, 150]


def test_pick_keeps_pairs_together(busi):
    frames = load(find(busi), 32)
    picked = frames.pick([frames.samples[4], frames.samples[0]])
    assert [s.name for s in picked.samples] == [frames.samples[4].name, frames.samples[0].name]
    assert torch.equal(picked.image, frames.image[[4, 0]])
    assert torch.equal(picked.truth, frames.truth[[4, 0]])
    assert picked.kinds == ["benign", "malignant"]


def test_equalised_and_counted(busi):
    calls = []
    plain = load(find(busi), 32, advance=lambda: calls.append(1))
    assert len(calls) == 6
    assert not torch.equal(load(find(busi), 32, equalise=True).image, plain.image)
