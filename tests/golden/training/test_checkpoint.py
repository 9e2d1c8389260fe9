import os
import re

import pytest
import torch

from golden.errors import InputError
from golden.models import load_float, seeded
from golden.training import load_checkpoint, save_checkpoint
from golden.training.checkpoint import read_checkpoint


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "a folder" / "best.pt"
    save_checkpoint(path, seeded("unet-busi", 2))
    return path


def test_there_and_back(checkpoint):
    network = load_checkpoint(checkpoint, "unet-busi", 2, size=64)
    assert (network.name, network.width, network.size) == ("unet-busi", 2, 64)
    assert not network.training
    state = seeded("unet-busi", 2).state_dict()
    assert all(torch.equal(x, state[name]) for name, x in network.state_dict().items())
    assert [path.name for path in checkpoint.parent.iterdir()] == ["best.pt"]


def refused(message, *arguments, function=load_checkpoint):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        function(*arguments)


def test_of_another_network(checkpoint):
    refused(f"Checkpoint {str(checkpoint)!r} is of unet-busi with width 2, not of elec4848 with "
            f"width 2; give MODEL=unet-busi, or another checkpoint", checkpoint, "elec4848")
    refused(f"Checkpoint {str(checkpoint)!r} is of unet-busi with width 2, not of unet-busi with "
            f"width 32; give WIDTH=2, or another checkpoint", checkpoint, "unet-busi", 32)


def test_missing(tmp_path):
    path = tmp_path / "none.pt"
    refused(f"No checkpoint at {str(path)!r}; training writes best.pt and last.pt into its folder; "
            f"shipped weights go by name, like elec4848-32", path)


def test_shipped_weights_go_by_name():
    network = load_checkpoint("elec4848-8", "elec4848", 8, size=32)
    assert (network.name, network.width, network.size) == ("elec4848", 8, 32)
    state = load_float("elec4848", width=8).state_dict()
    assert all(torch.equal(x, state[name]) for name, x in network.state_dict().items())
    refused("Checkpoint 'elec4848-8' is of elec4848 with width 8, not of elec4848 with width 32; "
            "give WIDTH=8, or another checkpoint", "elec4848-8", "elec4848", 32)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\3\4 cut short"])
def test_not_a_checkpoint(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    refused(f"File {str(path)!r} is not a checkpoint with model, width, size, state_dict; name one "
            f"that training wrote", path)


def test_a_checkpoint_cannot_run_code(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"model": print, "width": 2, "size": 64, "state_dict": {}}, path)
    refused(f"File {str(path)!r} is not a checkpoint with model, width, size, state_dict; name one "
            f"that training wrote", path)


def test_unknown_network_and_weights_that_do_not_fit(tmp_path):
    path = tmp_path / "x.pt"
    content = {"model": "resnet", "width": 2, "size": 64, "state_dict": {}}
    torch.save(content, path)
    refused(f"Checkpoint {str(path)!r} is of 'resnet', which is not known; known: elec4848, "
            f"elec4848-ds, elec4848-ds-published, elec4848-classes, unet-busi, attunet-nuclei, "
            f"attunet-ct, teacher", path,
            function=read_checkpoint)
    torch.save({**content, "model": "unet-busi"}, path)
    refused(f"Checkpoint {str(path)!r} does not fit unet-busi: 'decoder.0.a.weight' is missing; "
            f"name one that training wrote", path)


def changed(checkpoint, **values):
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"].update(values.pop("state", {}))
    torch.save({**content, **values}, checkpoint)


NOT_FINITE = "is not all finite numbers; take one from before training diverged"
NO_ARRAY = "is no array of shape (1,); name one that training wrote"


@pytest.mark.parametrize("value, text", [
    (torch.tensor([float("nan")]), NOT_FINITE),
    (torch.tensor([1e300], dtype=torch.float64), NOT_FINITE),
    (torch.zeros(1, dtype=torch.complex64), NOT_FINITE),
    (torch.zeros(1).expand(1 << 40), NO_ARRAY),
    (None, NO_ARRAY),
])
def test_weights_that_no_network_has(checkpoint, value, text):
    """They were loaded, and every mask was empty."""
    changed(checkpoint, state={"final.bias": value})
    refused(f"Checkpoint {str(checkpoint)!r} does not fit unet-busi: 'final.bias' {text}",
            checkpoint)


def test_weights_of_more(checkpoint):
    changed(checkpoint, state={"more": torch.zeros(1)})
    refused(f"Checkpoint {str(checkpoint)!r} does not fit unet-busi: 'more' is too much; name one "
            f"that training wrote", checkpoint)


@pytest.mark.parametrize("name, value, shown, most", [
    ("width", 1 << 40, str(1 << 40), 1024), ("width", "2", "2", 1024),
    ("width", True, "True", 1024),
    ("size", 0, "0", 16384), ("size", None, "None", 16384)])
def test_impossible_shape(checkpoint, name, value, shown, most):
    """Memory for such a network was asked for."""
    changed(checkpoint, **{name: value})
    refused(f"Checkpoint {str(checkpoint)!r} has {name} {shown!r}, which must be 1 to {most}; name "
            f"one that training wrote", checkpoint)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.pt")
    refused(f"{str(tmp_path / 'x.pt')!r} is a pipe or a device; name a file", tmp_path / "x.pt")
