import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.text import Text
from PIL import Image
from scipy import ndimage
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from golden.classes import lesion_logit
from golden.errors import InputError
from golden.explain import (
    Explanation,
    Hidden,
    Lime,
    Occlusion,
    Probe,
    Score,
    Surrogate,
    explain,
    sentences,
)
from golden.explain.__main__ import main
from golden.explain.lime import LinearFit, surrogate
from golden.explain.sheet import (
    HOT,
    LINE,
    LOST,
    Panel,
    Scale,
    Section,
    _figure,
    _outline,
    sections,
    write_sheet,
)
from golden.explain.superpixels import superpixels
from golden.images import read_image, read_truth
from golden.models import load_float
from golden.networks import MODELS
from golden.training import save_checkpoint

FEW = Lime(superpixels=4, samples=12)


def small(model="elec4848", *, width=4, size=32):
    """A network with random weights whose mask is neither empty nor full."""
    torch.manual_seed(3)
    network = MODELS[model](size=size, width=width).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.1)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        logit = network(frame(size))
        network.final.bias[logit.shape[1] > 1:] -= lesion_logit(logit).median()     # of lesions
    return network


def frame(size=32):
    return read_image("phantom:3", size)[None].to(torch.float32) / 255


class TwoLayers(nn.Module):
    """Two ReLUs on one pixel: h = relu([2x, 3x]), then relu(h0 - h1 + 5)."""

    depth = 0

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([2.0, 3.0])[:, None, None, None])
            self.first.bias.zero_()
            self.second.weight.copy_(torch.tensor([[[[1.0]], [[-1.0]]]]))
            self.second.bias.fill_(5.0)

    def last_of(self, level):
        return "hidden"

    def trace(self, frame_N1HW):
        t = {"image": frame_N1HW}
        t["hidden"] = F.relu(self.first(frame_N1HW))
        t["logit"] = F.relu(self.second(t["hidden"]))
        t["mask"] = torch.sigmoid(t["logit"])
        return t


def test_guided_backpropagation_by_hand():
    """x = 1: h = (2, 3), and the second ReLU lets 4 through.

    Plainly, its gradient is 2 * 1 + 3 * -1 = -1. Guided, the -1 that reaches h1 from above is
    stopped at the first ReLU, and 2 * 1 remains.
    """
    image_1HW = torch.full((1, 1, 1), 255, dtype=torch.uint8)
    explanation = explain(TwoLayers(), image_1HW, Occlusion(1, 1), Lime(1, 2))
    assert explanation.guided_HW.item() == 2.0
    assert explanation.saliency_HW.item() == 1.0
    assert explanation.found
    assert explanation.grad_cam == explanation.alpha == {}


class GuidedReLU(torch.autograd.Function):
    """The definition of Springenberg et al., written down once more."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        x, = ctx.saved_tensors
        return gradient * (x > 0) * (gradient > 0)


def input_gradient(network, mask_HW, size=32):
    x = frame(size).requires_grad_()
    logit_CHW = network(x)[0]
    if len(logit_CHW) > 1:          # of lesion of any class, by softmax
        p_CHW = logit_CHW.softmax(0)
        logit_CHW = torch.log(p_CHW[1:].sum(0) / p_CHW[0])[None]
    (logit_CHW[0] * mask_HW).sum().backward()
    return x.grad[0]


@pytest.mark.parametrize("model", MODELS)
def test_gradients_of_every_network(model, monkeypatch):
    """Guided backpropagation is the real one, though the networks call ``F.relu``."""
    network = small(model)
    explanation = explain(network, read_image("phantom:3", 32), Occlusion(32, 32), FEW)
    mask_HW = explanation.confidence_HW >= 0.5
    assert 0 < mask_HW.sum() < mask_HW.numel()
    plain_3HW = input_gradient(network, mask_HW)
    torch.testing.assert_close(explanation.saliency_HW, plain_3HW.abs().amax(0))
    monkeypatch.setattr(F, "relu", GuidedReLU.apply)
    guided_3HW = input_gradient(network, mask_HW)
    torch.testing.assert_close(explanation.guided_HW, guided_3HW.sum(0))
    assert not torch.allclose(guided_3HW, plain_3HW, rtol=0.1)
    assert torch.isfinite(guided_3HW).all()


@pytest.mark.parametrize("model", MODELS)
def test_a_probe_computes_what_the_network_does(model):
    network = small(model)
    probe = Probe(network)
    with torch.no_grad():
        expected, seen = network.trace(frame()), probe(frame())
    assert list(expected) == list(seen)
    assert all(torch.equal(expected[name], seen[name]) for name in expected)
    functions = [node.target for node in probe.traced.graph.nodes if node.op == "call_function"]
    assert F.relu not in functions
    assert not any(module.inplace for module in probe.modules() if isinstance(module, nn.ReLU))
    caught = {}
    handle = probe.point("c1").register_forward_hook(
        lambda module, inputs, output: caught.update(c1=output))
    with torch.no_grad():
        probe(frame())
    handle.remove()
    assert torch.equal(caught["c1"], expected["c1"])


def test_relu_as_a_method_and_in_place():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU(inplace=True)

        def trace(self, x):
            return {"image": x, "a": x.relu(), "b": torch.relu(x - 1), "c": self.act(x - 2)}

    probe = Probe(Plain())
    x = torch.tensor([[[[3.0, -1.0, 1.5]]]])
    seen = probe(x)
    assert [seen[name].flatten().tolist() for name in "abc"] == [
        [3.0, 0.0, 1.5], [2.0, 0.0, 0.5], [1.0, 0.0, 0.0]]
    assert sum(isinstance(module, nn.ReLU) for module in probe.modules()) == 3


def test_grad_cam_by_its_formula():
    network = small()
    explanation = explain(network, read_image("phantom:3", 32), Occlusion(32, 32), FEW)
    mask_HW = explanation.confidence_HW >= 0.5
    trace = network.trace(frame())
    assert list(explanation.grad_cam) == ["gated1", "gated2", "gated3", "gated4"]
    for name, cam_HW in explanation.grad_cam.items():
        gated_1CHW = trace[name]
        gradient, = torch.autograd.grad((trace["logit"][0, 0] * mask_HW).sum(), gated_1CHW,
                                        retain_graph=True)
        weighted = (gradient.mean((2, 3), keepdim=True) * gated_1CHW).sum(1)[0]
        torch.testing.assert_close(cam_HW, F.relu(weighted).detach(), rtol=1e-4, atol=1e-6)
        assert tuple(cam_HW.shape) == tuple(gated_1CHW.shape[2:])
    assert any(cam_HW.any() for cam_HW in explanation.grad_cam.values())


@pytest.mark.parametrize(("window", "stride"), [(12, 10), (9, 4), (32, 1), (5, 5)])
def test_occlusion_by_a_loop(window, stride):
    network, image_CHW = small("unet-busi"), read_image("phantom:3", 32)
    occlusion = Occlusion(window, stride)
    explanation = explain(network, image_CHW, occlusion, FEW)
    mask_HW = explanation.confidence_HW >= 0.5
    x = frame()
    lost_HW, times_HW = torch.zeros(32, 32), torch.zeros(32, 32)
    places = range(0, 32 - window + stride, stride)
    assert len(places)**2 == occlusion.windows(32)
    with torch.no_grad():
        whole = (network(x)[0, 0] * mask_HW).sum()
        for top in places:
            for left in places:
                at = (..., slice(top, top + window), slice(left, left + window))
                hidden = x.clone()
                hidden[at] = x.mean((2, 3), keepdim=True)
                lost_HW[at[1:]] += whole - (network(hidden)[0, 0] * mask_HW).sum()
                times_HW[at[1:]] += 1
    assert times_HW.min() >= 1
    torch.testing.assert_close(explanation.occlusion_HW, lost_HW / times_HW, rtol=1e-3,
                               atol=1e-3 * float(lost_HW.abs().max()))


def test_no_lesion_means_all_pixels():
    network = small("unet-busi")
    with torch.no_grad():
        network.final.bias -= 100
    explanation = explain(network, read_image("phantom:3", 32), Occlusion(32, 32), FEW)
    assert not explanation.found
    everywhere = input_gradient(network, torch.ones(32, 32))
    torch.testing.assert_close(explanation.saliency_HW, everywhere.abs().amax(0))
    parts = sections(read_image("phantom:3", 32), explanation, Occlusion(32, 32))
    assert parts[0].text.endswith("over all pixels, since the mask is empty.")
    assert parts[0].panels[0].caption == "no pixel is called lesion"


def test_maps_of_the_trace():
    network = small("attunet-nuclei")
    explanation = explain(network, read_image("phantom:3", 32), Occlusion(32, 32), FEW)
    with torch.no_grad():
        trace = network.trace(frame())
    assert list(explanation.alpha) == ["alpha1", "alpha2", "alpha3"]
    assert list(explanation.encoder) == ["c1", "c2", "c3", "encoding"]
    torch.testing.assert_close(explanation.confidence_HW, trace["mask"][0, 0])
    for name, mean_HW in {**explanation.alpha, **explanation.encoder}.items():
        torch.testing.assert_close(mean_HW, trace[name][0].mean(0))


def test_explaining_changes_no_weight():
    network = small()
    before = {name: x.clone() for name, x in network.state_dict().items()}
    explain(network, read_image("phantom:3", 32), Occlusion(32, 32), FEW)
    assert all(torch.equal(before[name], x) for name, x in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_progress_ends_at_all_passes():
    seen = []
    explain(small("unet-busi"), read_image("phantom:3", 32), Occlusion(16, 8), FEW,
            progress=lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {2 * 3 + 9 + 1 + 12}
    done = [done for done, _ in seen]
    assert done == sorted(done) and done[-1] == 28


def test_score_counts_its_frames():
    seen = []
    score = Score(Probe(small("unet-busi")), torch.ones(32, 32), passed=seen.append)
    assert score(frame().repeat(3, 1, 1, 1)).shape == (3,)
    assert seen == [3]


@pytest.mark.parametrize(("occlusion", "message"), [
    (Occlusion(65, 30), "Occlusion window must be 1..64 for frames of 64 pixels, not 65"),
    (Occlusion(0, 30), "Occlusion window must be 1..64 for frames of 64 pixels, not 0"),
    (Occlusion(50, 0),
     "Occlusion stride must be 1..50, the window, so that no pixel is left out, not 0"),
    (Occlusion(20, 21),
     "Occlusion stride must be 1..20, the window, so that no pixel is left out, not 21"),
])
def test_occlusion_that_does_not_fit(occlusion, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        occlusion.check(64)


def test_superpixels_end_at_edges():
    """The left 20 and the top 40 of 64 columns and rows are darker, which no cell of the grid is
    aligned with. Up to two pixels beside an edge are blurred, and may lie on its other side."""
    image_3HW = torch.full((3, 64, 64), 160, dtype=torch.uint8)
    image_3HW[..., :20] -= 60
    image_3HW[:, :40] -= 60
    label_HW = superpixels(image_3HW, 16)
    label_HW[:, 18:22] = label_HW[38:42] = -1
    for label in range(16):
        assert len(torch.unique(image_3HW[0][label_HW == label])) <= 1, label


@pytest.mark.parametrize(("rows", "columns", "count"), [(64, 64, 60), (48, 96, 32), (33, 65, 7)])
def test_superpixels_cover_a_frame_in_connected_parts(rows, columns, count):
    image_3HW = read_image("phantom:7", 96)[:, :rows, :columns]
    label_HW = superpixels(image_3HW, count)
    assert label_HW.shape == (rows, columns)
    numbers = torch.unique(label_HW).tolist()
    assert numbers == list(range(len(numbers)))
    assert abs(len(numbers) - count) <= 0.2 * count + 1
    assert all(ndimage.label((label_HW == number).numpy())[1] == 1 for number in numbers)
    assert torch.bincount(label_HW.flatten()).min() > rows * columns / count / 8
    assert torch.equal(superpixels(image_3HW, count), label_HW)


def test_a_flat_frame_is_cut_along_the_grid():
    label_HW = superpixels(torch.full((3, 32, 48), 90, dtype=torch.uint8), 6)
    expected_HW = torch.arange(6).reshape(2, 3).repeat_interleave(16, 0).repeat_interleave(16, 1)
    assert torch.equal(label_HW, expected_HW)


def fitted(score, lime, size=32):
    image_CHW = read_image("phantom:3", size)
    x = frame(size)
    mean = x.mean((2, 3), keepdim=True).expand_as(x)
    return surrogate(score, image_CHW, x, mean, lime), x, mean


def test_a_linear_score_has_the_weights_that_hiding_each_superpixel_alone_costs():
    torch.manual_seed(5)
    gain = torch.randn(3, 32, 32)
    lime, x, mean = fitted(lambda x: (x * gain).sum((1, 2, 3)), Lime(9, 200))
    costs = torch.stack([((x - mean)[0] * gain)[:, lime.label_HW == number].sum()
                         for number in range(len(lime.weight_N))])
    torch.testing.assert_close(lime.weight_N, costs, rtol=0, atol=0.05 * float(costs.abs().max()))
    assert lime.explained > 0.99


def test_a_score_that_no_sum_makes_is_said_to_be_unexplained():
    """Which superpixels are shown decides by the parity of their number."""
    def score(x):
        shown_NHW = (x != mean).any(1)
        return torch.stack([sum(shown_HW[label_HW == number].any() for number in range(9)) % 2
                            for shown_HW in shown_NHW]).float()

    label_HW = superpixels(read_image("phantom:3", 32), 9)
    mean = frame().mean((2, 3), keepdim=True)
    lime, _, _ = fitted(score, Lime(9, 60))
    assert lime.explained < 0.1


def test_the_fit_is_measured_on_samples_left_out():
    """Twelve fits, each without a sample; as many weights as half the samples fit much better."""
    torch.manual_seed(2)
    x, y, near = torch.randint(0, 2, (12, 5)).float(), torch.randn(12), torch.rand(12) + 0.5
    linear = LinearFit()
    linear.fit(DataLoader(TensorDataset(x, y, near), batch_size=7))

    def refitted(kept):
        """By least squares, with a row for the penalty of each weight."""
        root = near[kept].double().sqrt()[:, None]
        rows = torch.cat([torch.cat([x[kept].double(), torch.ones(len(kept), 1)], 1) * root,
                          torch.eye(5, 6, dtype=torch.float64)])
        return torch.linalg.lstsq(rows, torch.cat([y[kept].double() * root[:, 0],
                                                   torch.zeros(5)])).solution

    torch.testing.assert_close(linear.representation().double(), refitted(list(range(12)))[:5],
                               rtol=1e-5, atol=1e-6)
    missed = []
    for left in range(12):
        solution = refitted([i for i in range(12) if i != left])
        missed.append(float(y[left] - x[left].double() @ solution[:5] - solution[5]))
    mean = float((near * y).sum() / near.sum())
    within = float((near * (y - linear(x)).square()).sum() / (near * (y - mean).square()).sum())
    left_out = sum(n * m**2 for n, m in zip(near.tolist(), missed, strict=True)) / float(
        (near * (y - mean).square()).sum())
    assert linear.explained == pytest.approx(1 - left_out, abs=1e-5)
    assert linear.explained < 1 - within - 0.2


def test_samples_follow_from_the_seed_and_leave_others_alone():
    network = small("unet-busi")
    score = Score(Probe(network), torch.ones(32, 32))
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = (fitted(score, Lime(9, 30, seed))[0] for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.weight_N, again.weight_N)
    assert not torch.allclose(first.weight_N, other.weight_N, rtol=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_superpixels_of_every_network(model):
    """The score is that of the sheet: the linear model is about as high where nothing is hidden."""
    network, image_CHW = small(model, size=64), read_image("phantom:3", 64)
    lime = explain(network, image_CHW, Occlusion(64, 64), Lime(16, 64)).lime
    assert lime.label_HW.shape == (64, 64)
    assert len(lime.weight_N) == 16 and lime.weight_N.isfinite().all()
    assert lime.samples == 64 and lime.explained < 1


def test_superpixels_of_the_lesion_raise_the_score():
    network, image_CHW = load_float("elec4848", 64, 8), read_image("phantom:7", 64)
    explanation = explain(network, image_CHW, Occlusion(64, 64), Lime(36, 150))
    lesion_HW = read_truth("phantom:7", 64) > 127
    lime = explanation.lime
    inside_N = torch.stack([lesion_HW[lime.label_HW == number].float().mean()
                            for number in range(len(lime.weight_N))])
    assert inside_N[lime.weight_N.argmax()] > 0.5
    assert lime.weight_N[inside_N > 0.5].mean() > 2 * lime.weight_N[inside_N == 0].abs().mean()
    assert lime.explained > 0.5


@pytest.mark.parametrize(("lime", "message"), [
    (Lime(0), "Number of superpixels must be 1..256 for frames of 64 pixels, not 0"),
    (Lime(257), "Number of superpixels must be 1..256 for frames of 64 pixels, not 257"),
    (Lime(60, 119), "Number of samples must be at least 120, two for each superpixel, not 119"),
])
def test_superpixels_that_do_not_fit(lime, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        lime.check(64)


@pytest.mark.parametrize(("low", "high", "painted"), [
    (0.0, 2.0, [(68, 1, 84), (33, 145, 140), (253, 231, 37), (253, 231, 37)])])
def test_scale_paints_from_end_to_end(low, high, painted):
    scale = Scale("viridis", low, high, "x")
    assert scale.paint(np.array([[-1.0, 1.0, 2.0, 9.0]]))[0].tolist() == [list(c) for c in painted]
    assert scale.css.startswith("linear-gradient(to right, #440154, ")
    assert scale.ends == ["0", "2"]
    assert Scale("PuOr", -12345.6, 12345.6, "x").ends == ["-12,346", "12,346"]


def test_a_map_over_a_frame_fades_towards_zero():
    frame_HWC = np.full((1, 3, 3), 100, np.uint8)
    over = Scale("magma", 0.0, 1.0, "x").over(np.array([[0.0, 0.5, 1.0]]), frame_HWC)
    assert over[0, 0].tolist() == [100, 100, 100]
    assert over[0, 2].tolist() == [round(0.8 * c + 0.2 * 100) for c in (252, 253, 191)]


@pytest.mark.parametrize("colours", [HOT, LOST])
def test_a_map_over_a_dark_frame_is_seen(colours):
    """Occlusion was dark purple on dark ultrasound: now a tenth of the largest value has a contrast
    of 2 to the frame, and half of it 3 (as WCAG counts)."""
    def luminance(pixel):
        value = np.asarray(pixel) / 255
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    frame_HWC = np.full((1, 1, 3), 25, np.uint8)
    for value in (0.1, 0.5, 1.0) if colours == HOT else (-1.0, -0.5, -0.1, 0.1, 0.5, 1.0):
        scale = Scale(colours, 0.0 if colours == HOT else -1.0, 1.0, "x")
        seen = scale.over(np.array([[value]]), frame_HWC)[0, 0]
        assert (luminance(seen) + 0.05) / (luminance(frame_HWC[0, 0]) + 0.05) > (
            3 if abs(value) >= 0.5 else 2), value


def test_one_pixel_does_not_set_the_scale_of_grad_cam():
    """A few hundred values of about 1, and a single one of 1000."""
    torch.manual_seed(1)
    cam_HW = torch.zeros(32, 32)
    cam_HW[:10] = 1 + torch.rand(10, 32) / 10
    cam_HW[0, 0] = 1000
    explanation = drawn(grad_cam={"gated1": cam_HW}, alpha={"alpha1": torch.ones(16, 16)})
    parts = sections(read_image("phantom:3", 32), explanation, Occlusion(16, 16))
    (panel,) = parts[2].panels
    assert 1 < panel.scale.high < 1.2
    assert panel.caption == "32 x 32; 31.2 % raises the score"
    assert parts[2].text.endswith("Colours end at the 99th percentile of what is above 0.")
    empty = drawn(grad_cam={"gated1": torch.zeros(32, 32)}, alpha=explanation.alpha)
    parts = sections(read_image("phantom:3", 32), empty, Occlusion(16, 16))
    assert parts[2].panels[0].caption == "32 x 32; nothing raises the score"


def drawn(confidence_HW=None, hidden_HW=None, at=(0, 0), **more):
    """An explanation that nobody computed."""
    none_HW = torch.zeros(32, 32)
    confidence_HW = none_HW if confidence_HW is None else confidence_HW
    hidden = Hidden(*at, none_HW if hidden_HW is None else hidden_HW)
    lime = Surrogate(none_HW.long(), torch.zeros(2), 4, 0.0)
    fields = {"grad_cam": {}, "alpha": {}, "encoder": {"c1": none_HW}, "lime": lime, **more}
    return Explanation(confidence_HW, bool((confidence_HW >= 0.5).any()), none_HW, none_HW, none_HW,
                       hidden=hidden, **fields)


def test_sentences_by_hand():
    """8 x 16 pixels at 0.9 and 0.8 at the lower right, 2 x 2 of 0.6 at the upper left; hiding the
    left half of the large part halves it, and lights four others up."""
    confidence_HW = torch.full((32, 32), 0.05)
    confidence_HW[22:30, 16:32] = 0.9
    confidence_HW[26:30, 16:32] = 0.8
    confidence_HW[2:4, 2:4] = 0.6
    hidden_HW = confidence_HW.clone()
    hidden_HW[22:30, 16:24] = 0.1
    hidden_HW[2:4, 2:4] = 0.1
    hidden_HW[0, 28:32] = 0.7
    alpha = {"alpha1": torch.full((16, 16), 0.2), "alpha2": torch.full((32, 32), 0.5),
             "alpha3": torch.full((32, 32), 0.8), "alpha4": torch.full((32, 32), 0.1)}
    alpha["alpha1"][11:15, 8:16] = 0.9
    alpha["alpha1"][1, 1] = 0.9
    for name, value in (("alpha3", 0.4), ("alpha4", 0.2)):
        alpha[name][confidence_HW >= 0.5] = value
    label_HW = torch.zeros(32, 32, dtype=torch.long)
    label_HW[20:30, 16:32], label_HW[0] = 1, 2
    lime = Surrogate(label_HW, torch.tensor([1.0, 20.0, -7.0]), 9, 0.62)
    explanation = drawn(confidence_HW, hidden_HW, (22, 16), alpha=alpha, lime=lime)
    assert sentences(explanation, Occlusion(8, 4)) == [
        "12.9% of the frame is called lesion, at a mean confidence of 0.84 and a highest of 0.90.",
        "The largest of its 2 parts is 8 x 16 pixels, in the lower right of the frame.",
        "In 6.6% of the frame the network is unsure: confidence between 0.1 and 0.9.",
        "Is there a lesion: 0.90, the confidence that one pixel in a thousand exceeds.",
        ("Gates 1 and 4 let more through in the mask than outside: 0.90 and 0.20, 0.20 and "
         "0.10."),
        "Gate 3 lets less through in the mask than outside: 0.40 and 0.80.",
        "Gate 2 lets as much through in the mask as outside: 0.50 and 0.50.",
        ("Hiding 8 x 8 pixels in the lower middle, 100.0% of them lesion by the mask, costs most: "
         "48% of the mask stays, and 0.4% of the frame is called lesion that was not."),
        ("Of 3 superpixels, one of 160 pixels in the lower right, 80.0% of them lesion by the "
         "mask, raises the score most, by a linear model that explains 62% of the score's "
         "variance.")]


def test_a_superpixel_that_lowers_the_score_by_a_model_that_hardly_fits():
    label_HW = torch.zeros(32, 32, dtype=torch.long)
    label_HW[:11] = 1
    for explained, percent in ((0.2, "20%"), (-0.3, "0%")):
        lime = Surrogate(label_HW, torch.tensor([1.0, -2.0]), 9, explained)
        assert sentences(drawn(lime=lime), Occlusion(8, 4))[-1] == (
            "Of 2 superpixels, one of 352 pixels in the upper middle, 0.0% of them lesion by the "
            f"mask, lowers the score most, by a linear model that explains {percent} of the "
            "score's variance, too little to rely on.")


def test_sentences_of_an_empty_mask():
    confidence_HW = torch.full((32, 32), 0.05)
    confidence_HW[16, 3] = 0.31
    hidden_HW = torch.zeros(32, 32)
    assert sentences(drawn(confidence_HW, hidden_HW, (12, 12)), Occlusion(8, 4)) == [
        ("No pixel is called lesion; the highest confidence is 0.31, in the middle left of the "
         "frame."),
        "Is there a lesion: 0.05, the confidence that one pixel in a thousand exceeds.",
        ("Hiding 8 x 8 pixels in the centre, 0.0% of them lesion by the mask, costs most: then "
         "0.0% of the frame is called lesion."),
        ("Of 2 superpixels, one of 1024 pixels in the centre, 0.0% of them lesion by the mask, "
         "lowers the score most, by a linear model that explains 0% of the score's variance, too "
         "little to rely on.")]


def test_one_part_and_a_full_mask():
    confidence_HW = torch.zeros(32, 32)
    confidence_HW[12:20, 12:20] = 0.9
    lines = sentences(drawn(confidence_HW, confidence_HW), Occlusion(8, 4))
    assert lines[1] == "It is one part, 8 x 8 pixels, in the centre of the frame."
    assert lines[-2].endswith("100% of the mask stays, and nothing new is called lesion.")
    full = drawn(torch.ones(32, 32), alpha={"alpha1": torch.ones(16, 16)})
    assert not any(line.startswith("Gate") for line in sentences(full, Occlusion(8, 4)))


def test_the_window_that_matters_is_hidden():
    """It lies where the occlusion map is highest, within the frame, and covers the frame's mean."""
    network, image_CHW = small("unet-busi"), read_image("phantom:3", 32)
    explanation = explain(network, image_CHW, Occlusion(12, 10), FEW)
    hidden = explanation.hidden
    most = torch.nonzero(explanation.occlusion_HW == explanation.occlusion_HW.max())
    assert 0 <= hidden.top <= 20 and 0 <= hidden.left <= 20
    inside = [hidden.top <= row < hidden.top + 12 and hidden.left <= column < hidden.left + 12
              for row, column in most.tolist()]
    assert any(inside)
    x = frame()
    x[..., hidden.top:hidden.top + 12, hidden.left:hidden.left + 12] = x.mean((2, 3), keepdim=True)
    with torch.no_grad():
        torch.testing.assert_close(hidden.confidence_HW, network.trace(x)["mask"][0, 0])


def test_outlines_lie_inside_the_region_and_at_the_border_of_the_frame():
    region = np.zeros((12, 12), bool)
    region[:9, :9] = True
    marked = _outline(np.zeros((12, 12, 3), np.uint8), region, (9, 9, 9))[..., 0] == 9
    expected = region.copy()
    expected[LINE:9 - LINE, LINE:9 - LINE] = False
    assert np.array_equal(marked, expected)


def test_maps_without_contrast_have_a_scale(tmp_path):
    network, image_CHW = small("unet-busi"), read_image("phantom:3", 32)
    for parameter in network.parameters():
        parameter.data.zero_()
    explanation = explain(network, image_CHW, Occlusion(32, 32), FEW)
    parts = sections(image_CHW, explanation, Occlusion(32, 32))
    assert not explanation.saliency_HW.any()
    assert all(panel.scale.low < panel.scale.high for part in parts for panel in part.panels
               if panel.scale)
    write_sheet(tmp_path, "nothing", [], parts)


@pytest.mark.parametrize("model", ["elec4848", "unet-busi"])
def test_sheet(model, tmp_path):
    image_CHW = read_image("phantom:3", 32)
    explanation = explain(small(model), image_CHW, Occlusion(16, 16), FEW)
    parts = sections(image_CHW, explanation, Occlusion(16, 16), torch.ones(32, 32) > 0)
    titles = [part.title for part in parts]
    if model == "elec4848":
        assert titles == ["Decision", "Hidden parts", "Grad-CAM of the attention gates",
                          "Attention maps", "Encoder activations"]
        assert [len(part.panels) for part in parts] == [4, 2, 4, 4, 5]
    else:
        assert titles == ["Decision", "Hidden parts", "Attention gates", "Encoder activations"]
        assert parts[2].text == ("This network has none, so there are no attention maps and no "
                                 "Grad-CAM on gates.")
    assert all(panel.pixels_HWC.shape == (448, 448, 3) for part in parts for panel in part.panels)
    png, page = write_sheet(tmp_path / "sheet", "a <title>", ["one & two"], parts)
    assert Image.open(png).width == 1512
    text = page.read_text()
    assert "<h1>a &lt;title&gt;</h1>" in text and "<p>one &amp; two</p>" in text
    assert text.count("<img src=\"data:image/png;base64,") == sum(len(p.panels) for p in parts)
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text) and "http" not in text
    assert text.count("class=\"bar\"") == sum(len(p.panels) for p in parts) - 1


def test_the_map_of_superpixels():
    """One of two raises the score, the other lowers it; a seam lies between, and the caption has
    how well that fits."""
    label_HW = torch.zeros(32, 32, dtype=torch.long)
    label_HW[:, 10:] = 1
    lime = Surrogate(label_HW, torch.tensor([1.0, -2.0]), 40, 0.734)
    image_CHW = torch.full((3, 32, 32), 25, dtype=torch.uint8)
    panel = sections(image_CHW, drawn(lime=lime), Occlusion(8, 4))[1].panels[1]
    assert panel.caption == ("score that showing each of 2 adds, by a linear model of 40 frames "
                             "with half of them hidden; its R² on frames left out is 0.73")
    assert (panel.scale.low, panel.scale.high) == (-2.0, 2.0)
    row = panel.pixels_HWC[224].astype(int)         # 14 pixels for each of the frame
    assert row[139].tolist() == [150, 150, 150]
    assert row[0, 0] > row[0, 1] and row[0, 0] > row[0, 2]          # pink
    assert row[-1, 2] > row[-1, 1] > row[-1, 0]                     # blue
    assert len(np.unique(row, axis=0)) == 3


def test_the_picture_has_every_caption():
    pixels_HWC = np.zeros((8, 8, 3), np.uint8)
    captions = ("one that is so long that it takes more than a line below its picture", "4 x 4")
    parts = [Section("Title", "text", (Panel("a", captions[0], pixels_HWC),
                                       Panel("b", captions[1], pixels_HWC,
                                             Scale("magma", 0.0, 1.0, "share"))))]
    figure = _figure("title", [], parts)
    shown = " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())
    assert all(caption in shown for caption in captions)
    short = [Section("Title", "text", parts[0].panels[1:])]
    assert figure.get_figheight() > _figure("title", [], short).get_figheight()


@pytest.fixture
def untrained(monkeypatch):
    """The command with a random network in place of the repository's."""
    monkeypatch.setattr("golden.explain.__main__.load_float",
                        lambda model, size, width: small(model, width=width, size=size or 32))


ARGUMENTS = ["--size", "32", "--width", "3", "--window", "16", "--stride", "16", "--superpixels",
             "9", "--samples", "20"]


def test_command(untrained, tmp_path, capsys):
    out = tmp_path / "new" / "sheet"
    assert main([*ARGUMENTS, "--model", "elec4848", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["explanation.html", "explanation.png"]
    printed = capsys.readouterr().out
    assert "Float network elec4848, width 3, frame 32 x 32." in printed
    assert "of the frame is called lesion, at a mean confidence of" in printed
    assert "Against the truth: Dice " in printed
    assert "Is there a lesion: " in printed and "Hiding 16 x 16 pixels in the " in printed
    assert "Of 9 superpixels, one of " in printed
    assert max(map(len, printed.split(str(out))[0].splitlines())) <= 80
    assert "the maps mean nothing" in printed.replace("\n", " ")
    page = (out / "explanation.html").read_text()
    assert "not for clinical use" in page
    assert "<h1>elec4848: phantom:7</h1>" in page


def test_command_names_no_folder(untrained, tmp_path):
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "scan.png")
    assert main([*ARGUMENTS, "--image", str(tmp_path / "scan.png"), "--out", str(tmp_path)]) == 0
    page = (tmp_path / "explanation.html").read_text()
    assert "<h1>elec4848: scan.png</h1>" in page
    assert str(tmp_path) not in page
    assert "Against the truth" not in page


def test_command_explains_a_checkpoint(tmp_path, capsys):
    save_checkpoint(tmp_path / "mine.pt", small("unet-busi"))
    arguments = ["--model", "unet-busi", "--checkpoint", str(tmp_path / "mine.pt"), "--window",
                 "32", "--superpixels", "4", "--samples", "8", "--out", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "Float network unet-busi, width 4, frame 32 x 32; weights of mine.pt." in printed
    assert "mean nothing" not in printed
    assert main([*arguments[2:], "--model", "elec4848"]) == 2
    assert "is of unet-busi with width 4" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    (["--image", "none.png"],
     "No file 'none.png'; name an image, or phantom:SEED for a synthetic one"),
    (["--truth", "none.png"],
     "No file 'none.png'; name an image, or phantom:SEED for a synthetic one"),
    (["--model", "resnet"], f"No model 'resnet'; known: {', '.join(MODELS)}"),
    (["--window", "33"], "Occlusion window must be 1..32 for frames of 32 pixels, not 33"),
    (["--stride", "0"],
     "Occlusion stride must be 1..16, the window, so that no pixel is left out, not 0"),
    (["--superpixels", "65"],
     "Number of superpixels must be 1..64 for frames of 32 pixels, not 65"),
    (["--samples", "17"],
     "Number of samples must be at least 18, two for each superpixel, not 17"),
    (["--stride", "x"], "argument --stride: invalid int value: 'x'; see `make help`"),
])
def test_command_complains_in_one_line(arguments, message, tmp_path, capsys):
    assert main([*ARGUMENTS, "--out", str(tmp_path / "out"), *arguments]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "out").exists()


def test_windows_are_counted_as_they_are_made():
    assert Occlusion(50, 30).windows(256) == math.ceil(206 / 30 + 1)**2 == 64
