import pytest
import torch

from golden.networks import MODELS
from golden.training.norms import NormedConv, folded, unfold, with_norms
from golden.training.start import initialise


@pytest.mark.parametrize("name, added", [
    ("elec4848", 2 * 2 + 2 + 2 * 2 + 2 * 2), ("elec4848-ds", 14), ("unet-busi", 0),
    ("attunet-nuclei", 0)])
@torch.no_grad()
def test_folding_changes_nothing(name, added):
    torch.manual_seed(1)
    plain = MODELS[name](size=32, width=4, depth=2)
    before = len([m for m in plain.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    network = with_norms(initialise(plain))
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) - before == added
    for norm in norms:
        norm.weight.uniform_(-1, 2)
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.2, 3)
    network.final.weight.normal_()
    network.eval()
    frame = torch.rand(1, 3, 32, 32)
    result = folded(network)
    assert result.state_dict().keys() == MODELS[name](
        size=32, width=4, depth=2).state_dict().keys()
    assert torch.allclose(result(frame), network(frame), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["elec4848", "elec4848-ds", "unet-busi"])
@torch.no_grad()
def test_unfolding_changes_nothing_and_normalises(name):
    torch.manual_seed(2)
    plain = initialise(MODELS[name](size=32, width=4, depth=2)).eval()
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 3)
        if getattr(module, "bias", None) is not None:
            module.bias.normal_()
    plain.final.weight.normal_()
    frames = torch.rand(4, 3, 32, 32)
    network = unfold(plain, with_norms(MODELS[name](size=32, width=4, depth=2)), frames)
    assert torch.allclose(network(frames), plain(frames), rtol=1e-4, atol=1e-3)
    assert torch.allclose(folded(network)(frames), plain(frames), rtol=1e-4, atol=1e-3)
    for module in network.modules():        # and with the statistics of a batch, as in training
        if isinstance(module, NormedConv):
            module.train()
    assert torch.allclose(network(frames), plain(frames), rtol=1e-2, atol=1e-2)
