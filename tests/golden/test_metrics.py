import pytest
import torch
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_f1_score,
    binary_jaccard_index,
    binary_precision,
    binary_recall,
    binary_specificity,
)

from golden.metrics import (
    METRICS,
    areas,
    binary,
    dice,
    iou,
    measure,
    pixel_agreement,
    pooled,
    summary,
)

A = torch.tensor([[1, 1, 0, 0]]).bool()
B = torch.tensor([[0, 1, 1, 1]]).bool()
NONE = torch.zeros(1, 4).bool()
FULL = ~NONE


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


def test_every_measure_by_hand():
    """Mask A, truth B: one pixel right, one false alarm, two missed, none rightly left out."""
    assert measure(A, B) == {"accuracy": 1 / 4, "dice": 2 / 5, "iou": 1 / 4, "sensitivity": 1 / 3,
                             "specificity": 0, "precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5}


@pytest.mark.parametrize("mask, truth, expected", [
    (NONE, NONE, {}),
    (FULL, FULL, {}),
    (NONE, A, {"accuracy": 0.5, "dice": 0, "iou": 0, "sensitivity": 0, "precision": 0,
               "recall": 0, "f1": 0}),
    (A, NONE, {"accuracy": 0.5, "dice": 0, "iou": 0, "sensitivity": 0, "specificity": 0.5,
               "precision": 0, "recall": 0, "f1": 0}),
    (A, FULL, {"accuracy": 0.5, "dice": 2 / 3, "iou": 0.5, "sensitivity": 0.5, "specificity": 0,
               "recall": 0.5, "f1": 2 / 3}),
])
def test_what_has_no_denominator(mask, truth, expected):
    assert measure(mask, truth) == dict.fromkeys(METRICS, 1.0) | expected


def test_against_torchmetrics():
    torch.manual_seed(1)
    others = {"accuracy": binary_accuracy, "dice": binary_f1_score, "iou": binary_jaccard_index,
              "sensitivity": binary_recall, "specificity": binary_specificity,
              "precision": binary_precision, "recall": binary_recall, "f1": binary_f1_score}
    for share in (0.1, 0.5, 0.9):
        mask, truth = torch.rand(2, 30, 40) < share
        ours = measure(mask, truth)
        for name, other in others.items():
            assert ours[name] == pytest.approx(other(mask.int(), truth.int()).item(), abs=1e-6)


def test_summary_by_hand():
    rows = [dict.fromkeys(METRICS, value) for value in (0.8, 0.8, 0.9, 0.9, 0.0)]
    result = summary(rows)
    assert result["images"] == 5
    assert result["iou"] == pytest.approx(0.68)
    # Quartiles 0.8 and 0.9: what lies below 0.65 is an outlier.
    assert result["outliers_removed"]["dice"] == {"mean": pytest.approx(0.85), "removed": 1}


def test_deviation_by_hand():
    rows = [dict.fromkeys(METRICS, value) for value in (0.2, 0.4, 0.6, 0.8)]
    assert summary(rows)["std"]["f1"] == pytest.approx(0.05 ** 0.5)


def test_no_image():
    result = summary([])
    assert result["images"] == 0
    assert result["dice"] is None
    assert result["outliers_removed"]["dice"] == {"mean": None, "removed": 0}


def test_pooled_by_hand():
    """Of two masks 3 pixels of 4, truth 4, and 2 of 2, truth 8: 5 of 13, and twice 5 of 18."""
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]).bool()
    truth = torch.tensor([[1, 1, 1, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]]).bool()
    counted = [areas(*pair) for pair in zip(mask, truth, strict=True)]
    assert counted == [(4, 4, 3), (2, 8, 2)]
    assert pooled(counted) == {"iou": 5 / 13, "dice": 10 / 18}
    assert pooled([areas(NONE, NONE)]) == {"iou": None, "dice": None}
    assert pooled([]) == {"iou": None, "dice": None}
