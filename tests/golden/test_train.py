import math

import pytest
import torch

from golden import models, train
from golden.models import load_float, load_graph, seeded


def test_bce_dice_by_hand():
    # Probability 1/2 everywhere, one of two pixels true: BCE is ln 2, Dice (2 * 1/2 + 1) / 3.
    loss = train.bce_dice(torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]]))
    assert loss.item() == pytest.approx(math.log(2) + 1 - 2 / 3)


def test_a_perfect_empty_mask_costs_nothing():
    assert train.bce_dice(torch.full((1, 1, 4, 4), -30.0), torch.zeros(1, 1, 4, 4)) < 1e-6


def test_augmentation_moves_frame_and_truth_together():
    torch.manual_seed(1)
    truth = torch.zeros(32, 64, 64, dtype=torch.uint8)
    truth[:, 12:40, 20:50] = 255
    x, t = train._augment(truth, truth, 32)
    assert x.shape == t.shape == (32, 32, 32)
    assert set(t.unique().tolist()) == {0.0, 1.0}
    assert 0 <= x.min()
    assert x.max() <= 1
    # Wherever the window went, bright is lesion and dark is not, but for soft edges.
    assert ((x > 0.5) == (t > 0.5)).float().mean() > 0.93
    assert len({tuple(frame.flatten().tolist()) for frame in t}) > 16


@torch.no_grad()
def test_widening_computes_the_same():
    narrow = seeded("elec4848", 2)
    wide = train.widen(narrow, 3).eval()
    assert wide.width == 6
    frame = torch.rand(1, 3, 32, 32)
    assert torch.allclose(narrow(frame), wide(frame), atol=1e-4)
    weight = wide.encoder[1].b.weight
    assert not torch.equal(weight[:, 0], weight[:, 1])


def test_fit_export_and_evaluate(tmp_path, monkeypatch, capsys):
    """The whole path on a network so small that it learns in seconds."""
    monkeypatch.setattr(models, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(train, "TEST_PHANTOMS", 2)
    checkpoint = tmp_path / "checkpoint.pt"
    common = ["--checkpoint", str(checkpoint), "--width", "2"]
    assert train.main(["fit", *common, "--minutes", "0.03", "--frame", "64", "--crop", "32",
                       "--phantoms", "8"]) == 0
    trained = torch.load(checkpoint, weights_only=True)
    assert not torch.equal(trained["final.weight"], train.fresh(2).final.weight)
    assert train.main(["export", *common]) == 0
    assert train.main(["evaluate", "--width", "2", "--size", "32"]) == 0
    assert "phantoms (2): dice float " in capsys.readouterr().out
    assert torch.equal(load_float(width=2, size=32).final.bias, trained["final.bias"])
    assert load_graph(width=2, size=32).size == 32


def test_bad_input_is_one_line(capsys, tmp_path):
    assert train.main(["evaluate", "--busi", str(tmp_path), "--width", "0"]) == 2
    assert capsys.readouterr().err == ("error: Network width must be positive, not 0; "
                                       "the paper's is 32\n")
