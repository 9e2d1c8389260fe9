import pytest
import torch

from golden.data.clahe import _equalised, _to_rgb, clahe, to_lab


def test_one_tile_by_hand():
    """Four levels, a quarter each: the running sum is 1/4 to 4/4 where nothing is cut off."""
    levels = torch.tensor([10, 20, 30, 40]).repeat(4, 1)
    assert _equalised(levels, 1, 256)[0].tolist() == [64, 128, 191, 255]


def test_the_limit_by_hand():
    """A constant tile of 16 pixels: 15 are cut, and go to levels 0, 17, 34 and so on, of which six
    lie below 100; with its own one 7 of 16 pixels are counted there."""
    constant = torch.full((4, 4), 100)
    assert _equalised(constant, 1, 1).unique().tolist() == [round(255 * 7 / 16)]


def test_lab_as_opencv_has_it():
    """Values of cv2.cvtColor(image, cv2.COLOR_RGB2LAB) 5.0.0."""
    grey = torch.arange(0, 256, 16, dtype=torch.uint8)[None, None].expand(3, 1, -1)
    lab = to_lab(grey)
    assert lab[0, 0].tolist() == [0, 12, 31, 51, 69, 87, 104, 121, 137, 153, 168, 183, 198, 213,
                                  228, 242]
    assert (lab[1:] == 128).all()


def test_greys_stay_grey_and_come_back():
    grey = torch.arange(256, dtype=torch.uint8)[None, None].expand(3, 1, -1)
    back = _to_rgb(to_lab(grey))
    assert (back == back[:1]).all()
    assert (back.int() - grey.int()).abs().max() <= 1


@pytest.mark.parametrize("kind, step, expected", [
    ("colour", (6, 8), [[[10, 27, 15], [80, 145, 44], [159, 255, 95]],
                        [[53, 51, 16], [135, 160, 79], [97, 0, 67]],
                        [[82, 54, 0], [157, 167, 119], [202, 73, 212]],
                        [[105, 57, 0], [212, 179, 160], [22, 57, 20]]]),
    ("grey", (4, 6), [[[v] * 3 for v in row] for row in (
        (41, 78, 59, 59), (82, 140, 206, 159), (81, 208, 184, 180), (78, 129, 162, 219),
        (78, 231, 162, 235))]),
])
def test_against_opencv(kind, step, expected):
    """What the appendix of ELEC4848 made of these images with OpenCV 5.0.0, here and there."""
    i, j = torch.meshgrid(torch.arange(20), torch.arange(24), indexing="ij")
    image = {"colour": [(i * 7 + j * 5 + i * j % 29) % 200, (i * 3 + j * 11) % 180 + 20,
                        (i * j) % 256],
             "grey": [(i * 5 + j * 3 + i * j % 17) % 160] * 3}[kind]
    result = clahe(torch.stack(image).to(torch.uint8))
    found = result[:, ::step[0], ::step[1]].permute(1, 2, 0).int()
    assert (found - torch.tensor(expected)).abs().max() <= 2
    assert (found != torch.tensor(expected)).float().mean() < 0.2


def test_the_limit_of_opencv():
    """Tiles of 196 pixels, so that a limit of 3 is 2 pixels a level; from OpenCV 5.0.0 too."""
    i, j = torch.meshgrid(torch.arange(112), torch.arange(112), indexing="ij")
    grey = ((i // 3 + j // 2 + i * j % 23) % 120 + 20).to(torch.uint8)
    found = clahe(grey.expand(3, -1, -1))[0, 5::28, 3::28].int()
    assert (found - torch.tensor([[88, 123, 153, 178], [75, 111, 148, 181], [150, 100, 141, 188],
                                  [128, 178, 139, 193]])).abs().max() <= 1


def test_local_contrast_is_raised_everywhere():
    torch.manual_seed(1)
    ramp = torch.linspace(0, 200, 64)[None, :, None]
    image = (ramp + 8 * torch.rand(1, 64, 64)).to(torch.uint8).expand(3, -1, -1)
    result = clahe(image)
    assert result.dtype == torch.uint8
    assert result.shape == image.shape
    for rows in (slice(0, 8), slice(56, 64)):
        assert result[0, rows].float().std() > 1.5 * image[0, rows].float().std()


def test_sizes_that_tiles_do_not_divide():
    torch.manual_seed(1)
    image = torch.randint(0, 256, (3, 21, 30), dtype=torch.uint8)
    assert clahe(image).shape == image.shape
