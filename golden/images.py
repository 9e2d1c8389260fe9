"""Frames from files, and from phantoms.

A size is the side of a square frame, or its rows and columns.
"""

import struct
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from golden.errors import InputError
from golden.files import check_file
from golden.names import PHANTOM
from golden.phantom import phantom

__all__ = ["FORMATS", "MOST_PIXELS", "PHANTOM", "as_frame", "image_size", "opened", "padded",
           "phantom_seed", "read_image", "read_truth"]

FORMATS = ("PNG", "JPEG", "BMP")
ORIENTATION = 0x0112            # EXIF's tag; from 5 on rows and columns are swapped
SEED_DIGITS = 18                # of a phantom: it fits a word
MOST_PIXELS = 2**26             # of a picture: 8192 x 8192, whose 16-bit values still fit memory

# What Pillow's decoders raise, all but undocumented, when a file breaks its format's rules.
DAMAGED = (OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, KeyError,
           MemoryError, OverflowError, ZeroDivisionError, struct.error, UserWarning)


def read_image(path, size):
    """A frame as uint8 3 x H x W, stretched to that size, from a file or ``phantom:SEED``.

    PNG, JPEG and BMP in grey, RGB, RGBA (over black) or palette colours; of 16-bit grey the upper
    byte is kept. JPEG orientation is applied. Anything else is an :class:`InputError`.
    """
    if str(path).startswith(PHANTOM):
        image_HW, _ = phantom(phantom_seed(path), max(_shape(size)))
        return as_frame(Image.fromarray(image_HW), path, size)
    with opened(path) as file:
        image = ImageOps.exif_transpose(file)       # decodes
    return as_frame(image, path, size)


def as_frame(image, name, size):
    """What :func:`read_image` makes of a decoded picture; ``name`` is what errors call it."""
    image = _eight_bits(image, name).resize(_shape(size)[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def padded(picture_CHW, sides):
    """A frame of so many rows and columns with a picture at its upper left, whose last row and
    column are repeated."""
    rows, columns = (torch.arange(side).clamp(max=own - 1)
                     for side, own in zip(sides, picture_CHW.shape[1:], strict=True))
    return picture_CHW[:, rows][:, :, columns]


def read_truth(path, size):
    """The true mask of a frame as uint8 H x W, 0 or 255: a mask file or ``phantom:SEED``."""
    if str(path).startswith(PHANTOM):
        _, mask_HW = phantom(phantom_seed(path), max(_shape(size)))
        image = Image.fromarray(mask_HW)
    else:
        with opened(path) as file:
            image = ImageOps.exif_transpose(file)
        image = _eight_bits(image, path).convert("L")
    _, brightest = image.getextrema()
    if 0 < brightest <= 127:
        raise InputError(f"Mask {str(path)!r} has nothing brighter than {brightest}; lesions are "
                         f"128 to 255, so scale it to 0 and 255")
    image = image.resize(_shape(size)[::-1], Image.Resampling.NEAREST)
    return torch.from_numpy(np.where(np.array(image) > 127, np.uint8(255), np.uint8(0)))


def image_size(path):
    """Rows and columns of an image file, orientation applied; None of a phantom: it has any."""
    if str(path).startswith(PHANTOM):
        return None
    with opened(path) as image:
        columns, rows = image.size
        lies = image.format == "JPEG" and image.getexif().get(ORIENTATION, 1) >= 5
    return (columns, rows) if lies else (rows, columns)


def phantom_seed(name):
    """The seed of ``phantom:SEED``."""
    digits = str(name).removeprefix(PHANTOM)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= SEED_DIGITS):
        raise InputError(f"Phantom seed must be a whole number of at least 0, of up to "
                         f"{SEED_DIGITS} digits, not {digits[:40]!r}; for example phantom:7")
    return int(digits)


@contextmanager
def opened(path, formats=FORMATS, known="PNG, JPEG or BMP"):
    """An image file, to be decoded within the block and nothing else: damage that shows there is
    an :class:`InputError`. ``known`` is what errors say may be given."""
    path = Path(path)
    try:
        check_file(path)
        with warnings.catch_warnings():
            for damage in (Image.DecompressionBombWarning, UserWarning):
                warnings.simplefilter("error", damage)
            with Image.open(path, formats=formats) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise InputError(f"Image {str(path)!r} has {image.width} x {image.height} "
                                     f"pixels, more than {MOST_PIXELS}; make it smaller")
                yield image
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"No file {str(path)!r}; name an image, or phantom:SEED for a synthetic "
                         f"one") from None
    except PermissionError:
        raise InputError(f"File {str(path)!r} may not be read; check its permissions") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"Image {str(path)!r} has more than {MOST_PIXELS} pixels; make it "
                         f"smaller") from None
    except UnidentifiedImageError:
        raise InputError(f"File {str(path)!r} is not a usable {known} image; convert it "
                         f"to PNG") from None
    except DAMAGED as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"Image {str(path)!r} cannot be decoded ({what}); the file may be "
                         f"damaged or cut short, export it again") from None


def _shape(size):
    """Rows and columns."""
    shape = (size, size) if isinstance(size, int) else tuple(size)
    if min(shape) < 1:
        raise InputError(f"Frame size must be positive, not {size!r}")
    return shape


def _eight_bits(image, path):
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"Image {str(path)!r} has more than 16 bits a pixel; convert it to "
                             f"8-bit PNG")
        image = Image.fromarray(np.uint8(values >> 8))
    if image.mode == "F":
        raise InputError(f"Image {str(path)!r} has floating-point pixels; convert it to 8-bit PNG")
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB")
