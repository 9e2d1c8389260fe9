"""Training from the command line: data in, checkpoint, log, curves and picture sheets out.

    python -m golden.train --model elec4848 --data FOLDER --out runs/elec4848 [--epochs 40] ...
    make train MODEL=elec4848 DATA=FOLDER OUT=runs/elec4848 EPOCHS=40

Writes ``best.pt`` (the checkpoint with the best mean IoU over validation images with a lesion),
``last.pt`` (from which ``--resume`` goes on, bit for bit as if it had never stopped), ``log.csv``,
``split.csv``, ``curves.png``, ``sheet-EPOCH.png``. `golden.export` makes a checkpoint INT8.
"""

import dataclasses
import sys
from pathlib import Path

import torch
from rich.console import Console

from golden import data
from golden.command import Parser, exit_code
from golden.data import phantoms
from golden.errors import InputError
from golden.names import TEACHER, demand_network
from golden.progress import bars
from golden.training import TRAINABLE, Settings, check_folder, train

__all__ = ["execute", "main", "parser"]

# What a person can set; the names of the command line are those of the settings.
OPTIONS = {
    "width": "filters of the first level (default: the source's)",
    "size": "side of frames in memory (default: the source's)",
    "crop": "side of what the network sees (default: size)",
    "epochs": "how many, at most",
    "steps": "batches per epoch; 0: as many as there are images",
    "batch": "images per batch",
    "rate": "Adam's rate at the start",
    "decay": "weight decay",
    "loss": "bce, dice or bce+dice",
    "schedule": "plateau: halve the rate after --patience epochs without a better score; or cosine",
    "patience": "see --schedule",
    "stop": "epochs without a better score after which to stop",
    "average": "what a step keeps of the running average of weights",
    "augmentation": "ultrasound, ultrasound-close, microscopy or none",
    "mixed": "share of phantoms among the images drawn, with --phantoms",
    "taught": "share of the teacher's masks in the loss, with --teacher",
    "blended": "share of images that are laid over another one, or pasted into it",
    "noise": "by how much widening sets copies apart",
    "seed": "of everything random",
    "device": "cpu or cuda",
}
PHANTOMS_PER_CHECK = 10         # trained on for each that validates, where data are phantoms


def main(arguments=None):
    """Command line; exit status 2 and one line on bad input."""
    return exit_code(_command, arguments)


def parser(module, text):
    """The options of training, for the command line of ``module``."""
    parser = Parser(module, text)
    parser.add_argument("--model", default="elec4848", help=", ".join(TRAINABLE))
    parser.add_argument("--data", default="phantom:600",
                        help="folder as published, table (.csv), or phantom:N")
    parser.add_argument("--out", type=Path, default=Path("runs/train"), help="folder to write to")
    for name, text in OPTIONS.items():
        value = getattr(Settings, name)
        shown = None if name in ("width", "size", "crop") else value
        text = text if shown is None else f"{text} (default: {shown})"
        parser.add_argument(f"--{name}", type=type(value), default=shown, help=text)
    parser.add_argument("--no-normalise", dest="normalise", action="store_false",
                        help="train without normalisations that are folded away afterwards")
    parser.add_argument("--no-dropout", dest="dropout", action="store_false",
                        help="leave dropout out, as in a last stage")
    parser.add_argument("--quantised", action="store_true",
                        help="a last stage that sees what INT8 does to the masks; with --start")
    parser.add_argument("--odds", metavar="CLASS=X,...", default="",
                        help="how often classes are drawn; 1 for those not named")
    parser.add_argument("--phantoms", type=int, default=0, help="how many to mix in")
    parser.add_argument("--clahe", action="store_true", help="equalise images as ELEC4848 does")
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT",
                        help="begin with it, or with shipped weights: elec4848-32; a narrower "
                             "one is widened")
    parser.add_argument("--teacher", type=Path, metavar="CHECKPOINT",
                        help="learn its masks as well as the true ones")
    parser.add_argument("--split", type=Path, metavar="CSV", help="a split.csv to use")
    parser.add_argument("--split-seed", type=int, default=0, help="of the split, if none is given")
    parser.add_argument("--folds", type=int, default=0, help="test parts that the data have")
    parser.add_argument("--fold", type=int, default=0, help="which of them, from 1")
    parser.add_argument("--final", action="store_true",
                        help="train on the validation part too: no honest score remains")
    parser.add_argument("--skip", action="store_true", help="leave broken pairs out")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--sheets", type=int, default=5, help="epochs between picture sheets")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: torch decides")
    return parser


def _parse(arguments):
    return parser("golden.train", __doc__).parse_args(arguments)


def _command(arguments):
    options = _parse(arguments)
    try:
        execute(options)
    except KeyboardInterrupt:
        if not (options.out / "last.pt").exists():
            raise
        raise InputError(f"stopped; go on with RESUME=1 OUT={options.out}") from None


def execute(options):
    """Train as the options of :func:`parser` say; bad input is an exception."""
    fold = data.check_fold(options.fold, options.folds)
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = _settings(options)
    check_folder(options.out, options.resume)
    console = Console(highlight=False, soft_wrap=True)
    with bars(console) as progress:
        def load(dataset, what):
            task = progress.add_task(f"reading {what}", total=len(dataset.samples))
            frames = data.load(dataset, settings.size, skip=options.skip,
                               equalise=options.clahe, advance=lambda: progress.advance(task))
            progress.remove_task(task)
            for note in (*dataset.notes, *frames.notes):
                console.print(f"{dataset.source}: {note}")
            if frames.broken:
                console.print(f"{dataset.source}: left out {len(frames.broken)} broken pairs:")
                for line in frames.broken:
                    console.print(f"  {line}")
            return frames

        frames, parts = _data(options, fold, load)
        mixed = None
        if options.phantoms:
            mixed = load(phantoms.phantoms(phantoms.TRAIN_SEEDS, options.phantoms), "phantoms")
        chosen = parts["train"] + (parts["validation"] if options.final else [])
        train_frames, check = frames.pick(chosen), frames.pick(parts["validation"])
        console.print(f"{settings.model}, width {settings.width}: "
                      f"{', '.join(f'{len(v)} {k}' for k, v in parts.items())} images"
                      f"{', trained on validation too' if options.final else ''}")
        steps = settings.steps or max(1, len(train_frames) // settings.batch)
        task = progress.add_task("training", total=settings.epochs * steps)

        def advance(loss):
            progress.update(task, advance=1, description=f"loss {loss:.3f}")

        def report(text):
            console.print(text)
            if text.startswith("resumed after epoch "):
                progress.update(task, completed=int(text.split()[-1]) * steps)

        best = train(settings, train_frames, check, options.out, phantoms=mixed,
                     start=options.start, teacher=options.teacher, resume=options.resume,
                     sheet_every=options.sheets, report=report, advance=advance,
                     begun=lambda: data.write_split(options.out / "split.csv", parts))
    console.print(f"best score {best:.4f}; see {options.out}/best.pt, log.csv, curves.png")


def _settings(options):
    demand_network(options.model, TEACHER)
    with torch.random.fork_rng(devices=()), torch.device("meta"):
        source = TRAINABLE[options.model]()
    values = {name: getattr(options, name) for name in OPTIONS}
    values["width"] = source.width if options.width is None else options.width
    values["size"] = source.size if options.size is None else options.size
    values["crop"] = values["size"] if options.crop is None else options.crop
    return Settings(model=options.model, normalise=options.normalise, dropout=options.dropout,
                    quantised=options.quantised, odds=_odds(options.odds), **values)


def _odds(text):
    odds = []
    for item in filter(None, text.split(",")):
        name, _, number = item.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not name or value < 0:
            raise InputError(f"Odds must look like normal=0.6,benign=1, not {item!r}")
        odds.append((name, value))
    return tuple(odds)


def _data(options, fold, load):
    """All frames, and their split; that of the run, if one goes on."""
    path = options.out / "split.csv" if options.resume else options.split
    if phantoms.is_phantom(options.data) and fold is None:
        count = len(data.find(options.data).samples)
        checks = max(2, count // PHANTOMS_PER_CHECK)
        sets = {"train": phantoms.phantoms(phantoms.TRAIN_SEEDS, count),
                "validation": phantoms.phantoms(phantoms.VALIDATION_SEEDS, checks)}
        samples = tuple(s for part in sets.values() for s in part.samples)
        frames = load(dataclasses.replace(sets["train"], samples=samples), "phantoms")
        if path is not None:
            return frames, data.read_split(path, frames.samples)
        return frames, {part: list(d.samples) for part, d in sets.items()} | {"test": []}
    frames = load(data.find(options.data), "images")
    return frames, data.split(frames.samples, options.split_seed, path, fold)


if __name__ == "__main__":
    sys.exit(main())
