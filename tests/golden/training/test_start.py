import re

import pytest
import torch

from golden.errors import InputError
from golden.models import seeded
from golden.networks import MODELS
from golden.training.norms import folded, with_norms
from golden.training.start import begin, initialise, recast, widen


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_widening_computes_the_same(name):
    torch.manual_seed(1)
    narrow = seeded(name, 2).eval()
    wide = widen(narrow, MODELS[name](width=6)).eval()
    frame = torch.rand(1, 3, 32, 32)
    assert torch.allclose(narrow(frame), wide(frame), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_copies_can_grow_apart():
    torch.manual_seed(1)
    narrow = seeded("elec4848", 2)
    weight = widen(narrow, MODELS["elec4848"](width=4)).encoder[1].b.weight
    assert not torch.equal(weight[:, 0], weight[:, 1])
    both = weight[:, 0::2] + weight[:, 1::2]
    assert torch.allclose(both[0], narrow.encoder[1].b.weight[0], atol=1e-6)
    assert torch.allclose(both[1], narrow.encoder[1].b.weight[0], atol=1e-6)
    noisy = widen(narrow, MODELS["elec4848"](width=4), noise=0.1).encoder[1].b.weight
    assert not torch.allclose(noisy[0, 0::2] + noisy[0, 1::2], both[0], atol=1e-6)


@torch.no_grad()
def test_fresh_masks_are_undecided():
    torch.manual_seed(1)
    for name in MODELS:
        network = initialise(MODELS[name](size=32, width=4)).eval()
        assert network(torch.rand(1, 3, 32, 32)).abs().max() < 2


def normed(name, width=4):
    """A network with normalisations that have seen something."""
    network = with_norms(initialise(MODELS[name](size=32, width=width)))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
        if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            module.bias.data.normal_()
    return network.eval()


MAKE = [lambda name: normed(name), lambda name: folded(normed(name))]


def fresh(name, like):
    """A network with normalisations where another has them."""
    network = MODELS[name](size=32, width=4)
    inside = any(isinstance(module, torch.nn.Sequential) for module in like.modules())
    return with_norms(network) if inside else network


@pytest.mark.parametrize("name", ["elec4848-ds", "elec4848-ds-published"])
@pytest.mark.parametrize("make", MAKE)
@torch.no_grad()
def test_kernels_of_rank_one_are_separated_exactly(make, name):
    torch.manual_seed(1)
    dense = make("elec4848")
    for module in dense.modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.shape[-1] == 3:
            outputs, inputs = module.weight.shape[:2]
            module.weight.copy_(torch.randn(outputs, inputs, 1, 1) * torch.randn(1, inputs, 3, 3))
    frame = torch.rand(1, 3, 32, 32)
    expected = dense(frame)
    result = begin(fresh(name, dense), dense, noise=0).eval()(frame)
    assert torch.allclose(result, expected, rtol=1e-3, atol=1e-3 * expected.abs().max())


@pytest.mark.parametrize("source, name", [
    ("elec4848-ds", "elec4848-ds-published"), ("elec4848-ds", "elec4848"),
    ("elec4848-ds-published", "elec4848")])
@pytest.mark.parametrize("make", MAKE)
@torch.no_grad()
def test_separable_kernels_become_dense_exactly(make, source, name):
    torch.manual_seed(1)
    separable = make(source)
    frame = torch.rand(1, 3, 32, 32)
    expected = separable(frame)
    result = begin(fresh(name, separable), separable, noise=0).eval()(frame)
    assert torch.allclose(result, expected, rtol=1e-3, atol=1e-3 * expected.abs().max())


@torch.no_grad()
def test_other_kernels_are_approximated_best():
    torch.manual_seed(1)
    dense = normed("elec4848")
    separable = recast(dense, fresh("elec4848-ds", dense))
    weight = dense.encoder[1].b[0].weight
    part = separable.encoder[1].b
    near = part.pointwise[0].weight * part.depthwise.weight[:, 0]
    for i in range(weight.shape[1]):
        lost = (weight[:, i] - near[:, i]).norm() ** 2
        rest = torch.linalg.svdvals(weight[:, i].flatten(1))[1:]
        assert lost == pytest.approx(rest.square().sum().item(), rel=1e-3)


@torch.no_grad()
def test_a_borrowed_encoder_computes_the_same():
    torch.manual_seed(1)
    lender = normed("elec4848")
    network = begin(normed("unet-busi"), lender, noise=0).eval()
    frame = torch.rand(1, 3, 32, 32)
    assert torch.allclose(network.trace(frame)["encoding"], lender.trace(frame)["encoding"],
                          rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name, width, lender, message", [
    ("elec4848", 6, "elec4848", ("A network of width 6 cannot start from one of width 4, which "
                                 "does not divide it")),
    ("unet-busi", 4, "attunet-ct", ("unet-busi of width 4 cannot start from attunet-ct of width 4; "
                                   "start from unet-busi, or from elec4848 of the same width and "
                                   "depth")),
    ("attunet-nuclei", 4, "elec4848", ("attunet-nuclei of width 4 cannot start from elec4848 of "
                                      "width 4; start from attunet-nuclei, or from elec4848 of the "
                                      "same width and depth")),
])
def test_what_cannot_begin(name, width, lender, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        begin(normed(name, width), normed(lender), noise=0)
