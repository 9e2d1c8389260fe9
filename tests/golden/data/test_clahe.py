import torch

from golden.data.clahe import clahe


def test_one_tile_by_hand():
    """Four levels, a quarter each: the running sum is 1/4 to 4/4 where nothing is cut off."""
    levels = torch.tensor([10, 20, 30, 40], dtype=torch.uint8).repeat(3, 4, 1)
    result = clahe(levels, tiles=1, limit=256)
    assert result[0, 0].tolist() == [64, 128, 191, 255]
    assert torch.equal(result[0], result[2])


def test_the_limit_by_hand():
    """A constant tile: all but one mean of its 16 pixels is cut and spread over 256 levels."""
    constant = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    # Ceiling 1 of 16 pixels: level 100 keeps 1 and all levels gain 15/256.
    expected = round(255 * (1 + 101 * 15 / 256) / 16)
    assert clahe(constant, tiles=1, limit=1).unique().tolist() == [expected]


def test_local_contrast_is_raised_everywhere():
    torch.manual_seed(1)
    ramp = torch.linspace(0, 200, 64)[None, :, None]
    image = (ramp + 8 * torch.rand(1, 64, 64)).to(torch.uint8).expand(3, -1, -1)
    result = clahe(image)
    assert result.dtype == torch.uint8
    assert result.shape == image.shape
    for rows in (slice(0, 8), slice(56, 64)):
        assert result[0, rows].float().std() > 1.5 * image[0, rows].float().std()


def test_sizes_that_tiles_do_not_divide_and_colours():
    torch.manual_seed(1)
    image = torch.randint(0, 256, (3, 21, 30), dtype=torch.uint8)
    result = clahe(image)
    assert result.shape == image.shape
    assert torch.equal(result.argmax(0), image.argmax(0)) or (
        (result.amax(0) == result.gather(0, image.argmax(0, keepdim=True))[0]).all())
