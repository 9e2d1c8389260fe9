"""``make explain``: one sheet of maps that show why a network decided so about one frame.

Exit code 0: the sheet is written; 2: it could not be made, and one line says why. The output
folder appears, or changes, only when the sheet is complete.
"""

import sys
import time
from pathlib import Path
from textwrap import fill

from rich.console import Console

from golden.command import Parser, exit_code
from golden.explain.lime import Lime
from golden.explain.maps import Occlusion, explain
from golden.explain.sheet import sections, write_sheet
from golden.explain.words import sentences
from golden.folders import Fresh
from golden.images import PHANTOM, read_image, read_truth
from golden.metrics import binary, dice, iou
from golden.models import is_trained, load_float
from golden.progress import bars
from golden.training import load_checkpoint

__all__ = ["main"]

FOLDER = "reports"
WIDTH = 80         # of what is printed
FILES = ("explanation.png", "explanation.html")
NOTICE = "Research and teaching only: not for clinical use."


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_execute, arguments)


def _execute(arguments):
    options, started = _parse(arguments), time.monotonic()
    console = Console(highlight=False, soft_wrap=True)
    place = options.out or (f"{FOLDER}/explain-{options.model}-{time.strftime('%Y%m%d-%H%M%S')}")
    fresh = Fresh(place, FILES, shared=bool(options.out), replace=bool(options.out))
    with fresh as folder:
        facts, names = _explain(options, folder, console)
    for line in (*(fill(fact, WIDTH) for fact in facts),
                 *(str(fresh.place / name) for name in names)):
        console.print(line)
    console.print(f"{time.monotonic() - started:.0f} s")


def _explain(options, folder, console):
    """Write the sheet into ``folder``; returns its facts, and the names of its files."""
    network = _network(options)
    occlusion = Occlusion(options.window, options.stride)
    lime = Lime(options.superpixels, options.samples, options.seed)
    for hiding in (occlusion, lime):
        hiding.check(network.size)
    image_CHW = read_image(options.image, network.size)
    truth_HW = _truth(options, network.size)
    with bars(console) as progress:
        task = progress.add_task(f"explaining {options.image}, passes", total=None)
        explanation = explain(
            network, image_CHW, occlusion, lime,
            progress=lambda done, total: progress.update(task, completed=done, total=total))
    facts = _facts(options, network, explanation, truth_HW)
    parts = sections(image_CHW, explanation, occlusion, truth_HW)
    paths = write_sheet(folder, f"{options.model}: {_name(options.image)}", facts, parts)
    return facts, [path.name for path in paths]


def _network(options):
    """The float network, with the repository's weights or a checkpoint's."""
    if options.checkpoint:
        return load_checkpoint(options.checkpoint, options.model, options.width, options.size)
    return load_float(options.model, options.size, options.width)


def _truth(options, size):
    if options.truth is None and not options.image.startswith(PHANTOM):
        return None
    return read_truth(options.truth or options.image, size) > 127


def _name(image):
    """Without the folder, which is nobody else's business."""
    return image if image.startswith(PHANTOM) else Path(image).name


def _facts(options, network, explanation, truth_HW):
    lesion_HW = binary(explanation.confidence_HW)
    shape = f"width {network.width}, frame {network.size} x {network.size}"
    weights = f"; weights of {Path(options.checkpoint).name}" if options.checkpoint else ""
    lines = [f"Float network {options.model}, {shape}{weights}.",
             *sentences(explanation, Occlusion(options.window, options.stride))]
    if truth_HW is not None:
        lines.append(f"Against the truth: Dice {dice(lesion_HW, truth_HW):.3f}, "
                     f"IoU {iou(lesion_HW, truth_HW):.3f}.")
    if not options.checkpoint and not is_trained(options.model, network.width):
        lines.append("This width has no trained weights: they are random, and the maps mean "
                     "nothing.")
    return [*lines, NOTICE]


def _parse(arguments):
    parser = Parser("golden.explain", __doc__)
    parser.add_argument("--model", default="elec4848")
    parser.add_argument("--image", default="phantom:7")
    parser.add_argument("--truth", help="mask file; phantoms bring their own")
    parser.add_argument("--checkpoint", help="in place of the repository's weights")
    parser.add_argument("--out", help="folder for the sheet")
    parser.add_argument("--size", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--window", type=int, default=Occlusion.window)
    parser.add_argument("--stride", type=int, default=Occlusion.stride)
    parser.add_argument("--superpixels", type=int, default=Lime.superpixels)
    parser.add_argument("--samples", type=int, default=Lime.samples)
    parser.add_argument("--seed", type=int, default=Lime.seed, help="of the samples")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
