import pytest
import torch

from golden import models
from golden.errors import InputError
from golden.images import read_image, read_truth
from golden.integer import float_mask, load, run
from golden.metrics import binary, dice, iou, pixel_agreement
from golden.models import convolutions, is_trained, load_float, load_graph, save_trained, seeded
from golden.quantize import input_factors, quantize, weight_steps


def test_unknown_model():
    for door in (load_graph, load_float):
        with pytest.raises(InputError, match="^No model 'elec4849'; known: elec4848$"):
            door("elec4849")


def test_sizes_share_weights():
    small, large = load_graph(size=32, width=2), load_graph(size=64, width=2)
    assert small.layers is large.layers
    assert (small.size, large.size) == (32, 64)


def test_size_is_checked():
    with pytest.raises(InputError, match="^Frame size must be a positive multiple of 16, not 40; "
                                         "try 32$"):
        load_graph(size=40, width=2)


def test_seeded_weights_are_the_same_every_time():
    a, b = seeded("elec4848", 2).state_dict(), seeded("elec4848", 2).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not is_trained(width=2)


def test_seeded_masks_have_both_sides():
    graph = load_graph(size=64, width=2)
    mask = run(graph, read_image("phantom:3", 64))["mask"]
    assert 0.02 < (mask >= 128).float().mean() < 0.98


@torch.no_grad()
def test_trained_weights_come_back_on_the_int8_grid(tmp_path, monkeypatch):
    network = seeded("elec4848", 2)
    image = read_image("phantom:1", 32)
    graph = quantize(network, [image])
    monkeypatch.setattr(models, "WEIGHTS", tmp_path)
    save_trained(models.weights_path("elec4848", 2), graph, network)
    assert is_trained(width=2)
    again = load_float(size=32, width=2)
    old, new = convolutions(network), convolutions(again)
    for name, conv in old.items():
        step_O = weight_steps(graph, name, conv)
        factor_I = input_factors(graph, graph.layer(name))
        half_step_OI11 = (step_O[:, None] * factor_I)[..., None, None] / 2
        assert ((conv.weight - new[name].weight).abs() <= 1.001 * half_step_OI11).all(), name
        assert torch.equal(conv.bias, new[name].bias)
    for a, b in zip(network.gates, again.gates, strict=True):
        assert all(torch.equal(x, b.norm.state_dict()[key])
                   for key, x in a.norm.state_dict().items())
    # Quantising what came back, on the same frame, finds the same weights.
    twice = quantize(again, [image])
    stored, _ = load(models.weights_path("elec4848", 2))
    for name in ("e1a", "c3", "g2_down", "logit"):
        assert torch.equal(twice.layer(name).weight, stored.layer(name).weight)
    assert torch.allclose(again.segment(image), network.segment(image), atol=0.1)


@pytest.mark.parametrize(("width", "size"), [(32, 256), (8, 128)])
def test_trained_masks_find_the_lesion(width, size):
    assert is_trained(width=width)
    graph, network = load_graph(size=size, width=width), load_float(size=size, width=width)
    image, truth = read_image("phantom:0", size), read_truth("phantom:0", size) > 0
    mask, reference = binary(float_mask(graph, run(graph, image))), binary(network.segment(image))
    assert dice(mask, truth) > 0.85
    assert iou(mask, reference) > 0.95
    assert pixel_agreement(mask, reference) > 0.995
