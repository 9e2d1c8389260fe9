import re

import pytest
import torch
from PIL import Image

from golden import graph_file, models
from golden.data import find, load
from golden.data.clahe import clahe
from golden.export import calibration_images, main
from golden.images import read_image
from golden.integer import float_mask, run
from golden.metrics import binary
from golden.models import load_float, load_graph, seeded
from golden.quantize import quantize
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
    assert capsys.readouterr().out == (f"quantising {checkpoint} on 2 frames\n"
                                       f"{path}: {path.stat().st_size} bytes\n")
    assert list(path.parent.iterdir()) == [path]
    expected = torch.load(checkpoint, weights_only=True)["state_dict"]["final.bias"]
    assert torch.equal(load_float(width=2, size=32).final.bias, expected)
    assert load_graph(width=2, size=32).size == 32


def test_calibration_images_are_those_of_training():
    train = load(find("phantom:3"), 32)
    images = calibration_images(train, 32, count=6)
    assert all(torch.equal(images[i], train.frame(i)) for i in range(3))
    assert torch.equal(images[3], read_image("phantom:1000000", 32))
    assert len(images) == 6
    assert len(calibration_images(train, 32, count=8)) == 8     # three are not made four
    images = calibration_images(train, 32, count=2, with_phantoms=False)
    assert torch.equal(torch.stack(images), torch.stack([train.frame(0), train.frame(1)]))


def test_images_are_equalised_alike():
    train = load(find("phantom:2"), 32, equalise=True)
    images = calibration_images(train, 32, count=4, equalise=True)
    assert torch.equal(images[0], clahe(read_image("phantom:0", 32)))
    assert torch.equal(images[2], clahe(read_image("phantom:1000000", 32)))


def test_an_empty_calibration_set(checkpoint, tmp_path, capsys):
    assert main(["--checkpoint", str(checkpoint), "--images", "0"]) == 2
    assert capsys.readouterr().err == ("error: The calibration set is empty; give at least one "
                                       "image\n")
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_a_split_is_kept_to_and_may_leave_nothing(checkpoint, tmp_path, capsys):
    home, out = tmp_path / "data", tmp_path / "x.safetensors"
    for folder in ("images", "masks"):
        (home / folder).mkdir(parents=True)
        for name in ("a.png", "b.png"):
            Image.new("L", (32, 32)).save(home / folder / name)
    split = tmp_path / "split.csv"
    arguments = ["--checkpoint", str(checkpoint), "--size", "32", "--data", str(home), "--split",
                 str(split), "--images", "2", "--out", str(out)]
    split.write_text("name,class,group,part\na.png,nuclei,,test\nb.png,nuclei,,test\n")
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        "error: The train part of the data is empty, and calibration takes no other; give more "
        "images, or DATA=phantom\n")
    assert not out.exists()
    split.write_text("name,class,group,part\na.png,nuclei,,test\nb.png,nuclei,,train\n")
    assert main(arguments) == 0
    assert out.exists()


def test_another_network(checkpoint, capsys):
    assert main(["--checkpoint", str(checkpoint), "--model", "unet-busi"]) == 2
    assert capsys.readouterr().err == (
        f"error: Checkpoint {str(checkpoint)!r} is of elec4848 with width 2, not of unet-busi with "
        f"width 2; give MODEL=elec4848, or another checkpoint\n")


def test_where_scales_end_is_asked_for(tmp_path, capsys):
    """Unless told at the extremes. Shipped weights go by name, to be quantised anew."""
    arguments = ["--checkpoint", "elec4848-8", "--size", "32", "--images", "2", "--out"]
    images, found = calibration_images(None, 32, count=2), {}
    for clipping, more in (("min-max", []), ("percentile", ["--clipping", "percentile"])):
        path = tmp_path / f"{clipping}.safetensors"
        assert main([*arguments, str(path), *more]) == 0
        found[clipping] = graph_file.load(path)[0]
        assert found[clipping].tensors == quantize(load_float(width=8, size=32), images,
                                                   clipping=clipping).tensors
    assert found["percentile"].tensors["e1a"].scale < found["min-max"].tensors["e1a"].scale
    for graph in found.values():
        assert torch.equal(graph.layer("e1a").weight, load_graph(width=8).layer("e1a").weight)
    capsys.readouterr()
    assert main([*arguments, str(path), "--clipping", "none"]) == 2
    assert "--clipping" in capsys.readouterr().err


def test_a_temperature_is_part_of_the_file(checkpoint, tmp_path, capsys):
    arguments = ["--checkpoint", str(checkpoint), "--size", "32", "--images", "2"]
    biases, masks = [], []
    for i, more in enumerate(([], ["--temperature", "2"], ["--temperature", "fit"])):
        assert main([*arguments, "--out", str(tmp_path / f"{i}.safetensors"), *more]) == 0
        graph, extra = graph_file.load(tmp_path / f"{i}.safetensors")
        biases.append(float(extra["logit.float_bias"]))
        masks.append(binary(float_mask(graph, run(graph, read_image("phantom:3", 32)))))
    found = re.search(r"^temperature (\d+\.\d{4}) fits 32 validation images$",
                      capsys.readouterr().out, re.M)
    assert biases[1] == biases[0] / 2
    assert biases[2] == pytest.approx(biases[0] / float(found[1]), rel=1e-3)
    assert (masks[0] == masks[1]).float().mean() > 0.98
    assert main([*arguments, "--temperature", "warm"]) == 2
    assert capsys.readouterr().err == ("error: TEMPERATURE must be fit or a number above 0, not "
                                       "'warm'\n")
