import dataclasses

import pytest
import torch
import torch.nn.functional as F

from golden.classes import lesion_logit
from golden.fake_quantise import FakeQuantised
from golden.folding import channel_factors
from golden.images import read_image
from golden.integer import float_mask, run
from golden.models import MODELS, seeded
from golden.plan import plan
from golden.quantize import quantize

CASES = [*((model, False) for model in MODELS), ("elec4848", True)]


def both(model, equalise=False):
    """A small network and its graph."""
    network = seeded(model, 4)
    images = [read_image(f"phantom:{seed}", 32) for seed in range(3)]
    return network, quantize(network, images, equalise=equalise)


def real(graph, name, stored_CHW):
    """What stored integers stand for in the float network."""
    t, k_C11 = graph.tensors[name], channel_factors(graph, name)[:, None, None]
    return (t.scale * (stored_CHW.double() - t.zero_point) / k_C11).float()[None]


def stored(graph, name, real_1CHW):
    """The integers that real values on the grid are."""
    t, k_C11 = graph.tensors[name], channel_factors(graph, name)[:, None, None]
    q_CHW = real_1CHW[0].double() * k_C11 / t.scale + t.zero_point
    assert (q_CHW - q_CHW.round()).abs().max() < 1e-3, name
    return q_CHW.round()


@pytest.mark.parametrize("model, equalise", CASES)
@torch.no_grad()
def test_every_tensor_is_the_graphs(model, equalise):
    """Of the graph's own inputs a layer makes the graph's tensor, but for values on the edge
    between two steps. Of the frame alone the mask is nearer the graph's than the float network's
    is, though seeded weights make much of every step.
    """
    network, graph = both(model, equalise)
    image = read_image("phantom:11", 32)
    fake, exact = FakeQuantised(network, graph), run(graph, image)
    for step in plan(network):
        if step.kind == "input":
            continue
        made = fake.make(step, *(real(graph, name, exact[name]) for name in step.inputs))
        off_CHW = (stored(graph, step.name, made) - exact[step.name]).abs()
        assert off_CHW.max() <= 1, step.name
        assert off_CHW.mean() < 0.02, step.name
    values, trace = (form.trace(image[None] / 255) for form in (fake, network))
    more = {"mask_pairs", "mask_code"} if network.classes else set()
    assert values.keys() == trace.keys() == exact.keys() - more
    mask = float_mask(graph, exact)
    ours, theirs = ((x["mask"][0, 0] - mask).abs().mean() for x in (values, trace))
    assert ours < 0.025
    assert ours < theirs


@pytest.mark.parametrize("model", MODELS)
def test_gradients_are_those_of_the_float_network(model):
    """Rounding passes them on: they point where the float network's do, and reach every weight."""
    network, graph = both(model)
    x = torch.stack([read_image(f"phantom:{seed}", 32) for seed in (0, 1)]) / 255
    truth = (x[:, :1] < 0.3).float()
    directions = []
    for form in (network, FakeQuantised(network, graph)):
        network.zero_grad()
        F.binary_cross_entropy_with_logits(lesion_logit(form(x)), truth).backward()
        directions.append({name: p.grad.clone() for name, p in network.named_parameters()})
    for name, gradient in directions[1].items():
        assert gradient.isfinite().all(), name
        assert gradient.any() == directions[0][name].any(), name
    # Far from the mask, seeded weights with normalisation after ReLU make too much of every step.
    names = ["final.weight"] if model == "attunet-ct" else list(directions[0])
    ours, theirs = (torch.cat([d[name].flatten() for name in names]) for d in directions)
    assert F.cosine_similarity(ours, theirs, dim=0) > 0.95


def test_what_is_clipped_has_no_gradient():
    """With a scale of 1/255 of what it was, a tensor's values are clipped, all but zeros."""
    network, graph = both("elec4848")
    t = graph.tensors["e1a"]
    narrow = dataclasses.replace(graph, tensors={
        **graph.tensors, "e1a": dataclasses.replace(t, scale=t.scale / 1e6)})
    for g, reached in ((graph, True), (narrow, False)):
        network.zero_grad()
        fake = FakeQuantised(network, g)
        fake.trace(read_image("phantom:0", 32)[None] / 255)["e1a"].sum().backward()
        step = next(step for step in fake.steps if step.name == "e1a")
        assert bool(step.conv.weight.grad.any()) == reached


def test_it_follows_the_weights():
    """Weights that change are folded and rounded anew, as quantising again would."""
    network, graph = both("elec4848")
    fake, image = FakeQuantised(network, graph), read_image("phantom:4", 32)
    with torch.no_grad():
        before = fake(image[None] / 255)
        for step in fake.steps:
            if step.name in ("c2", "logit"):
                step.conv.weight.mul_(0.5)
        after = fake(image[None] / 255)
    assert (before - after).abs().max() > graph.tensors["logit"].scale
