import torch

from golden.training.augment import AUGMENTATIONS, Augmentation, augment, blend


def block():
    truth = torch.zeros(32, 64, 64, dtype=torch.uint8)
    truth[:, 12:40, 20:50] = 255
    return truth


def test_frame_and_truth_move_together():
    torch.manual_seed(1)
    truth = block()
    x, t = augment(truth[:, None], truth, 32, AUGMENTATIONS["ultrasound"])
    assert x.shape == t.shape == (32, 1, 32, 32)
    assert set(t.unique().tolist()) == {0.0, 1.0}
    assert 0 <= x.min()
    assert x.max() <= 1
    # Wherever the window went, bright is lesion and dark is not, but for soft edges.
    assert ((x > 0.5) == (t > 0.5)).float().mean() > 0.93
    assert len({tuple(frame.flatten().tolist()) for frame in t}) > 16


def test_none_changes_nothing():
    torch.manual_seed(1)
    image = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    x, t = augment(image, image[:, 0], 32, AUGMENTATIONS["none"])
    assert torch.equal((255 * x).round().to(torch.uint8), image.clamp(min=0))
    assert torch.equal(t[:, 0], (image[:, 0] > 127).float())


def test_native_windows_keep_the_resolution():
    """Stripes of four pixels stay stripes of four pixels, in a window half as large."""
    torch.manual_seed(1)
    stripes = ((torch.arange(64) // 4) % 2 * 255).to(torch.uint8).expand(8, 64, 64)
    still = Augmentation(whole=1.0, stretch=0, angle=0, elastic=0, gain=(1, 1), gamma=(1, 1),
                         noise=0, offset=0, native=True)
    _, t = augment(stripes[:, None], stripes, 32, still)
    assert (t[:, 0].diff(dim=2).ne(0).sum(2) - 8).abs().max() <= 1


def test_ultrasound_is_never_turned_over():
    torch.manual_seed(1)
    image = torch.zeros(64, 1, 32, 32, dtype=torch.uint8)
    image[:, :, :8, :8] = 255
    ranges = Augmentation(whole=1.0, stretch=0, angle=0, elastic=0)
    _, t = augment(image, image[:, 0], 32, ranges)
    assert (t[:, 0, :8].sum((1, 2)) == 64).all()
    left = t[:, 0, 4, 4]
    assert 0 < left.sum() < 64


def test_blend_lays_over_and_pastes():
    """Of each pixel, image and truth come from the same two frames, in the same parts."""
    torch.manual_seed(1)
    value_N = torch.arange(1, 65) / 64
    x, t = (value_N[:, None, None, None].expand(64, 1, 16, 16) for _ in range(2))
    x, t = blend(x, t, 0.5)
    assert torch.equal(x, t)
    values = [set(frame.flatten().tolist()) for frame in x]
    whole = sum(found == {float(value)} for found, value in zip(values, value_N, strict=True))
    pasted = sum(len(found) == 2 and float(value) in found
                 for found, value in zip(values, value_N, strict=True))
    laid_over = sum(len(found) == 1 and float(value) not in found
                    for found, value in zip(values, value_N, strict=True))
    assert whole + pasted + laid_over == 64
    assert 24 <= whole <= 44
    assert min(pasted, laid_over) >= 8
    frame = next(frame for frame, found in zip(x[:, 0], values, strict=True) if len(found) == 2)
    edges = frame.diff(dim=0).ne(0).any(1).sum() + frame.diff(dim=1).ne(0).any(0).sum()
    assert 1 <= edges <= 4                          # one window
    whole_N1HW = torch.rand(4, 1, 8, 8)
    assert torch.equal(blend(whole_N1HW, whole_N1HW, 0.0)[0], whole_N1HW)
