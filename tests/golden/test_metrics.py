import torch

from golden.metrics import binary, dice, iou, pixel_agreement

A = torch.tensor([[1, 1, 0, 0]]).bool()
B = torch.tensor([[0, 1, 1, 1]]).bool()
NONE = torch.zeros(1, 4).bool()


def test_by_hand():
    assert dice(A, B) == 2 * 1 / 5
    assert iou(A, B) == 1 / 4
    assert pixel_agreement(A, B) == 1 / 4
    assert dice(A, A) == iou(A, A) == pixel_agreement(A, A) == 1


def test_empty_masks():
    assert dice(NONE, NONE) == iou(NONE, NONE) == 1
    assert dice(NONE, A) == iou(A, NONE) == 0
    assert pixel_agreement(NONE, A) == 0.5


def test_one_half_is_lesion():
    assert binary(torch.tensor([0.0, 0.499, 0.5, 1.0])).tolist() == [False, False, True, True]
