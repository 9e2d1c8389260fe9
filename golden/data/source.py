"""Finding out what lies at a path."""

from pathlib import Path

from golden.data import busi, dsb2018, manifest, phantoms
from golden.errors import InputError

__all__ = ["find"]


def find(text):
    """The data set that ``text`` names: ``phantom[:N]``, a table, or a folder as published; or that
    a pandas DataFrame lists.

    Nothing is decoded yet: :func:`golden.data.load` does.
    """
    dataset = manifest.read_frame(text) if manifest.is_frame(text) else _found(str(text))
    for sample in dataset.samples:
        if not all(_is_utf8(part) for part in (sample.name, sample.group)):
            raise InputError(f"Image {sample.name!r} has a name that is not UTF-8; rename it")
    return dataset


def _is_utf8(name):
    """What the file system holds may be any bytes; tables of names cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _found(text):
    if phantoms.is_phantom(text):
        return phantoms.read(text)
    path = Path(text)
    if path.is_file():
        if path.suffix.lower() != ".csv":
            raise InputError(f"{text!r} is one file; name a folder, a table (.csv), or phantom")
        return manifest.read(path)
    if not path.is_dir():
        raise InputError(f"No data at {text!r}; name a folder, a table (.csv), or phantom")
    if busi.home(path) is not None:
        return busi.read(path)
    if dsb2018.is_flat(path):
        return dsb2018.read_flat(path)
    if dsb2018.is_per_sample(path):
        return dsb2018.read_per_sample(path)
    raise InputError(
        f"No data set that is known in {text!r}; expected Dataset_BUSI_with_GT with benign, "
        f"malignant and normal, or images and masks, or ID/images and ID/masks")
