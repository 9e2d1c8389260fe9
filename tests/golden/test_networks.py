import pytest
import torch

from golden.errors import InputError
from golden.networks import elec4848, macs, parameters


def test_parameters_and_macs_of_the_paper():
    network = elec4848()
    assert round(parameters(network) / 1e6, 2) == 10.20
    units = macs(network)
    assert {unit: round(count / 1e9, 2) for unit, count in units.items()} == {
        "encoder": 4.28, "attention": 1.81, "decoder": 9.67}
    assert round(sum(units.values()) / 1e9, 2) == 15.76


def test_shapes_of_every_level():
    shapes = {name: tuple(x.shape[1:])
              for name, x in elec4848(width=2).eval().trace(torch.zeros(1, 3, 32, 48)).items()}
    assert shapes["c1"] == (2, 32, 48)
    assert shapes["p4"] == (16, 2, 3)
    assert shapes["encoding"] == (32, 2, 3)
    assert shapes["g1_down"] == shapes["g1_normal"] == (16, 2, 3)
    assert shapes["alpha1"] == (1, 2, 3)
    assert shapes["gated1"] == (16, 4, 6)
    assert shapes["d1_concat"] == (48, 4, 6)
    assert shapes["d4"] == (2, 32, 48)
    assert shapes["mask"] == (1, 32, 48)


@torch.no_grad()
def test_down_pads_after_as_keras_does():
    gate = elec4848(width=1).gates[0].eval()
    gate.down.weight.zero_()
    gate.down.weight[0, 0, 0, 0] = 1
    gate.down.bias.zero_()
    skip = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 8, 4, 4)
    assert gate(torch.zeros(1, 16, 2, 2), skip)["down"][0, 0].tolist() == [[0, 2], [8, 10]]


@torch.no_grad()
def test_segment_scales_bytes_to_one():
    network = elec4848(size=16, width=2)
    frame = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    expected = torch.sigmoid(network.eval()(frame[None] / 255))[0, 0]
    assert torch.allclose(network.segment(frame), expected)


@pytest.mark.parametrize(("size", "hint"), [(0, 16), (-16, 16), (100, 96), (8, 16), (255, 256)])
def test_frame_size_must_be_a_multiple_of_16(size, hint):
    with pytest.raises(InputError, match=f"^Frame size must be a positive multiple of 16, not "
                                         f"{size}; try {hint}$"):
        elec4848(size=size)


def test_width_must_be_positive():
    with pytest.raises(InputError, match="^Network width must be positive, not 0; "
                                         "the paper's is 32$"):
        elec4848(width=0)
