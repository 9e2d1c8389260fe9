"""Training, export and evaluation of :mod:`golden.networks` on phantoms and BUSI.

    python -m golden.train fit --checkpoint FILE --minutes 20 [--busi FOLDER] [--width 32]
    python -m golden.train export --checkpoint FILE [--busi FOLDER] [--width 32]
    python -m golden.train evaluate [--busi FOLDER] [--width 32] [--size 256]

``fit`` keeps the weights (an exponential average) that do best on the validation part, and can be
continued with ``--start``. ``export`` quantises them into ``golden/weights``; ``evaluate`` measures
what lies there on phantoms and images that training never saw.
"""

import argparse
import copy
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from golden import busi
from golden.errors import InputError
from golden.integer import float_mask, resize, run
from golden.metrics import binary, dice, iou, pixel_agreement
from golden.models import MODELS, load_float, load_graph, save_trained, weights_path
from golden.phantom import phantom
from golden.quantize import quantize

__all__ = ["bce_dice", "evaluate", "export", "fit", "fresh", "widen"]

# Seeds below a million are never trained on: `phantom:7` is always a fair test.
TRAIN_SEEDS = 1_000_000
VALIDATION_SEEDS = 2_000_000
TEST_PHANTOMS = 64
CALIBRATION_FRAMES = 16
REPORTS = 10


@dataclass(frozen=True)
class Schedule:
    """How to train: ``frame`` is what is rendered or read, ``crop`` what the network sees."""
    minutes: float = 20.0
    frame: int = 256
    crop: int = 128
    batch: int = 8
    rate: float = 3e-4
    phantoms: int = 1000
    averaging: float = 0.998
    seed: int = 0


def bce_dice(logit_N1HW, truth_N1HW):
    """Binary cross-entropy plus one minus soft Dice, the latter over the whole batch."""
    p_N1HW = torch.sigmoid(logit_N1HW)
    overlap = 2 * (p_N1HW * truth_N1HW).sum() + 1
    return (F.binary_cross_entropy_with_logits(logit_N1HW, truth_N1HW)
            + 1 - overlap / (p_N1HW.sum() + truth_N1HW.sum() + 1))


@torch.no_grad()
def fresh(width, seed=0):
    """The network to start from: He weights, no biases, masks undecided."""
    torch.manual_seed(seed)
    network = MODELS["elec4848"](width=width)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            module.bias.zero_()
    network.final.weight.mul_(0.1)
    return network


@torch.no_grad()
def widen(network, factor, seed=0):
    """A network ``factor`` times as wide that computes the same (Net2Net).

    Every channel is copied, and what reads it shares its weight among the copies at random, in
    parts that sum to one: exact, and the copies can grow apart.
    """
    torch.manual_seed(seed)
    wide = MODELS["elec4848"](size=network.size, width=factor * network.width)
    state = network.state_dict()
    for name, x in wide.state_dict().items():
        old = state[name]
        if x.dim():
            old = old.repeat_interleave(x.shape[0] // old.shape[0], 0)
        if x.dim() == 4 and (copies := x.shape[1] // old.shape[1]) > 1:
            part = 1 / copies + torch.empty(*old.shape[:2], copies).uniform_(-0.5, 0.5) / copies
            part = part - part.mean(2, keepdim=True) + 1 / copies
            old = (old[:, :, None] * part[..., None, None]).flatten(1, 2)
        x.copy_(old)
    return wide


def fit(network, schedule, checkpoint, *, folder=None):
    """Train for so many minutes; write the best weights to ``checkpoint``; their score."""
    torch.manual_seed(schedule.seed)
    train = _frames(schedule.frame, TRAIN_SEEDS, schedule.phantoms)
    check = _frames(schedule.frame, VALIDATION_SEEDS, 48 if folder is None else 24)
    weights = [1.0] * len(train)
    if folder is not None:
        parts = busi.split(folder)
        real = [busi.read_pair(folder, r, schedule.frame) for r in parts["train"]]
        check += [busi.read_pair(folder, r, schedule.frame) for r in parts["validation"]]
        # Three real frames for each phantom.
        weights += [3 * len(train) / len(real)] * len(real)
        train += real
    # Frames are grey, so one channel is kept and spread on use.
    image_KHW = torch.stack([image[0] for image, _ in train])
    truth_KHW = torch.stack([truth for _, truth in train])
    weights = torch.tensor(weights)

    network = network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval()
    optimiser = torch.optim.Adam(network.parameters(), schedule.rate)
    best, step, losses = -1.0, 0, []
    start = time.monotonic()
    report_at = 1 / REPORTS
    progress = 0.0
    while progress < 1:
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate * min(1, (step + 1) / 100) * (
                0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2)
        index_N = torch.multinomial(weights, schedule.batch)
        x_NHW, t_NHW = _augment(image_KHW[index_N], truth_KHW[index_N], schedule.crop)
        x_N3HW = x_NHW[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        network.train()
        with torch.autocast("cpu", torch.bfloat16):
            logit_N1HW = network(x_N3HW)
        loss = bce_dice(logit_N1HW.float(), t_NHW[:, None])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        losses.append(loss.item())
        _follow(average, network, min(schedule.averaging, (1 + step) / (10 + step)))
        progress = (time.monotonic() - start) / 60 / schedule.minutes
        if progress >= report_at:
            report_at = min(1, report_at + 1 / REPORTS)
            score = _score(average, check)
            print(f"{progress * schedule.minutes:6.1f} min  step {step:6d}  "
                  f"loss {sum(losses) / len(losses):.4f}  validation Dice {score:.4f}", flush=True)
            losses = []
            if score > best:
                best = score
                torch.save(average.state_dict(), checkpoint)
    return best


@torch.no_grad()
def _follow(average, network, keep):
    for a, b in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - keep)
        else:
            a.copy_(b)


@torch.no_grad()
def _score(network, frames):
    """Mean Dice over frames, in the precision of training."""
    total = 0.0
    for image_3HW, truth_HW in frames:
        x_N3HW = (image_3HW[None] / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logit_N1HW = network(x_N3HW)
        total += dice(logit_N1HW[0, 0] >= 0, truth_HW > 0)
    return total / len(frames)


def _frames(size, first, count):
    pairs = (phantom(seed, size) for seed in range(first, first + count))
    return [(torch.from_numpy(image_HW.copy()).expand(3, -1, -1),
             torch.from_numpy(mask_HW.copy())) for image_HW, mask_HW in pairs]


def _augment(image_NHW, truth_NHW, crop):
    """Float crops in 0..1: random window, mirror, tilt, contrast, gain and noise.

    A window spans from just over the crop itself up to the whole frame and a little more.
    """
    n, size = image_NHW.shape[:2]
    span_N = torch.empty(n).uniform_(max(0.4, 0.8 * crop / size), 1.15)
    span_N[torch.rand(n) < 0.3] = 1.0
    stretch_N = torch.empty(n).uniform_(0.85, 1.18)
    angle_N = torch.empty(n).uniform_(-0.15, 0.15)
    mirror_N = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    room_N2 = (1 - span_N).abs()[:, None] * torch.empty(n, 2).uniform_(-1, 1)
    theta_N23 = torch.stack([
        torch.stack([mirror_N * span_N * stretch_N * angle_N.cos(), -span_N * angle_N.sin(),
                     room_N2[:, 0]], 1),
        torch.stack([mirror_N * span_N * angle_N.sin(), span_N / stretch_N * angle_N.cos(),
                     room_N2[:, 1]], 1)], 1)
    grid = F.affine_grid(theta_N23, (n, 1, crop, crop), align_corners=False)
    scaled = size * float(span_N.mean()) > 1.5 * crop
    source_N1HW = image_NHW[:, None].float() / 255
    if scaled:          # a little low-pass against aliasing
        source_N1HW = F.avg_pool2d(F.pad(source_N1HW, (0, 1, 0, 1), mode="replicate"), 2, 1)
    x_NHW = F.grid_sample(source_N1HW, grid, padding_mode="reflection", align_corners=False)[:, 0]
    t_NHW = F.grid_sample(truth_NHW[:, None].float() / 255, grid, mode="nearest",
                          padding_mode="reflection", align_corners=False)[:, 0]
    gamma_N11 = torch.empty(n, 1, 1).uniform_(0.7, 1.4)
    gain_N11 = torch.empty(n, 1, 1).uniform_(0.75, 1.25)
    offset_N11 = torch.empty(n, 1, 1).uniform_(-0.06, 0.06)
    noise = 0.04 * torch.rand(n, 1, 1) * torch.randn(n, crop, crop)
    x_NHW = (x_NHW.clamp(min=1e-4) ** gamma_N11 * gain_N11 + offset_N11) * (1 + noise)
    return (255 * x_NHW).round().clamp(0, 255) / 255, t_NHW


def export(checkpoint, *, model="elec4848", width=32, size=256, folder=None):
    """Quantise a checkpoint on training frames into ``golden/weights``; the file's path.

    Frames are of ``size``: half phantoms, half BUSI where its folder is given.
    """
    network = MODELS[model](size=size, width=width)
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    frames = _frames(size, TRAIN_SEEDS, CALIBRATION_FRAMES // (1 if folder is None else 2))
    if folder is not None:
        train = busi.split(folder)["train"]
        chosen = train[::len(train) // (CALIBRATION_FRAMES // 2)]
        frames += [busi.read_pair(folder, r, size) for r in chosen]
    graph = quantize(network, [image for image, _ in frames])
    path = weights_path(model, width)
    path.parent.mkdir(exist_ok=True)
    save_trained(path, graph, network)
    return path


def evaluate(float_network, graph, frames):
    """Means over frames: Dice and IoU of either network with the truth, and their agreement."""
    rows = []
    for image, truth in frames:
        a_HW = binary(float_network.segment(image))
        b_HW = binary(float_mask(graph, run(graph, image)))
        t_HW = truth > 0
        rows.append({"dice float": dice(a_HW, t_HW), "dice integer": dice(b_HW, t_HW),
                     "iou float": iou(a_HW, t_HW), "iou integer": iou(b_HW, t_HW),
                     "iou float/integer": iou(a_HW, b_HW),
                     "pixel agreement": pixel_agreement(a_HW, b_HW)})
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}


def _test_sets(size, folder):
    """Name and frames of each set that training never saw."""
    yield "phantoms", _frames(size, 0, TEST_PHANTOMS)
    if folder is not None:
        test = busi.split(folder)["test"]
        for name, kinds in {"BUSI lesions": ("benign", "malignant"), "BUSI normal": ("normal",)
                            }.items():
            yield name, [busi.read_pair(folder, r, size) for r in test if r.kind in kinds]


def main(arguments=None):
    """Command line; exit status 2 and one line on bad input."""
    parser = argparse.ArgumentParser(prog="python -m golden.train", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("fit", "export", "evaluate"):
        command = commands.add_parser(name)
        command.add_argument("--busi", metavar="FOLDER", help="where BUSI's index.csv is")
        command.add_argument("--width", type=int, default=32)
        command.add_argument("--checkpoint", type=Path, required=name != "evaluate",
                             help="float32 weights (evaluate: in place of the rounded ones)")
        if name == "fit":
            command.add_argument("--start", type=Path, help="checkpoint to continue from")
            command.add_argument("--widen", type=int, default=1,
                                 help="how many times narrower the checkpoint of --start is")
            for key in ("minutes", "frame", "crop", "batch", "rate", "phantoms", "seed"):
                value = getattr(Schedule, key)
                command.add_argument(f"--{key}", type=type(value), default=value)
        else:
            command.add_argument("--size", type=int, default=256)
    options = parser.parse_args(arguments)
    try:
        _execute(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _execute(options):
    if options.command == "fit":
        network = fresh(options.width // options.widen, options.seed)
        if options.start is not None:
            network.load_state_dict(torch.load(options.start, weights_only=True))
        if options.widen > 1:
            network = widen(network, options.widen, options.seed)
        schedule = Schedule(minutes=options.minutes, frame=options.frame, crop=options.crop,
                            batch=options.batch, rate=options.rate, phantoms=options.phantoms,
                            seed=options.seed)
        print(fit(network, schedule, options.checkpoint, folder=options.busi))
    elif options.command == "export":
        print(export(options.checkpoint, width=options.width, size=options.size,
                     folder=options.busi))
    else:
        graph = load_graph(size=options.size, width=options.width)
        network = load_float(size=options.size, width=options.width)
        if options.checkpoint is not None:
            network.load_state_dict(torch.load(options.checkpoint, weights_only=True))
        for name, frames in _test_sets(options.size, options.busi):
            result = evaluate(network, resize(graph, options.size), frames)
            print(f"{name} ({len(frames)}): "
                  + ", ".join(f"{key} {value:.4f}" for key, value in result.items()))


if __name__ == "__main__":
    sys.exit(main())
