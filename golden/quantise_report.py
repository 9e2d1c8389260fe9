"""What INT8 costs, layer by layer, and whether another way to calibrate would cost less.

    python -m golden.quantise_report --model elec4848 --data FOLDER [--checkpoint FILE] [--n 8]
    make quantise-report MODEL=elec4848 DATA=FOLDER [CHECKPOINT=FILE] [N=8]

Quantises a float network three times, on the same images of the training part (or phantoms), with
scales that end where the squared error is least (``mse``), at the extremes (``min-max``, what
`golden.export` does), or at the 99.9th percentile. On N images of the validation part, or N
phantoms, each integer graph is set beside the float network. Of every tensor: the signal to
quantisation noise in dB, all noise from the frame on included, and the share of values beyond what
eight bits hold. Of the masks: Dice against the float masks, and against the truth. Writes
``layers.csv`` and ``report.json``.
"""

import csv
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from golden import data
from golden.command import Parser, exit_code, make_console
from golden.data import phantoms
from golden.errors import InputError
from golden.export import calibration_images
from golden.folders import Fresh
from golden.folding import channel_factors
from golden.integer import float_mask, run
from golden.metrics import binary, dice, pixel_agreement
from golden.models import load_float
from golden.names import CLIPPINGS
from golden.progress import bars
from golden.quantize import quantize
from golden.training import load_checkpoint

__all__ = ["compare", "main"]

FILES = ("layers.csv", "report.json")
SHORT = dict(zip(CLIPPINGS, ("mse", "min-max", "99.9 %"), strict=True))
NOTE = """\
SQNR: signal to quantisation noise, with the noise of all layers before.
beyond: values of the float network that eight bits clip to 0 or 255."""


def compare(network, graph, frames, advance=lambda: None):
    """``tensors`` of a float network and its integer graph on frames, by name: ``sqnr_db`` (None
    where there is no noise, or no signal) and ``saturated``; and ``masks``: ``dice_float``,
    ``pixels_equal`` and ``dice_truth``, means over frames. ``advance`` is called after each."""
    sums = {}
    rows = []
    network.eval()
    for i in range(len(frames)):
        image_CHW = frames.frame(i)
        with torch.no_grad():
            trace = network.trace(image_CHW[None].to(torch.float32) / 255)
        stored = run(graph, image_CHW)
        for name, x_1CHW in trace.items():
            if name in stored:
                seen = _noise(graph, name, x_1CHW[0].double(), stored[name])
                sums[name] = sums.get(name, 0) + seen
        masks = [binary(trace["mask"][0, 0]), binary(float_mask(graph, stored))]
        rows.append({"dice_float": dice(*masks), "pixels_equal": pixel_agreement(*masks),
                     "dice_truth": dice(masks[1], frames.truth[i] > 0)})
        advance()
    tensors = {}
    for name, (signal, noise, beyond, count) in ((n, s.tolist()) for n, s in sums.items()):
        ratio = 10 * math.log10(signal / noise) if signal and noise else None
        tensors[name] = {"sqnr_db": ratio, "saturated": beyond / count}
    return {"tensors": tensors,
            "masks": {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}}


def _noise(graph, name, x_CHW, q_CHW):
    """Power of the signal and of the noise, values beyond the range, and how many there are."""
    tensor = graph.tensors[name]
    factor_C11 = channel_factors(graph, name)[:, None, None]
    noise_CHW = tensor.scale * (q_CHW.double() - tensor.zero_point) / factor_C11 - x_CHW
    step_CHW = x_CHW * factor_C11 / tensor.scale + tensor.zero_point
    beyond = (step_CHW < -0.5) | (step_CHW >= 255.5)
    if q_CHW.dtype is not torch.uint8:          # a sum is held in 16 bits
        beyond = torch.zeros(1)
    return torch.tensor([float(x_CHW.square().sum()), float(noise_CHW.square().sum()),
                         float(beyond.sum()), x_CHW.numel()], dtype=torch.float64)


def main(arguments=None):
    """Command line; exit status 2 and one line on bad input."""
    return exit_code(_execute, arguments)


def _parse(arguments):
    parser = Parser("golden.quantise_report", __doc__)
    parser.add_argument("--model", default="elec4848")
    parser.add_argument("--width", type=int, help="default: the source's")
    parser.add_argument("--size", type=int, help="of frames; default: the source's")
    parser.add_argument("--checkpoint", type=Path, help="in place of the repository's weights")
    parser.add_argument("--data", default="phantom",
                        help="folder as published, table (.csv), or phantom:N")
    parser.add_argument("--split", type=Path, metavar="CSV", help="a split.csv to use")
    parser.add_argument("--split-seed", type=int, default=0, help="of the split, if none is given")
    parser.add_argument("--n", type=int, default=8, help="images to compare on")
    parser.add_argument("--clahe", action="store_true", help="equalise images as ELEC4848 does")
    parser.add_argument("--skip", action="store_true", help="leave broken pairs out")
    parser.add_argument("--out", type=Path, default=Path("reports/quantise-report"))
    return parser.parse_args(arguments)


def _execute(arguments):
    options = _parse(arguments)
    if options.n < 1:
        raise InputError(f"N must be a whole number of at least 1, not {options.n}")
    console = make_console(soft_wrap=True)
    with Fresh(options.out, FILES, shared=True) as folder, bars(console) as progress:
        network = (load_checkpoint(options.checkpoint, options.model, options.width, options.size)
                   if options.checkpoint else load_float(options.model, options.size,
                                                         options.width))
        train, frames = _frames(options, network.size, progress)
        images = calibration_images(train, network.size, equalise=options.clahe)
        result = {}
        for clipping in CLIPPINGS:
            task = progress.add_task(f"quantising, {clipping}", total=len(images))
            graph = quantize(network, images, clipping=clipping,
                             advance=lambda task=task: progress.advance(task))
            task = progress.add_task(f"comparing, {clipping}", total=len(frames))
            result[clipping] = compare(network, graph, frames,
                                       advance=lambda task=task: progress.advance(task))
        _write(folder, options, network, frames, result)
    console.print(_layers(result, f"{network.name}, {len(frames)} images"))
    console.print(NOTE, style="dim", highlight=False)
    console.print(_masks(result))
    console.print(f"see {options.out}/layers.csv, report.json")


def _frames(options, size, progress):
    """Frames to calibrate on, None for phantoms, and those to compare on."""
    dataset = data.find(options.data)
    synthetic = phantoms.is_phantom(options.data)
    if synthetic:
        dataset = replace(dataset, samples=tuple(_some(dataset.samples, options.n)))
    task = progress.add_task("reading images", total=len(dataset.samples))
    frames = data.load(dataset, size, skip=options.skip, equalise=options.clahe,
                       advance=lambda: progress.advance(task))
    if synthetic:
        return None, frames
    parts = data.split(frames.samples, options.split_seed, options.split)
    if not parts["validation"]:
        raise InputError("The validation part of the data is empty, and calibrations are compared "
                         "on no other; give more images")
    return frames.pick(parts["train"]), frames.pick(_some(parts["validation"], options.n))


def _some(samples, most):
    """As many as that, evenly chosen."""
    count = min(most, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]


def _write(folder, options, network, frames, result):
    about = {"model": network.name, "width": network.width, "size": network.size,
             "checkpoint": options.checkpoint and str(options.checkpoint), "data": options.data,
             "images": [sample.name for sample in frames.samples]}
    (folder / "report.json").write_text(json.dumps({**about, "clipping": result}, indent=2) + "\n")
    with (folder / "layers.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["tensor", *(f"{what} {clipping}" for what in ("sqnr_db", "saturated")
                                   for clipping in CLIPPINGS)])
        for name in result[CLIPPINGS[0]]["tensors"]:
            cells = [result[clipping]["tensors"][name] for clipping in CLIPPINGS]
            rows.writerow([name, *("" if cell["sqnr_db"] is None else f"{cell['sqnr_db']:.3f}"
                                   for cell in cells),
                           *(f"{cell['saturated']:.8f}" for cell in cells)])


def _layers(result, title):
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("tensor", no_wrap=True)
    for what in ("SQNR, dB", "beyond, %"):
        for clipping in CLIPPINGS:
            table.add_column(f"{what if clipping == CLIPPINGS[0] else ''}\n{SHORT[clipping]}",
                             justify="right")
    for name in result[CLIPPINGS[0]]["tensors"]:
        cells = [result[clipping]["tensors"][name] for clipping in CLIPPINGS]
        table.add_row(name, *("" if cell["sqnr_db"] is None else f"{cell['sqnr_db']:.1f}"
                              for cell in cells),
                      *(f"{100 * cell['saturated']:.3f}" for cell in cells))
    return table


def _masks(result):
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("calibration", "Dice, float masks", "pixels equal, %", "Dice, truth"):
        table.add_column(column, justify="right" if table.columns else "left")
    for clipping in CLIPPINGS:
        masks = result[clipping]["masks"]
        table.add_row(clipping, f"{masks['dice_float']:.4f}", f"{100 * masks['pixels_equal']:.3f}",
                      f"{masks['dice_truth']:.4f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
