"""Frames from whatever ``IMAGE`` names: files, folders, phantoms, animations, videos.

Frames come in the order of the names; a folder's images in natural order (``2`` before ``10``),
without the masks that lie beside them (``NAME_mask.png``). Fewer frames than asked for are
repeated from the first one on; of more, the first are taken.
"""

import re
from itertools import chain, islice
from pathlib import Path

import av
from PIL import ImageOps

from golden.errors import InputError
from golden.files import check_file
from golden.images import (
    FORMATS,
    MOST_PIXELS,
    PHANTOM,
    as_frame,
    opened,
    phantom_seed,
    read_image,
)
from golden.names import named_images

__all__ = ["natural_order", "read_clip"]

IMAGES     = {".png", ".jpg", ".jpeg", ".bmp"}
ANIMATIONS = {".gif", ".png", ".apng", ".webp"}
MOVING     = (*FORMATS, "GIF", "WEBP")
VIDEOS     = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv"}
# A file of another kind by its content, such as a list of addresses, is not followed.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,ogg,asf"
MOST_FRAMES = 100_000           # of a run; each is held in memory
MASK       = re.compile(r"_mask(_\d+)?$")


def read_clip(image, frames, size):
    """``frames`` pairs of a name and a frame, uint8 3 x H x W; ``size`` as in :mod:`golden.images`.

    ``image`` is a file, a folder, ``phantom:SEED``, or several of them with commas between; a comma
    in the name of a file that exists belongs to it. A single phantom stands for itself and the
    seeds that follow. Picture 3 of an animation or a video, counted from 0, is called ``FILE#3``.

    Raises
    ------
    InputError
        If nothing is named, or something named cannot be read.
    """
    given = named_images(image)
    if not given:
        raise InputError("No image named; name a file, a folder, or phantom:7 for a synthetic one")
    if not 1 <= frames <= MOST_FRAMES:
        raise InputError(f"Number of frames must be 1 to {MOST_FRAMES}, not {frames!r}")
    if len(given) == 1 and given[0].startswith(PHANTOM):
        first = phantom_seed(given[0])
        given = [f"{PHANTOM}{first + index}" for index in range(frames)]
    found = list(islice(chain.from_iterable(_frames(part, size) for part in given), frames))
    if not found:
        raise InputError(f"{image!r} has no picture; name another file")
    return [found[index % len(found)] for index in range(frames)]


def natural_order(names):
    """``names`` sorted as a person would: numbers in them by value."""
    return sorted(names, key=lambda name: [
        int(part) if index % 2 else part.lower()
        for index, part in enumerate(re.split(r"([0-9]+)", str(name)))])


def _frames(part, size):
    if part.startswith(PHANTOM):
        yield part, read_image(part, size)
        return
    path = Path(part)
    if path.is_dir():
        for image in _folder(path):
            yield str(image), read_image(image, size)
    elif path.suffix.lower() in VIDEOS and path.exists():
        yield from _video(path, size)
    elif path.suffix.lower() in ANIMATIONS and path.exists():
        yield from _animation(path, size)
    else:
        yield part, read_image(path, size)


def _folder(path):
    images = [entry for entry in path.iterdir()
              if entry.suffix.lower() in IMAGES and not entry.name.startswith(".")
              and not MASK.search(entry.stem)]
    if not images:
        raise InputError(f"Folder {str(path)!r} has no PNG, JPEG or BMP image; name another folder,"
                         " or a file")
    return natural_order(images)


def _animation(path, size):
    """Every picture of a GIF, animated PNG or WebP; a still one is an ordinary image."""
    with opened(path, MOVING, "GIF, PNG or WebP") as animation:
        count = getattr(animation, "n_frames", 1)
        if count > 1 or animation.format not in FORMATS:
            for index in range(count):
                animation.seek(index)
                yield f"{path}#{index}", as_frame(ImageOps.exif_transpose(animation), path, size)
            return
    yield str(path), read_image(path, size)


def _video(path, size):
    check_file(path)
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        with av.open(str(path), options=options) as video:
            if not video.streams.video:
                raise InputError(f"Video {str(path)!r} has no picture stream; name another file")
            for index, picture in enumerate(video.decode(video=0)):
                if picture.width * picture.height > MOST_PIXELS:
                    raise InputError(f"Video {str(path)!r} has pictures of {picture.width} x "
                                     f"{picture.height} pixels, more than {MOST_PIXELS}; make "
                                     f"them smaller")
                yield f"{path}#{index}", as_frame(picture.to_image(), path, size)
    except (av.error.FFmpegError, UnicodeDecodeError, MemoryError) as error:
        what = getattr(error, "strerror", None) or str(error) or "more than memory holds"
        raise InputError(f"Video {str(path)!r} cannot be decoded ({what}); convert it to MP4, or "
                         f"to a folder of PNG images") from None
