"""A checkpoint as INT8: quantised on calibration images, in the form that the machine runs.

    python -m golden.export --checkpoint runs/elec4848/best.pt --data FOLDER [--out FILE]
    make export CHECKPOINT=runs/elec4848/best.pt DATA=FOLDER [OUT=FILE]

Without ``--out`` the file goes where :func:`golden.models.load_graph` looks for it, in
``golden/weights``. Calibration images are evenly chosen from the training part of the data's
split, and phantoms, half and half where there are both.
"""

import argparse
import sys
from pathlib import Path

from golden import data
from golden.data import phantoms
from golden.errors import InputError
from golden.models import save_trained, weights_path
from golden.quantize import quantize
from golden.training import load_checkpoint

__all__ = ["calibration_images", "export", "main"]

CALIBRATION_FRAMES = 16


def export(checkpoint, images, out=None, *, model=None, width=None):
    """Quantise a checkpoint on uint8 frames and write it; the file's path."""
    if not images:
        raise InputError("The calibration set is empty; give at least one image")
    network = load_checkpoint(checkpoint, model, width, size=images[0].shape[-1])
    path = weights_path(network.name, network.width) if out is None else Path(out)
    graph = quantize(network, images)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    save_trained(part, graph, network)
    part.replace(path)
    return path


def calibration_images(text, size, *, count=CALIBRATION_FRAMES, with_phantoms=True, skip=False):
    """Frames of the data that ``text`` names which may have been trained on, never others."""
    if phantoms.is_phantom(text):
        return _frames(phantoms.phantoms(phantoms.TRAIN_SEEDS, count), size)
    dataset = data.find(text)
    if not all(sample.group for sample in dataset.samples):
        # Groups come from a screen of all images, so all must be seen before any is chosen.
        samples = data.load(dataset, size, skip=skip).samples
        dataset = data.Dataset(dataset.source, dataset.layout, samples)
    train = data.split(dataset.samples)["train"]
    if not train:
        raise InputError(f"No image of {text!r} falls into the training part; give more images")
    real = count // 2 if with_phantoms else count
    chosen = tuple(train[i * len(train) // real] for i in range(min(real, len(train))))
    images = _frames(data.Dataset(dataset.source, dataset.layout, chosen), size, skip)
    if with_phantoms:
        images += _frames(phantoms.phantoms(phantoms.TRAIN_SEEDS, count - len(images)), size)
    return images


def _frames(dataset, size, skip=False):
    frames = data.load(dataset, size, skip=skip)
    return [frames.frame(i) for i in range(len(frames))]


def main(arguments=None):
    """Command line; exit status 2 and one line on bad input."""
    parser = argparse.ArgumentParser(prog="python -m golden.export", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--model", help="refuse a checkpoint of another network")
    parser.add_argument("--width", type=int, help="refuse a checkpoint of another width")
    parser.add_argument("--size", type=int, help="of calibration images (default: the network's)")
    parser.add_argument("--data", default="phantom", help="where calibration images come from")
    parser.add_argument("--images", type=int, default=CALIBRATION_FRAMES, help="how many")
    parser.add_argument("--no-phantoms", dest="phantoms", action="store_false",
                        help="calibrate on the data alone")
    parser.add_argument("--out", type=Path, help="file to write (default: into golden/weights)")
    parser.add_argument("--skip", action="store_true", help="leave broken pairs out")
    options = parser.parse_args(arguments)
    try:
        if options.images < 1:
            raise InputError("The calibration set is empty; give at least one image")
        network = load_checkpoint(options.checkpoint, options.model, options.width)
        images = calibration_images(options.data, options.size or network.size,
                                    count=options.images, with_phantoms=options.phantoms,
                                    skip=options.skip)
        path = export(options.checkpoint, images, options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {path.stat().st_size} bytes, calibrated on {len(images)} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
