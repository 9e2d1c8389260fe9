"""Hostile pictures: still ones, animations, videos, and names that are none."""

import io
import os
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from golden.images import image_size, read_image, read_truth
from sim.campaigns.hostile.cage import Wrong
from sim.campaigns.hostile.kind import Kind, door, must_accept
from sim.campaigns.hostile.mutations import damaged
from sim.clips import read_clip

__all__ = ["PICTURES"]

SAVED  = {"png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "jpg": ("L", "RGB", "CMYK"),
          "bmp": ("1", "L", "P", "RGB"), "gif": ("L", "P", "RGB"), "webp": ("RGB", "RGBA", "L")}
SIZES  = (1, 2, 3, 7, 8, 16, 31, 64)
LONG   = 20_000
BOMB   = 30_000         # rows and columns of one bit each: 2.7 GB as RGB
CODECS = {"mp4": "libx264", "mkv": "libx264", "avi": "mpeg4", "webm": "libvpx", "mov": "mpeg4",
          "mpg": "mpeg1video"}
CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"iCCP", b"zTXt", b"iTXt", b"tEXt",
          b"eXIf", b"acTL", b"fcTL", b"fdAT", b"pHYs", b"sRGB", b"xXxX", b"sBIT")


def _values(random, rows, columns):
    return np.random.default_rng(random.getrandbits(32)).integers(
        0, 256, (rows, columns, 3), dtype=np.uint8)


def _picture(random, mode, rows=None, columns=None):
    rows, columns = rows or random.choice(SIZES), columns or random.choice(SIZES)
    image = Image.fromarray(_values(random, rows, columns))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode == "LA":
        return image.convert("RGBA").convert("LA")
    return image.convert(mode)


def _encoded(random, kind, mode=None, count=1):
    """A good file as bytes."""
    mode  = mode or random.choice(SAVED[kind])
    first = _picture(random, mode)
    more  = {}
    if count > 1:
        columns, rows = first.size
        more = {"save_all": True, "duration": random.choice((0, 1, 40, 65535)),
                "append_images": [_picture(random, mode, rows, columns)
                                  for _ in range(count - 1)]}
        if kind == "gif":
            more |= {"disposal": random.randrange(4), "loop": random.choice((0, 1, 65535)),
                     "optimize": random.random() < 0.5}
        elif kind == "png":
            more |= {"blend": random.randrange(2), "disposal": 0,
                     "default_image": random.random() < 0.3}
    if kind == "png" and mode == "P" and random.random() < 0.5:
        more["transparency"] = random.choice((0, 255, random.randbytes(9)))
    if kind in ("png", "jpg", "webp") and random.random() < 0.3:
        more["exif"] = _exif(random)
    file = io.BytesIO()
    first.save(file, {"jpg": "jpeg"}.get(kind, kind), **more)
    return file.getvalue()


def _exif(random):
    exif = Image.Exif()
    exif[0x0112] = random.choice((0, 1, 3, 5, 6, 8, 9, 65535))
    blob = exif.tobytes()
    return damaged(random, blob) if random.random() < 0.4 else blob


def _chunks(blob):
    """Type and data of every chunk of a PNG."""
    place = 8
    while place + 8 <= len(blob):
        size, kind = struct.unpack_from(">I4s", blob, place)
        yield kind, blob[place + 8:place + 8 + size]
        place += 12 + size


def _png(chunks):
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks)


def _odd_png(random, blob):
    """A PNG whose chunks are odd, though their checksums are right."""
    chunks = list(_chunks(blob))
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(chunks))
        kind, data = chunks[place]
        match random.randrange(9):
            case 0:
                chunks[place] = kind, damaged(random, data)
            case 1:
                chunks[place] = random.choice(CHUNKS), data
            case 2 if len(chunks) > 1:
                del chunks[place]
            case 3:
                chunks.insert(place, chunks[random.randrange(len(chunks))])
            case 4:
                chunks.insert(place, (random.choice(CHUNKS), random.randbytes(
                    random.choice((0, 1, 4, 8, 26, 256)))))
            case 5:
                header = list(struct.unpack(">IIBBBBB", chunks[0][1][:13].ljust(13, b"\0")))
                header[random.randrange(7)] = random.choice((0, 1, 2, 3, 4, 8, 16, 255))
                chunks[0] = b"IHDR", struct.pack(">IIBBBBB", *header)
            case 6:
                header = chunks[0][1]
                size   = random.choice((0, 1, 2**15, 2**20, 2**31 - 1))
                chunks[0] = b"IHDR", struct.pack(">I", size) + header[4:]
            case 7:
                chunks.insert(1, (random.choice((b"zTXt", b"iCCP")), b"name\0\0" + zlib.compress(
                    bytes(random.choice((10, 10_000_000))))))
            case 8 if kind == b"IDAT":
                chunks[place] = kind, zlib.compress(random.randbytes(random.choice((0, 9, 5000))))
    return _png(chunks)


def _bomb(random, rows, columns):
    """A PNG of a few bytes for each megabyte."""
    header  = struct.pack(">IIBBBBB", columns, rows, 1, 0, 0, 0, 0)
    packing = zlib.compressobj(9)
    row     = bytes(1 + (columns + 7) // 8)
    data    = b"".join(packing.compress(row) for _ in range(rows)) + packing.flush()
    return _png([(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")])


def _put(folder, name, blob):
    path = folder / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(blob)
    return path


def _checked(frames, count, shape):
    """What :func:`sim.clips.read_clip` must give."""
    if len(frames) != count:
        raise Wrong(f"{len(frames)} frames instead of {count}")
    for _, frame in frames:
        if frame.dtype is not torch.uint8 or frame.shape != (3, *shape):
            raise Wrong(f"a frame of {frame.dtype} {tuple(frame.shape)} instead of {shape}")


def _read(path, count, shape):
    """Everything that a command does with a picture."""
    def read():
        frames = read_clip(str(path), count, shape)
        _checked(frames, count, shape)
        again = read_clip(str(path), count, shape)
        if any(not torch.equal(a, b) for (_, a), (_, b) in zip(frames, again, strict=True)):
            raise Wrong("another picture when it is read again")
    return door(read)


def _truth(path, shape):
    def read():
        mask_HW = read_truth(path, shape)
        if mask_HW.shape != shape or not set(mask_HW.unique().tolist()) <= {0, 255}:
            raise Wrong(f"a mask of shape {tuple(mask_HW.shape)}, not {shape}, or other values")
        size = image_size(path)
        if size and min(size) < 1:          # a phantom has none
            raise Wrong(f"a picture of {size}")
    return door(read)


def _exact(random, folder):
    """A good grey, RGB or 16-bit PNG or BMP must come out as it went in."""
    mode, kind = random.choice((("L", "png"), ("RGB", "png"), ("RGB", "bmp"), ("I;16", "png")))
    image = _picture(random, mode)
    path  = folder / "in" / f"good.{kind}"
    image.save(path)
    shape = image.size[::-1]
    wanted = np.asarray(image.convert("RGB") if mode != "I;16" else image)
    if mode == "I;16":
        wanted = np.repeat((wanted >> 8).astype(np.uint8)[..., None], 3, 2)

    def read():
        frame = read_image(path, shape)
        if not np.array_equal(frame.numpy(), wanted.transpose(2, 0, 1)):
            raise Wrong("other pixels than the file has")
    return must_accept(door(read))


def _still(random, corpus, folder):
    if random.random() < 0.05:
        return _exact(random, folder)
    kind = random.choice(("png", "png", "jpg", "bmp"))
    if kind == "png" and random.random() < 0.01:
        rows, columns = random.choice(((BOMB, BOMB), (1, LONG), (LONG, 1), (9000, 9000),
                                       (1, 2**26), (65_000, 65_000)))
        blob = _bomb(random, rows, columns)
    else:
        blob = _encoded(random, kind)
        if kind == "png" and random.random() < 0.5:
            blob = _odd_png(random, blob)
        elif random.random() < 0.95:
            blob = damaged(random, blob, _encoded(random, random.choice(tuple(SAVED))))
    path  = _put(folder, f"scan.{random.choice((kind,) * 8 + ('png', 'jpeg', 'PNG', 'txt', ''))}",
                 blob)
    shape = random.choice(SIZES), random.choice(SIZES)
    if random.random() < 0.3:
        return _truth(path, shape)
    return _read(path, random.choice((1, 1, 1, 2)), shape)


def _moving(random, corpus, folder):
    kind = random.choice(("gif", "png", "webp"))
    blob = _encoded(random, kind, count=random.choice((1, 2, 3, 5)))
    if kind == "png" and random.random() < 0.6:
        blob = _odd_png(random, blob)
    elif random.random() < 0.95:
        blob = damaged(random, blob, _encoded(random, random.choice(tuple(SAVED))))
    path = _put(folder, f"clip.{random.choice((kind,) * 8 + ('gif', 'webp', 'apng', 'mp4'))}", blob)
    return _read(path, random.choice((1, 2, 3, 7)), (random.choice(SIZES), random.choice(SIZES)))


def _video_corpus(run):
    """A short video of each codec that the installed libraries can write."""
    found = {}
    for suffix, codec in CODECS.items():
        file = io.BytesIO()
        with av.open(file, "w", format={"mkv": "matroska", "mpg": "mpeg"}.get(suffix, suffix)) \
                as video:
            stream = video.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            stream.thread_count = 1
            for index in range(4):
                values_HWC = np.full((32, 48, 3), 60 * index, np.uint8)
                values_HWC[8:24, 8 * index:8 * index + 16] = 255
                video.mux(stream.encode(av.VideoFrame.from_ndarray(values_HWC)))
            video.mux(stream.encode())
        found[suffix] = file.getvalue()
    return found


def _video(random, corpus, folder):
    suffix = random.choice(tuple(corpus))
    blob, good = corpus[suffix], random.random() < 0.04
    if not good:
        blob = damaged(random, blob, corpus[random.choice(tuple(corpus))])
    if not good and random.random() < 0.1:
        suffix = random.choice(tuple(corpus))
    path = _put(folder, f"clip.{suffix}", blob)
    command = _read(path, random.choice((1, 3, 6)), (16, random.choice((8, 24))))
    return must_accept(command) if good else command


def _names(random, corpus, folder):
    """Folders, and what IMAGE and TRUTH may name besides good files."""
    home = folder / "in"
    good = _encoded(random, "png", "L")
    for name in ("1.png", "2.PNG", "10.jpg", "1_mask.png", "a,b.png", "x.bmp", "[b].png",
                 ".hidden.png", "readme.txt", "line\nbreak.png", "\x1b[31m.png", " .png"):
        if random.random() < 0.5:
            _put(folder, name, good if random.random() < 0.8 else damaged(random, good))
    odd = random.randrange(8)
    if odd == 0:
        (home / "folder.png").mkdir()
    elif odd == 1:
        os.mkfifo(home / random.choice(("pipe.png", "pipe.gif", "pipe.mp4", "pipe")))
    elif odd == 2:
        (home / random.choice(("loop.png", "loop"))).symlink_to(home / "loop.png")
    elif odd == 3:
        (home / random.choice(("null.png", "zero.png", "zero.mp4"))).symlink_to(
            random.choice(("/dev/null", "/dev/zero", "/dev/stdin", "/proc/self/mem", "/nowhere")))
    elif odd == 4:
        _put(folder, os.fsdecode(b"caf\xe9.png"), good)
    elif odd == 5:
        _put(folder, "empty.png", b"")
    inside = [str(path) for path in home.rglob("*")]
    other  = (str(home), str(home / "missing.png"), "", ",", " , ", "phantom:", "phantom:7",
              "phantom:-1", "phantom:²", "phantom:" + "9" * 30, "phantom:" + "9" * 5000, "phantom",
              "phantom:1,phantom:2", "phantom:٣", "phantom:1.5", "/dev/zero", "/dev/null",
              "/proc/self/mem", "/", "~", "\0", "a\0b.png", "x" * 5000, "..", "file:///x.png",
              "http://127.0.0.1:1/x.mp4", "concat:a.mp4", "\ud800.png", "phantom:0x7")
    given = random.choice(inside + [str(home)] * 3 + list(other))
    if random.random() < 0.2:
        given += "," + random.choice(inside + list(other))
    shape = (16, 16)
    if random.random() < 0.25:
        return _truth(given if given.startswith("phantom:") else Path(given), shape)
    return _read(given, random.choice((1, 2, 5)), shape)


PICTURES = (
    Kind("image",     lambda run: None, _still,  20),
    Kind("animation", lambda run: None, _moving, 12),
    Kind("video",     _video_corpus,    _video,  10),
    Kind("name",      lambda run: None, _names,  8),
)
