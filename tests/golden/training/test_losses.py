import math

import pytest
import torch

from golden.training.losses import LOSSES


def test_by_hand():
    # Probability 1/2 everywhere, one of two pixels true: BCE is ln 2, Dice (2 * 1/2 + 1) / 3.
    logit, truth = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
    assert LOSSES["bce"](logit, truth).item() == pytest.approx(math.log(2))
    assert LOSSES["dice"](logit, truth).item() == pytest.approx(1 - 2 / 3)
    assert LOSSES["bce+dice"](logit, truth).item() == pytest.approx(math.log(2) + 1 - 2 / 3)


def test_dice_of_two_images_by_hand():
    # One mask right, one wrong, both of 2 pixels: per image (5/5 + 1/5) / 2, together 5/9.
    logit = torch.tensor([[40.0, 40, -40, -40], [40, 40, -40, -40]]).reshape(2, 1, 2, 2)
    truth = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]).reshape(2, 1, 2, 2)
    expected = 1 - (3 / 5 + 5 / 9) / 2
    assert LOSSES["dice"](logit, truth).item() == pytest.approx(expected)


def test_a_perfect_empty_mask_costs_nothing():
    logit = torch.full((2, 1, 4, 4), -30.0)
    for loss in LOSSES.values():
        assert loss(logit, torch.zeros(2, 1, 4, 4)) < 1e-6
