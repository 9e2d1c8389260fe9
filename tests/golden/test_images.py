import os
import re

import numpy as np
import pytest
import torch
from PIL import Image

from golden.errors import InputError
from golden.images import MOST_PIXELS, as_frame, image_size, read_image, read_truth
from golden.phantom import phantom


@pytest.fixture
def save(tmp_path):
    def save(image, name="an image (1).png", **options):
        path = tmp_path / name
        image.save(path, **options)
        return path

    return save


def message(text):
    return f"^{re.escape(text)}$"


def test_phantom():
    image = read_image("phantom:7", 64)
    assert image.shape == (3, 64, 64)
    assert image.dtype == torch.uint8
    assert torch.equal(image[0], image[2])
    assert np.array_equal(image[0].numpy(), phantom(7, 64)[0])
    assert np.array_equal(read_truth("phantom:7", 64).numpy(), phantom(7, 64)[1])


@pytest.mark.parametrize("name", ["a b (2).png", "c.bmp", "d.PNG"])
def test_grey_is_spread_over_the_channels(save, name):
    path = save(Image.fromarray(np.full((20, 30), 77, np.uint8)), name)
    assert torch.equal(read_image(str(path), 32), torch.full((3, 32, 32), 77, dtype=torch.uint8))


def test_colours_keep_their_order(save):
    image = read_image(save(Image.new("RGB", (16, 16), (200, 100, 50))), 16)
    assert image[:, 0, 0].tolist() == [200, 100, 50]


def test_jpeg(save):
    image = read_image(save(Image.new("L", (40, 40), 90), "x.jpg", quality=95), 16)
    assert (image.int() - 90).abs().max() <= 2


def test_jpeg_orientation_is_applied(save):
    pixels = np.zeros((32, 32), np.uint8)
    pixels[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 3                                    # upside down
    image = read_image(save(Image.fromarray(pixels), "x.jpg", exif=exif), 32)
    assert image[0, 4, 4] < 10
    assert image[0, 28, 4] > 245


def test_transparency_shows_black(save):
    image = read_image(save(Image.new("RGBA", (16, 16), (200, 100, 50, 128))), 16)
    assert image[:, 3, 3].tolist() == [100, 50, 25]


def test_palette(save):
    colours = Image.new("RGB", (16, 16), (200, 100, 50)).convert("P", palette=Image.ADAPTIVE)
    assert read_image(save(colours), 16)[:, 0, 0].tolist() == [200, 100, 50]


def test_sixteen_bits_keep_the_upper_byte(save):
    image = read_image(save(Image.fromarray(np.full((16, 16), 0x4DFF, np.uint16))), 16)
    assert torch.equal(image, torch.full((3, 16, 16), 0x4D, dtype=torch.uint8))


def test_truth_is_black_or_white(save):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4] = 200
    truth = read_truth(save(Image.fromarray(pixels)), 16)
    assert truth[:8].eq(255).all()
    assert truth[8:].eq(0).all()


def test_missing_file(tmp_path):
    path = str(tmp_path / "no such.png")
    with pytest.raises(InputError, match=message(
            f"No file {path!r}; name an image, or phantom:SEED for a synthetic one")):
        read_image(path, 32)


def test_folder(tmp_path):
    with pytest.raises(InputError, match=message(
            f"{str(tmp_path)!r} is a folder; name one image in it")):
        read_image(tmp_path, 32)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"not an image at all"])
def test_not_an_image(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message(
            f"File {str(path)!r} is not a usable PNG, JPEG or BMP image; convert it to PNG")):
        read_image(path, 32)


def test_unreadable(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("golden.images.Image.open", refuse)
    path = str(tmp_path / "x.png")
    with pytest.raises(InputError, match=message(
            f"File {path!r} may not be read; check its permissions")):
        read_image(path, 32)


def test_cut_short(save, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    whole = save(Image.fromarray(noise))
    path = tmp_path / "half.png"
    path.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(InputError, match=(
            f"^Image {re.escape(repr(str(path)))} cannot be decoded \\(.*\\); the file may be "
            f"damaged or cut short, export it again$")):
        read_image(path, 32)


def test_more_than_16_bits():
    deep = Image.fromarray(np.full((4, 4), 70000, np.int32))
    with pytest.raises(InputError, match=message(
            "Image 'deep' has more than 16 bits a pixel; convert it to 8-bit PNG")):
        as_frame(deep, "deep", 16)


def test_floating_point_pixels():
    with pytest.raises(InputError, match=message(
            "Image 'real' has floating-point pixels; convert it to 8-bit PNG")):
        as_frame(Image.new("F", (4, 4)), "real", 16)


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5", "²", "٣", "9" * 19, "9" * 5000])
@pytest.mark.parametrize("read", [read_image, read_truth])
def test_phantom_seed(read, seed):
    """Python makes numbers of other digits than ours, and none of more than 4300."""
    with pytest.raises(InputError, match=message(
            f"Phantom seed must be a whole number of at least 0, of up to 18 digits, not "
            f"{seed[:40]!r}; for example phantom:7")):
        read(f"phantom:{seed}", 32)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path, make):
    path = tmp_path / "scan.png"
    make(path)
    for read in (lambda: read_image(path, 16), lambda: read_truth(path, 16),
                 lambda: image_size(path)):
        with pytest.raises(InputError, match=message(
                f"{str(path)!r} is a pipe or a device; name a file")):
            read()


def test_a_damaged_exif_is_no_crash(save):
    """Pillow finds out when it looks for the orientation, and raises a SyntaxError."""
    path = save(Image.new("RGB", (4, 4)), "scan.png", exif=b"nothing of TIFF here")
    with pytest.raises(InputError, match=r"^Image '.*scan\.png' cannot be decoded \(not a TIFF "
                                         r"file \(header .*\)\); the file may be damaged or cut "
                                         r"short, export it again$"):
        read_image(path, 16)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """80 megapixels in 10 kB: only the header is read."""
    path, columns, rows = tmp_path / "bomb.png", 20_000, 4_000
    Image.new("1", (columns, rows)).save(path)
    assert path.stat().st_size < 20_000
    with pytest.raises(InputError, match=message(
            f"Image {str(path)!r} has 20000 x 4000 pixels, more than {MOST_PIXELS}; make it "
            f"smaller")):
        read_image(path, 16)
    Image.new("1", (20_000, 5_000)).save(path)
    with pytest.raises(InputError, match=message(
            f"Image {str(path)!r} has more than {MOST_PIXELS} pixels; make it smaller")):
        read_image(path, 16)


@pytest.mark.parametrize("name", ["phantom:1", "file"])
def test_any_size(save, name):
    """What a network can take is for the network to say."""
    path = save(Image.fromarray(phantom(1, 64)[0])) if name == "file" else name
    for size, shape in ((24, (24, 24)), (33, (33, 33)), ((40, 24), (40, 24))):
        assert read_image(path, size).shape == (3, *shape)
        assert read_truth("phantom:1", size).shape == shape
    for size in (0, -16, (16, 0)):
        with pytest.raises(InputError, match=message(f"Frame size must be positive, not {size}")):
            read_image(path, size)


def test_a_frame_that_is_not_square_shows_all_of_the_image(save):
    pixels = np.zeros((10, 60), np.uint8)
    pixels[:, 30:] = 255
    image, truth = (read(save(Image.fromarray(pixels)), (32, 16))
                    for read in (read_image, read_truth))
    assert image[0, 20, [2, 13]].tolist() == truth[20, [2, 13]].tolist() == [0, 255]
    for whole, read in ((phantom(5, 32)[0], read_image), (phantom(5, 32)[1], read_truth)):
        tall = read("phantom:5", (32, 16)).to(torch.float32).numpy()
        assert abs(tall.mean() - whole.mean()) < 3


def test_a_mask_of_zeros_and_ones_is_not_taken_for_empty(save):
    path = save(Image.fromarray(np.eye(20, dtype=np.uint8)))
    with pytest.raises(InputError, match=message(
            f"Mask {str(path)!r} has nothing brighter than 1; lesions are 128 to 255, so scale it "
            f"to 0 and 255")):
        read_truth(path, 16)


def test_size_of_an_image(save):
    picture = Image.fromarray(np.zeros((20, 30), np.uint8))
    assert image_size(save(picture)) == (20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6            # the camera was held upright
    assert image_size(save(picture, "turned.jpg", exif=exif)) == (30, 20)
    assert image_size("phantom:3") is None
