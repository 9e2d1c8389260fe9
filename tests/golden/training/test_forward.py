import pytest
import torch
import torch.nn.functional as F

from golden.training import Settings
from golden.training.forward import half, swift


@pytest.mark.parametrize("able", [True, False])
def test_half_precision_only_where_the_processor_has_it(monkeypatch, able):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": able})
    with half(Settings()):
        y = F.linear(torch.ones(2, 3), torch.ones(4, 3))
    assert y.dtype is (torch.bfloat16 if able else torch.float32)


def gradients(mode, rate):
    torch.manual_seed(3)
    parts = [torch.randn(2, c, 6, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
             for c in (3, 5)]
    weight = torch.randn(4, 8, 3, 3)
    with mode:
        y = F.conv2d(F.dropout(torch.cat([torch.relu(x) for x in parts], 1), rate), weight)
    y.square().sum().backward()
    return y, [x.grad for x in parts]


def test_swift_changes_no_result():
    plain, swiftly = gradients(torch.enable_grad(), 0.0), gradients(swift(), 0.0)
    assert torch.equal(plain[0], swiftly[0])
    for a, b in zip(plain[1], swiftly[1], strict=True):
        assert torch.equal(a, b)
        assert b.is_contiguous(memory_format=torch.channels_last)


def test_swift_dropout():
    """So many are dropped, in all places alike; the mean stays; and gradients drop with values."""
    torch.manual_seed(3)
    x = torch.ones(64, 3, 8, 7, requires_grad=True)
    with swift():
        y = F.dropout(x, 0.3)
        assert F.dropout(x, 0.3, training=False) is x
    dropped = (y == 0).float()
    assert abs(dropped.mean() - 0.3) < 0.02
    assert abs(y.mean() - 1) < 0.02
    assert (dropped.mean(0) - 0.3).abs().max() < 0.25
    assert len(y.unique()) == 2
    y.sum().backward()
    assert torch.equal(x.grad, y)
