import re

import numpy as np
import pytest
import torch

from golden.data import find, load
from golden.errors import InputError


def stripe(first):
    mask = np.zeros((16, 16))
    mask[:, first:first + 4] = 255
    return mask


def test_flat(tmp_path, save):
    for name in ("b", "a"):
        save(tmp_path / "images" / f"{name}.png", np.full((16, 16, 3), (10, 20, 30)))
        save(tmp_path / "masks" / f"{name}{'_mask' if name == 'a' else ''}.png", stripe(4))
    (tmp_path / "index.csv").write_text("file,type\na.png,colour\n")
    dataset = find(tmp_path)
    assert dataset.layout == "DSB2018, flat"
    assert [(s.name, s.kind) for s in dataset.samples] == [("a.png", "colour"), ("b.png", "nuclei")]
    frames = load(dataset, 16)
    assert frames.image[0, :, 0, 0].tolist() == [10, 20, 30]
    assert torch.equal(frames.truth[0], frames.truth[1])
    assert (frames.truth[1, 0] > 0).nonzero().flatten().tolist() == [4, 5, 6, 7]


def test_a_folder_per_image(tmp_path, save):
    save(tmp_path / "x" / "images" / "x.png", np.zeros((16, 16)))
    save(tmp_path / "x" / "masks" / "1.png", stripe(0))
    save(tmp_path / "x" / "masks" / "2.png", stripe(8))
    dataset = find(tmp_path)
    assert dataset.layout == "DSB2018, a folder per image"
    frames = load(dataset, 16)
    assert frames.samples[0].name == "x/x.png"
    assert (frames.truth[0, 0] > 0).nonzero().flatten().tolist() == [0, 1, 2, 3, 8, 9, 10, 11]


@pytest.mark.parametrize("folders, layout", [
    (("images", "masks"), "DSB2018, flat"), (("x/images",), "DSB2018, a folder per image")])
def test_no_image(tmp_path, folders, layout):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(InputError, match=(
            f"^No image in {re.escape(repr(str(tmp_path)))}, though it is laid out as {layout}; "
            f"copy the images there$")):
        find(tmp_path)
