"""Files of integer graphs that are damaged, or hold what cannot be."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from golden import models
from golden.arbitrary import arbitrary_graph
from golden.errors import InputError
from golden.graph_file import load, save

TAKE = "take the file from the repository again, or export it anew"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "weights.safetensors"
    save(arbitrary_graph(1, depth=1, widths=(3, 6), largest_side=12), path)
    return path


def change(path, spoil):
    """Let ``spoil`` change the description and the arrays of a file."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["attune"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    spoil(header, arrays)
    save_file(arrays, path, {"attune": json.dumps(header)})


def refused(path, text):
    with pytest.raises(InputError, match=f"^Weights {re.escape(repr(str(path)))} cannot be used "
                                         f"\\({text}\\); {TAKE}$"):
        load(path)


def convolution(header):
    return next(layer for layer in header["layers"] if layer["kind"] == "Conv")


def bounded(header, arrays, *, low=0, floor, ceiling):
    layer = convolution(header)
    layer.update(low=low, high=255)
    arrays.update({f"{layer['name']}.floor": floor, f"{layer['name']}.ceiling": ceiling})


@pytest.mark.parametrize("spoil, text", [
    (lambda h, a: h["layers"][1].update(kind="Magic"), "there are no layers of kind 'Magic'"),
    (lambda h, a: convolution(h).pop("stride"), "a description lacks 'stride'"),
    (lambda h, a: convolution(h).update(stride="2"), "'stride' is '2'"),
    (lambda h, a: convolution(h).update(padding=[1, 1]), r"'padding' is '\[1, 1\]'"),
    (lambda h, a: convolution(h).update(low=200, high=100), "bounds of layer '.*' are 200 and 100"),
    (lambda h, a: h["tensors"][1].update(scale=0.0),
     "tensor '.*' has no usable scale or zero point"),
    (lambda h, a: h["tensors"][1].update(height=7777),
     "tensor '.*' has shape .*x7777x.*, and its layer makes .*"),
    (lambda h, a: h.update(tensors=7), "'tensors' is '7'"),
    (lambda h, a: a.pop(f"{convolution(h)['name']}.bias"), "it lacks '.*bias'"),
    (lambda h, a: a.update({f"{convolution(h)['name']}.shift": torch.zeros(1)}),
     "shift of layer '.*' is torch.float32, not torch.uint8"),
    (lambda h, a: a.update({f"{convolution(h)['name']}.floor": torch.zeros(3).byte()}),
     "Conv '.*': floor and ceiling come together"),
    (lambda h, a: bounded(h, a, floor=torch.zeros(1), ceiling=torch.ones(1)),
     "floor of layer '.*' is torch.float32, not torch.uint8"),
    (lambda h, a: bounded(h, a, floor=torch.zeros(1).byte(), ceiling=torch.ones(1).byte()),
     r"floor of layer '.*' has shape \(1,\)"),
    (lambda h, a: bounded(h, a, floor=torch.ones(1).byte(), ceiling=torch.ones(1).byte()),
     "Conv '.*': a channel has a floor or a ceiling, not both"),
    (lambda h, a: bounded(h, a, low=3, floor=torch.ones(1).byte(),
                          ceiling=torch.full((1,), 255).byte()),
     "Conv '.*': bounds of channels take the place of 3 and 255"),
])
def test_what_no_graph_has(path, spoil, text):
    change(path, spoil)
    refused(path, text)


def test_no_such_file(path):
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "Error while deserializing header: .*")
    save_file({}, path)
    refused(path, "it has 'None' where a description belongs")
    with pytest.raises(InputError, match="^No weights at 'none'; `make export` writes some$"):
        load("none")


def test_weights_of_another_network(tmp_path, path, monkeypatch):
    monkeypatch.setattr(models, "WEIGHTS", tmp_path)
    path.rename(tmp_path / "elec4848-4.safetensors")
    with pytest.raises(InputError, match="^The file of weights has no convolution 'e1a' of shape "
                                         r"\(4, 3, 3, 3\): it is of another network than elec4848 "
                                         "of width 4$"):
        models.load_float("elec4848", 16, 4)
