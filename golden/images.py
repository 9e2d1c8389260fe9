"""Frames from files, and from phantoms.

A size is the side of a square frame, or its rows and columns.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from golden.errors import InputError
from golden.names import PHANTOM
from golden.phantom import phantom

__all__ = ["FORMATS", "PHANTOM", "as_frame", "image_size", "read_image", "read_truth"]

FORMATS = ("PNG", "JPEG", "BMP")
ORIENTATION = 0x0112            # EXIF's tag; from 5 on rows and columns are swapped


def read_image(path, size):
    """A frame as uint8 3 x H x W, stretched to that size, from a file or ``phantom:SEED``.

    PNG, JPEG and BMP in grey, RGB, RGBA (over black) or palette colours; of 16-bit grey the upper
    byte is kept. JPEG orientation is applied. Anything else is an :class:`InputError`.
    """
    if str(path).startswith(PHANTOM):
        image_HW, _ = _phantom(path, size)
        return as_frame(Image.fromarray(image_HW), path, size)
    return as_frame(_open(Path(path)), path, size)


def as_frame(image, name, size):
    """What :func:`read_image` makes of an opened picture; ``name`` is what errors call it."""
    image = _eight_bits(image, name).resize(_shape(size)[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def read_truth(path, size):
    """The true mask of a frame as uint8 H x W, 0 or 255: a mask file or ``phantom:SEED``."""
    if str(path).startswith(PHANTOM):
        _, mask_HW = _phantom(path, size)
        image = Image.fromarray(mask_HW)
    else:
        image = _eight_bits(_open(Path(path)), path).convert("L")
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
    with _open(Path(path), decode=False) as image:
        columns, rows = image.size
        lies = image.format == "JPEG" and image.getexif().get(ORIENTATION, 1) >= 5
    return (columns, rows) if lies else (rows, columns)


def _shape(size):
    """Rows and columns."""
    shape = (size, size) if isinstance(size, int) else tuple(size)
    if min(shape) < 1:
        raise InputError(f"Frame size must be positive, not {size!r}")
    return shape


def _phantom(name, size):
    """Image and mask of a phantom; always square, with the frame's longer side."""
    digits = str(name).removeprefix(PHANTOM)
    if not (digits.isascii() and digits.isdigit()):
        raise InputError(f"Phantom seed must be a whole number of at least 0, not {digits!r}; "
                         f"for example phantom:7")
    return phantom(int(digits), max(_shape(size)))


def _open(path, decode=True):
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; name one image in it")
    try:
        image = Image.open(path, formats=FORMATS)
        if decode:
            image.load()
        return image
    except FileNotFoundError:
        raise InputError(f"No file {str(path)!r}; name an image, or phantom:SEED for a synthetic "
                         f"one") from None
    except PermissionError:
        raise InputError(f"File {str(path)!r} may not be read; check its permissions") from None
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise InputError(f"File {str(path)!r} is not a usable PNG, JPEG or BMP image; convert it "
                         f"to PNG") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"Image {str(path)!r} cannot be decoded ({error}); the file may be "
                         f"damaged or cut short, export it again") from None


def _eight_bits(image, path):
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
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
