import math
import re

import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from golden.confidence import (
    BINS,
    auc,
    calibration_error,
    check_peak,
    components,
    drop_faint,
    fit_temperature,
    lesion_score,
    reliability,
    temper,
)
from golden.data import find, load
from golden.errors import InputError
from golden.models import seeded
from golden.networks import MODELS
from golden.quantize import quantize


def grid(text):
    return torch.tensor([[float(x) for x in row.split()] for row in text.strip().splitlines()])


def test_reliability_by_hand():
    """Three pixels at 0.95, two of them lesion; one at 0.05 that is none; one at 0.15 that is."""
    table = reliability(grid("0.95 0.95 0.95 0.05 0.15"), grid("1 1 0 0 1"))
    assert table.shape == (3, BINS)
    assert table[:, -1].tolist() == pytest.approx([3, 2.85, 2])
    assert table[:, 0].tolist() == pytest.approx([1, 0.05, 0])
    assert table[:, 2].tolist() == pytest.approx([1, 0.15, 1])
    assert calibration_error(table) == pytest.approx((0.85 + 0.05 + 0.85) / 5)
    least = reliability(grid("0.95 0.95 0.95 0.05 0.15"), grid("1 1 0 0 1"), 0.1)
    assert calibration_error(least) == pytest.approx((0.85 + 0.85) / 4)
    assert calibration_error(reliability(grid("0.05"), grid("0"), 0.1)) is None


def test_the_error_of_many_images_is_that_of_their_pixels():
    """As torchmetrics has it, which takes a mask's own side: so all pixels here are above half."""
    torch.manual_seed(1)
    confidence_NHW = torch.rand(3, 20, 20) / 2 + 0.5
    truth_NHW = torch.rand(3, 20, 20) < confidence_NHW ** 2
    table = sum(reliability(*pair) for pair in zip(confidence_NHW, truth_NHW, strict=True))
    expected = binary_calibration_error(confidence_NHW, truth_NHW.int(), n_bins=BINS)
    assert calibration_error(table) == pytest.approx(float(expected), abs=1e-6)
    assert calibration_error(table) > 0.1


def test_area_under_the_curve():
    """Of four pairs three are in order; equal scores count half."""
    assert auc([0.9, 0.4, 0.5, 0.1], [True, True, False, False]) == 0.75
    assert auc([0.5, 0.5], [True, False]) == 0.5
    assert auc([0.5, 0.7], [True, True]) is None
    torch.manual_seed(2)
    scores, lesions = torch.rand(50), torch.rand(50) < 0.4
    assert auc(scores.tolist(), lesions.tolist()) == pytest.approx(
        float(binary_auroc(scores, lesions.int())))


def test_one_bright_pixel_is_no_lesion():
    confidence_HW = torch.full((64, 64), 0.2)
    confidence_HW[3, 3] = 1.0
    assert lesion_score(confidence_HW) == pytest.approx(0.2)
    confidence_HW[10:20, 10:20] = 0.9
    assert lesion_score(confidence_HW) == pytest.approx(0.9)


def test_faint_components_go_whole():
    """The left one has a peak of 0.8, and stays with its diagonal neighbour; the right one goes."""
    confidence_HW = grid("""
        0.6 0.0 0.0 0.7 0.7
        0.8 0.0 0.0 0.0 0.7
        0.0 0.5 0.0 0.0 0.0""")
    mask_HW = confidence_HW >= 0.5
    assert drop_faint(mask_HW, confidence_HW, 0.75).int().tolist() == [
        [1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]
    assert torch.equal(drop_faint(mask_HW, confidence_HW, 0.7), mask_HW)
    assert not drop_faint(mask_HW, confidence_HW, 0.9).any()


def test_components_are_sorted_by_size():
    mask_HW = grid("""
        1 0 0 1 1
        0 1 0 0 1
        0 0 0 0 0
        1 0 0 0 0""") > 0
    found = components(mask_HW)
    assert [int(part.sum()) for part in found] == [3, 2, 1]
    assert found[1].nonzero().tolist() == [[0, 0], [1, 1]]
    assert torch.equal(sum(part.int() for part in found), mask_HW.int())
    assert components(mask_HW & False) == []


def test_a_long_component_stays_to_its_end():
    spiral_HW = torch.zeros(21, 21)
    spiral_HW[::2] = 0.6
    spiral_HW[1::4, -1] = spiral_HW[3::4, 0] = 0.6      # one path through all rows
    spiral_HW[0, 0] = 0.9
    assert torch.equal(drop_faint(spiral_HW >= 0.5, spiral_HW, 0.8), spiral_HW >= 0.5)


@pytest.mark.parametrize("peak", [0.5, 1.01, -1.0, math.nan])
def test_peaks_that_mean_nothing(peak):
    with pytest.raises(InputError, match=f"^PEAK must be above 0.5, where masks begin, and at most "
                                         f"1, not {peak!r}$"):
        check_peak(peak)


@pytest.mark.parametrize("model", MODELS)
def test_a_temperature_divides_logits_and_moves_no_mask(model):
    network, frame = seeded(model, 2), load(find("phantom:1"), 32).frame(0)[None] / 255
    cooled = temper(network, 1.6)
    with torch.no_grad():
        before, after = network.trace(frame)["logit"], cooled.trace(frame)["logit"]
    assert torch.allclose(after * 1.6, before, atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-2)
    assert torch.equal(after >= 0, before >= 0)
    with torch.no_grad():
        assert torch.equal(network.trace(frame)["logit"], before)       # it is a copy


def test_the_integer_graph_has_the_temperature():
    frames = load(find("phantom:2"), 32)
    images = [frames.frame(i) for i in range(2)]
    network = seeded("elec4848", 2)
    steps = [quantize(net, images).tensors["logit"].scale for net in (network,
                                                                     temper(network, 4))]
    assert steps[1] < steps[0] / 2


def test_the_temperature_that_was_put_in_is_found():
    """Truth is drawn with the probabilities of the network: at 1 it is calibrated."""
    torch.manual_seed(3)
    network, frames = seeded("elec4848", 2), load(find("phantom:24"), 32)
    for i in range(len(frames)):
        probability_HW = network.segment(frames.frame(i))
        frames.truth[i] = 255 * (torch.rand(32, 32) < probability_HW)
    assert fit_temperature(network, frames) == pytest.approx(1, rel=0.05)
    assert fit_temperature(temper(network, 1 / 3), frames) == pytest.approx(3, rel=0.05)


def test_nothing_to_fit_to():
    network, frames = seeded("elec4848", 2), load(find("phantom:2"), 32)
    with pytest.raises(InputError, match="^The validation part of the data is empty, and a "):
        fit_temperature(network, frames.pick([]))
    frames.truth.zero_()
    with pytest.raises(InputError, match="^The validation part of the data has no lesion to fit"):
        fit_temperature(network, frames)
    with pytest.raises(InputError, match=re.escape("A temperature must be above 0, not 0")):
        temper(network, 0)
