"""Hostile data: tables of images, splits, and folders laid out as data sets are."""

import io
import os

import numpy as np
from PIL import Image

from golden import data
from sim.campaigns.hostile.cage import Wrong
from sim.campaigns.hostile.kind import Kind, door, must_accept
from sim.campaigns.hostile.mutations import damaged, damaged_text

__all__ = ["TABLES"]

SIDE    = 8
KINDS   = ("benign", "malignant", "normal")
LAYOUTS = ("busi", "flat", "each")


def _picture(random, mask=False):
    values = np.random.default_rng(random.getrandbits(32)).integers(0, 256, (SIDE, SIDE), np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.where(values > 127, np.uint8(255), np.uint8(0)) if mask else values).save(
        file, "png")
    return file.getvalue()


def _put(path, blob):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(blob)


def _table(random, home):
    """Images, and the text of a good table of them."""
    lines = ["file,mask,label,group" if random.random() < 0.5 else "file,mask,label"]
    for index in range(random.randint(2, 5)):
        _put(home / f"{index}.png", _picture(random))
        _put(home / f"{index}_mask.png", _picture(random, True))
        lines.append(f"{index}.png,{index}_mask.png,{random.choice(KINDS)}"
                     + (f",g{index}" if lines[0].endswith("group") else ""))
    return "\n".join(lines) + "\n"


def _split_text(samples):
    return "name,class,group,part\n" + "".join(
        f"{s.name},{s.kind},{s.group},{('train', 'validation', 'test')[index % 3]}\n"
        for index, s in enumerate(samples))


def _taken(text, skip, split, good=False):
    """Read data as training, export and evaluation do."""
    def read():
        dataset = data.find(text)
        frames  = data.load(dataset, SIDE, skip=skip)
        count   = len(frames)
        if frames.image.shape[0::2] != (count, SIDE) or frames.truth.shape != (count, SIDE, SIDE):
            raise Wrong(f"frames of shape {tuple(frames.image.shape)}")
        if not set(frames.truth.unique().tolist()) <= {0, 255}:
            raise Wrong("masks with other values than 0 and 255")
        if len(frames.broken) + count != len(dataset.samples) or (frames.broken and not skip):
            raise Wrong("samples that are neither read nor called broken")
        parts = data.split(frames.samples, 0, split)
        names = [sample.name for part in parts.values() for sample in part]
        if sorted(names) != sorted(sample.name for sample in frames.samples):
            raise Wrong("a split that loses samples or has them twice")
        if len(set(names)) != len(names):
            raise Wrong("two samples of one name")
        for part in parts.values():
            frames.pick(part)
    return must_accept(door(read)) if good else door(read)


def _manifest(random, corpus, folder):
    home = folder / "in"
    text = _table(random, home)
    good = random.random() < 0.04
    path = home / "table.csv"
    path.write_bytes(text.encode() if good else damaged_text(random, text))
    return _taken(str(path), random.random() < 0.5, None, good)


def _split(random, corpus, folder):
    home = folder / "in"
    path = home / "table.csv"
    path.write_text(_table(random, home))
    text = _split_text(data.load(data.find(path), SIDE).samples)
    good = random.random() < 0.04
    split = home / "split.csv"
    split.write_bytes(text.encode() if good else damaged_text(random, text))
    if not good and random.random() < 0.03:
        split.unlink()
        if random.random() < 0.5:
            split.mkdir()
    return _taken(str(path), False, split, good)


def _laid_out(random, home, layout):
    for index in range(random.randint(2, 4)):
        image, mask = _picture(random), _picture(random, True)
        if layout == "busi":
            kind = KINDS[index % 3]
            _put(home / "Dataset_BUSI_with_GT" / kind / f"{kind} ({index}).png", image)
            _put(home / "Dataset_BUSI_with_GT" / kind / f"{kind} ({index})_mask.png", mask)
        elif layout == "flat":
            _put(home / "images" / f"{index}.png", image)
            _put(home / "masks" / f"{index}.png", mask)
        else:
            _put(home / f"id{index}" / "images" / f"id{index}.png", image)
            _put(home / f"id{index}" / "masks" / "a.png", mask)
            _put(home / f"id{index}" / "masks" / "b.png", _picture(random, True))
    if random.random() < 0.4:
        header = "file,related_group,type" if random.random() < 0.8 else "file,type"
        more   = ",g" * header.count(",")
        names  = sorted(path.name for path in home.rglob("*.png"))[:4]
        _put(home / "index.csv", "\n".join([header, *(f"{name}{more}" for name in names)]).encode())


def _folder(random, corpus, folder):
    """A data set whose tree is not quite as published."""
    home = folder / "in" / "data"
    home.mkdir()
    _laid_out(random, home, random.choice(LAYOUTS))
    good = random.random() < 0.04
    for _ in range(0 if good else random.randint(1, 4)):
        paths = sorted(home.rglob("*"))
        path  = random.choice(paths) if paths else home / "x.png"
        file  = path.is_file() and not path.is_symlink()
        match random.randrange(11):
            case 0 if file:
                path.write_bytes(damaged(random, path.read_bytes()))
            case 1 if file:
                path.unlink()
            case 2 if file and path.suffix == ".csv":
                path.write_bytes(damaged_text(random, path.read_text(errors="replace")))
            case 3 if file:
                path.unlink()
                path.mkdir()
            case 4:
                target = path.with_name(random.choice((
                    f"{path.name}_", f"{path.stem}_mask{path.suffix}", "masks", "images", "benign",
                    "\n.png", "\x1b[2J.png", path.name.upper())))
                if not target.exists():
                    path.rename(target)
            case 5 if file:
                path.unlink()
                path.symlink_to(random.choice(("/dev/zero", "/dev/null", "/nowhere", path.name,
                                               "..", str(home))))
            case 6 if not (pipe := path.parent / random.choice((
                    "pipe.png", "pipe_mask.png"))).exists():
                os.mkfifo(pipe)
            case 7:
                _put(path.parent / random.choice(("x.png", "y_mask.png", "Z.PNG", "w.jpg")),
                     _picture(random))
            case 8:
                _put(home / "index.csv", damaged_text(
                    random, "file,related_group,type\n0.png,g,a\n1.png,,b\n"))
            case 9 if not (home / "loop").is_symlink():
                (home / "loop").symlink_to(home)
            case 10:
                _put(path.parent / os.fsdecode(b"\xff\xfe.png"), _picture(random))
        if not home.exists():
            break
    given = random.choice((str(home),) * 12 + (str(folder / "in"), "", "phantom:2", "phantom:0",
                          "phantom:", "phantom:²", "phantom:" + "9" * 5000, "/dev/null", "\0",
                          "x" * 5000))
    return _taken(given if not good else str(home), random.random() < 0.5, None, good)


def _of_nothing(run):
    return None


TABLES = (
    Kind("table",  _of_nothing, _manifest, 8),
    Kind("split",  _of_nothing, _split,    6),
    Kind("folder", _of_nothing, _folder,   8),
)
