"""A checkpoint as INT8: quantised on calibration images, in the form that the machine runs.

    python -m golden.export --checkpoint runs/elec4848/best.pt --data FOLDER [--out FILE]
    make export CHECKPOINT=runs/elec4848/best.pt DATA=FOLDER [OUT=FILE]

Shipped weights go by name, such as ``CHECKPOINT=elec4848-32``, and are quantised anew. Without
``--out`` the file goes where :func:`golden.models.load_graph` looks for it, in ``golden/weights``.
Calibration images are evenly chosen from the training part of the data's split, and phantoms, half
and half where there are both.

``--clipping`` says where scales end (:mod:`golden.calibration`).

``--temperature`` divides the logits before, so that the confidence in the file means something;
``fit`` by what suits the validation part of the data. No pixel of a float mask changes.
"""

import sys
from pathlib import Path

from rich.console import Console

from golden import data
from golden.command import Parser, exit_code
from golden.confidence import fit_temperature, temper
from golden.data import phantoms
from golden.errors import InputError
from golden.folders import Fresh
from golden.models import save_trained, weights_path
from golden.names import CLIPPING, CLIPPINGS
from golden.places import CHECKOUT
from golden.progress import bars
from golden.quantize import quantize
from golden.training import load_checkpoint

__all__ = ["FIT", "calibration_images", "fitted", "main", "parse_temperature", "quantise"]

CALIBRATION_FRAMES = 16
VALIDATION_PHANTOMS = 32
FIT = "fit"


def calibration_images(train, size, *, count=CALIBRATION_FRAMES, with_phantoms=True,
                       equalise=False):
    """Frames to quantise on: evenly chosen ones of ``train``, and as many phantoms.

    ``train`` are the :class:`golden.data.Frames` of a training part; None: phantoms alone.
    """
    images = []
    if train is not None:
        if not len(train):
            raise InputError("The train part of the data is empty, and calibration takes no other; "
                             "give more images, or DATA=phantom")
        real = min(len(train), count // 2 if with_phantoms else count)
        images = [train.frame(i * len(train) // real) for i in range(real)]
    if train is None or with_phantoms:
        more = data.load(phantoms.phantoms(phantoms.TRAIN_SEEDS, count - len(images)), size,
                         equalise=equalise)
        images += [more.frame(i) for i in range(len(more))]
    return images


def quantise(network, images, name, console, progress, *, clipping=CLIPPING):
    """The integer graph of a network that came from ``name``, with something to look at."""
    console.print(f"quantising {name} on {len(images)} frames")
    task = progress.add_task("quantising", total=len(images))
    return quantize(network, images, clipping=clipping, advance=lambda: progress.advance(task))


def parse_temperature(text):
    """``fit``, a number above 0, or None, of what a person gives."""
    if text in (None, FIT):
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(f"TEMPERATURE must be {FIT} or a number above 0, not {text!r}")
    return value


def fitted(network, validation, console, progress):
    """The temperature that suits a validation part, with something to look at."""
    task = progress.add_task("fitting the temperature", total=len(validation))
    temperature = fit_temperature(network, validation, advance=lambda: progress.advance(task))
    console.print(f"temperature {temperature:.4f} fits {len(validation)} validation images")
    return temperature


def main(arguments=None):
    """Command line; exit status 2 and one line on bad input."""
    return exit_code(_execute, arguments)


def _parse(arguments):
    parser = Parser("golden.export", __doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--model", help="refuse a checkpoint of another network")
    parser.add_argument("--width", type=int, help="refuse a checkpoint of another width")
    parser.add_argument("--size", type=int, help="of calibration images (default: the network's)")
    parser.add_argument("--data", default="phantom", help="where calibration images come from")
    parser.add_argument("--split", type=Path, metavar="CSV", help="a split.csv to use")
    parser.add_argument("--split-seed", type=int, default=0, help="of the split, if none is given")
    parser.add_argument("--images", type=int, default=CALIBRATION_FRAMES, help="how many")
    parser.add_argument("--no-phantoms", dest="phantoms", action="store_false",
                        help="calibrate on the data alone")
    parser.add_argument("--clipping", choices=CLIPPINGS, default=CLIPPING,
                        help=f"where scales end (default: {CLIPPING})")
    parser.add_argument("--temperature", metavar="fit|X",
                        help="divide the logits by X, or by what fits the validation part best")
    parser.add_argument("--clahe", action="store_true", help="equalise images as ELEC4848 does")
    parser.add_argument("--out", type=Path, help="file to write (default: into golden/weights)")
    parser.add_argument("--skip", action="store_true", help="leave broken pairs out")
    return parser.parse_args(arguments)


def _execute(arguments):
    options = _parse(arguments)
    if options.images < 1:
        raise InputError("The calibration set is empty; give at least one image")
    temperature = parse_temperature(options.temperature)
    console = Console(soft_wrap=True, highlight=False)
    network = load_checkpoint(options.checkpoint, options.model, options.width, options.size)
    if options.out is None and not CHECKOUT:
        raise InputError("Name a file with OUT; the weights of an installed package stay as they "
                         "are")
    path = options.out or weights_path(network.name, network.width)
    with bars(console) as progress:
        train, validation = _parts(options, network.size, progress, temperature == FIT)
        if temperature == FIT:
            temperature = fitted(network, validation, console, progress)
        if temperature is not None:
            network = temper(network, temperature)
        images = calibration_images(train, network.size, count=options.images,
                                    with_phantoms=options.phantoms, equalise=options.clahe)
        graph = quantise(network, images, options.checkpoint, console, progress,
                         clipping=options.clipping)
    with Fresh(path.parent, (), shared=True) as folder:
        save_trained(folder / path.name, graph, network)
    console.print(f"{path}: {path.stat().st_size} bytes")


def _parts(options, size, progress, validates):
    """Frames of the data that may have been trained on, None for phantoms, of which there are more;
    and those that chose, None unless asked for."""
    dataset = data.find(options.data)
    if phantoms.is_phantom(options.data):
        chosen = phantoms.phantoms(phantoms.VALIDATION_SEEDS, VALIDATION_PHANTOMS)
        return None, data.load(chosen, size, equalise=options.clahe) if validates else None
    task = progress.add_task("reading images", total=len(dataset.samples))
    frames = data.load(dataset, size, skip=options.skip, equalise=options.clahe,
                       advance=lambda: progress.advance(task))
    parts = data.split(frames.samples, options.split_seed, options.split)
    return frames.pick(parts["train"]), frames.pick(parts["validation"])


if __name__ == "__main__":
    sys.exit(main())
