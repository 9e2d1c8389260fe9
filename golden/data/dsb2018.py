"""Nuclei of the 2018 Data Science Bowl (Caicedo et al., 2019), in both layouts that circulate.

As published: one folder per image, ``ID/images/ID.png`` and ``ID/masks/*.png``, one mask per
nucleus, which are merged. Flat: ``images/ID.png`` and ``masks/ID.png``. An ``index.csv`` with the
columns ``file`` and ``type``, if there is one, gives the classes; without it there is one.
"""

from golden.data.busi import MASK
from golden.data.rows import read_rows
from golden.data.sample import Dataset, Sample, pictures
from golden.errors import InputError

__all__ = ["is_flat", "is_per_sample", "read_flat", "read_per_sample"]

KIND = "nuclei"


def is_flat(folder):
    """Whether ``images`` and ``masks`` lie in the folder itself."""
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def is_per_sample(folder):
    """Whether any folder below has ``images`` of its own."""
    return any((place / "images").is_dir() for place in folder.iterdir() if place.is_dir())


def read_flat(folder):
    """Masks have the image's stem, or that and ``_mask``, ``_mask_1`` and so on."""
    kinds = _kinds(folder)
    masks = {}
    for path in pictures(folder / "masks"):
        masks.setdefault(MASK.sub("", path.stem), []).append(path)
    samples = [Sample(path.name, path, tuple(masks.get(path.stem, ())),
                      kinds.get(path.name, KIND)) for path in pictures(folder / "images")]
    return _dataset(folder, "DSB2018, flat", samples)


def read_per_sample(folder):
    """One folder per image, one mask per nucleus."""
    kinds = _kinds(folder)
    samples = []
    for place in sorted(place for place in folder.iterdir() if (place / "images").is_dir()):
        masks = tuple(pictures(place / "masks")) if (place / "masks").is_dir() else ()
        for path in pictures(place / "images"):
            samples.append(Sample(f"{place.name}/{path.name}", path, masks,
                                  kinds.get(path.name, KIND)))
    return _dataset(folder, "DSB2018, a folder per image", samples)


def _dataset(folder, layout, samples):
    if not samples:
        raise InputError(f"No image in {str(folder)!r}, though it is laid out as {layout}; copy "
                         f"the images there")
    return Dataset(str(folder), layout, tuple(samples))


def _kinds(folder):
    index = folder / "index.csv"
    if not index.is_file():
        return {}
    columns, rows = read_rows(index)
    if not {"file", "type"} <= set(columns):
        return {}
    return {row["file"]: row["type"] or KIND for row in rows}
