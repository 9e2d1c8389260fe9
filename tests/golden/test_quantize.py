import math

import pytest
import torch

from golden.images import read_image
from golden.integer import float_mask, run
from golden.metrics import binary, iou, pixel_agreement
from golden.models import seeded
from golden.quantize import fixed_point, quantize, sigmoid_table


def test_fixed_point_normalises():
    m, s = fixed_point(torch.tensor([1.0, 0.5, -0.75, 2.0**-33, 0.0, 2.0**-34]))
    assert m.tolist() == [1 << 14, 1 << 14, -(3 << 13), 1 << 14, 0, 0]
    assert s.tolist() == [14, 15, 15, 47, 1, 1]


def test_fixed_point_carries_into_the_exponent():
    # 1 - 2**-17 has the mantissa 32767.75, which rounds to 2**15: one more than int16 holds.
    m, s = fixed_point(torch.tensor([1 - 2.0**-17], dtype=torch.float64))
    assert (m.item(), s.item()) == (1 << 14, 14)


def test_fixed_point_is_within_half_a_step():
    factors = torch.logspace(-9, 3, 1000, dtype=torch.float64)
    m, s = fixed_point(factors)
    assert ((m * 2.0 ** -s.double() / factors - 1).abs() <= 2.0**-15).all()


def test_fixed_point_refuses_large_factors():
    with pytest.raises(ValueError, match=r"^Factor 16384 is 2\*\*14 or more$"):
        fixed_point(torch.tensor([16384.0]))


def test_sigmoid_table():
    table = sigmoid_table(0.05, 128)
    assert table.dtype == torch.uint8
    assert table[128] == 128
    assert table[148] == math.floor(256 / (1 + math.exp(-1)) + 0.5)
    assert (table[1:] >= table[:-1]).all()
    assert sigmoid_table(1.0, 128)[255] == 255


@pytest.mark.parametrize(("size", "width"), [(64, 8), (48, 3)])
def test_integer_follows_float(size, width):
    network = seeded("elec4848", width)
    graph = quantize(network, [read_image(f"phantom:{seed}", size) for seed in range(4)])
    image = read_image("phantom:11", size)
    probability = network.segment(image)
    mask = float_mask(graph, run(graph, image))
    assert pixel_agreement(binary(probability), binary(mask)) > 0.93
    assert iou(binary(probability), binary(mask)) > 0.85
    assert (probability - mask).abs().mean() < 0.05


def test_every_tensor_follows_float():
    """Dequantised tensors correlate with the float network's, equalisation undone."""
    network = seeded("elec4848", 8)
    image = read_image("phantom:2", 64)
    graph = quantize(network, [image])
    with torch.no_grad():
        trace = network.trace(image[None] / 255)
    for name, value in run(graph, image).items():
        t, expected = graph.tensors[name], trace[name][0]
        real = t.scale * (value.to(torch.float32) - t.zero_point)
        if name.endswith("logit"):      # clipped where the sigmoid saturates
            expected = expected.clamp(-6.5, 6.5)
        if name in graph.equalisation:
            real /= graph.equalisation[name][:, None, None]
        if not name.endswith("_concat"):
            pair = torch.stack([real.flatten(), expected.flatten()])
            assert torch.corrcoef(pair)[0, 1] > 0.97, name


def test_gate_folds_batch_normalisation():
    network = seeded("elec4848", 4)
    image = read_image("phantom:2", 32)
    graph = quantize(network, [image])
    values = run(graph, image)
    for i, skip in enumerate(("c4", "c3", "c2", "c1"), 1):
        norm, t = network.gates[i - 1].norm, graph.tensors[f"gated{i}"]
        alpha = values[f"alpha{i}"].repeat_interleave(2, 1).repeat_interleave(2, 2) / 256
        product = alpha * values[skip] * graph.tensors[skip].scale
        with torch.no_grad():
            exact = norm(product[None])[0] * graph.equalisation[t.name][:, None, None]
        stored = (exact / t.scale + t.zero_point).clamp(0, 255)
        assert (stored - values[t.name]).abs().max() < 0.51


def test_frames_do_not_change_the_network():
    network = seeded("elec4848", 2)
    before = {name: x.clone() for name, x in network.state_dict().items()}
    quantize(network, [read_image("phantom:0", 16)])
    assert all(torch.equal(before[name], x) for name, x in network.state_dict().items())
