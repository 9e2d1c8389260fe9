import re

import pytest
import torch
from PIL import Image

from golden import models
from golden.errors import InputError
from golden.export import calibration_images, export, main
from golden.images import read_image
from golden.models import load_float, load_graph, seeded
from golden.training import save_checkpoint


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "best.pt"
    save_checkpoint(path, seeded("elec4848", 2))
    return path


def test_a_checkpoint_becomes_the_weights_that_models_find(checkpoint, tmp_path, monkeypatch,
                                                           capsys):
    monkeypatch.setattr(models, "WEIGHTS", tmp_path / "weights")
    assert main(["--checkpoint", str(checkpoint), "--size", "32", "--images", "2"]) == 0
    path = tmp_path / "weights" / "elec4848-2.safetensors"
    assert capsys.readouterr().out == (f"{path}: {path.stat().st_size} bytes, calibrated on 2 "
                                       f"images\n")
    assert list(path.parent.iterdir()) == [path]
    expected = torch.load(checkpoint, weights_only=True)["state_dict"]["final.bias"]
    assert torch.equal(load_float(width=2, size=32).final.bias, expected)
    assert load_graph(width=2, size=32).size == 32


def test_calibration_images_are_those_of_training():
    images = calibration_images("phantom:3", 32, count=2)
    assert torch.equal(images[0], read_image("phantom:1000000", 32))
    assert len(images) == 2


def test_an_empty_calibration_set(checkpoint, tmp_path, capsys):
    message = "The calibration set is empty; give at least one image"
    with pytest.raises(InputError, match=f"^{message}$"):
        export(checkpoint, [], tmp_path / "x.safetensors")
    assert main(["--checkpoint", str(checkpoint), "--images", "0"]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_no_image_for_training(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    # The name lands in the test part of the split.
    for folder in ("images", "masks"):
        Image.new("L", (16, 16)).save(tmp_path / folder / "12.png")
    with pytest.raises(InputError, match=(
            f"^No image of {re.escape(repr(str(tmp_path)))} falls into the training part; give "
            f"more images$")):
        calibration_images(str(tmp_path), 16)


def test_another_network(checkpoint, capsys):
    assert main(["--checkpoint", str(checkpoint), "--model", "unet-busi"]) == 2
    assert capsys.readouterr().err == (
        f"error: Checkpoint {str(checkpoint)!r} is of elec4848 with width 2, not of unet-busi with "
        f"width 2; give MODEL=elec4848, or another checkpoint\n")
