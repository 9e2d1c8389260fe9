"""The training loop: resumable, and the same every time."""

import copy
import csv
import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from golden.classes import lesion_logit, one_hot
from golden.errors import InputError
from golden.fake_quantise import FakeQuantised
from golden.metrics import iou, measure
from golden.names import CLIPPING, SCHEDULES, TEACHER, check_shape
from golden.quantize import quantize
from golden.training.augment import AUGMENTATIONS, augment, blend
from golden.training.checkpoint import (
    check_state,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from golden.training.forward import channels_last, half, logits, swift
from golden.training.losses import LOSSES
from golden.training.norms import folded, unfold, with_norms
from golden.training.pictures import draw_curves, draw_sheet
from golden.training.resume import check_run
from golden.training.start import begin, initialise
from golden.training.teacher import TRAINABLE

__all__ = ["Settings", "check_folder", "train"]

UNFOLDED = 16                       # frames, or so, that settle normalisations of a folded start
WARM_UP = 0.05                      # of all steps, with the cosine schedule
CALIBRATED = 8                      # frames that scales of a quantised stage come from
MEASURED = ("accuracy", "iou", "dice")
COLUMNS = ("epoch", "rate", "loss", "validation_loss", *MEASURED, "score", "seconds",
           *(f"training_{name}" for name in MEASURED))


@dataclass(frozen=True)
class Settings:
    """How to train. A run is repeated by its settings and its data.

    ``size`` is the frames' side in memory, ``crop`` that of what the network sees. An epoch has
    ``steps`` batches, 0 for as many as there are frames. ``weights`` are drawn odds per class,
    ``mixed`` the share of phantoms among the frames drawn. ``average`` is how much of the running
    average of all weights a step keeps; it is that average which is measured and kept. With a
    teacher, ``taught`` is the share of its masks in the loss, the rest is the truth's.
    ``blended`` is the share of images laid over another one of the batch, or pasted into it.
    A ``quantised`` stage sees what INT8 makes of the network (`golden.fake_quantise`), in float32:
    without dropout and with batch normalisations as they are.
    """
    model: str = "elec4848"
    width: int = 32
    size: int = 256
    crop: int = 256
    epochs: int = 40
    steps: int = 0
    batch: int = 8
    rate: float = 1e-3
    decay: float = 1e-4
    loss: str = "bce+dice"
    schedule: str = "plateau"
    patience: int = 5
    stop: int = 15
    average: float = 0.998
    augmentation: str = "ultrasound"
    normalise: bool = True
    dropout: bool = True
    odds: tuple[tuple[str, float], ...] = ()
    mixed: float = 0.12
    noise: float = 0.05
    taught: float = 0.5
    blended: float = 0.0
    quantised: bool = False
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self):
        for name, known in {"model": TRAINABLE, "loss": LOSSES, "schedule": SCHEDULES,
                            "augmentation": AUGMENTATIONS}.items():
            if getattr(self, name) not in known:
                raise InputError(f"No {name} {getattr(self, name)!r}; known: {', '.join(known)}")
        for name in ("epochs", "batch", "patience", "stop", "rate"):
            if getattr(self, name) <= 0:
                raise InputError(f"Training needs {name} above 0, not {getattr(self, name)!r}")
        multiple = self.network().frames_multiple
        check_shape(self.crop, self.width, multiple)
        if self.batch * (self.crop // multiple)**2 < 2:
            raise InputError(f"Batches of one crop of {self.crop} pixels leave one value per "
                             f"channel at the bottom, which has no variance; take BATCH=2, or a "
                             f"larger CROP")
        if self.quantised and self.model == TEACHER:
            raise InputError(f"No {TEACHER} is ever quantised; leave --quantised out")
        if self.quantised and self.device != "cpu":
            raise InputError("Quantised training runs on the CPU alone; take DEVICE=cpu")
        if self.device != "cpu" and not torch.cuda.is_available():
            raise InputError(f"No device {self.device!r} here; use cpu")

    def network(self, width=None):
        """A network of these settings, without weights that mean anything."""
        with torch.random.fork_rng(devices=()):
            return TRAINABLE[self.model](size=self.size, width=width or self.width)


class _Run:
    """Everything that changes while training goes on, and how it is kept and taken up again."""

    def __init__(self, settings, start, teacher, image_NCHW):
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.network = _begin(settings, start, image_NCHW).to(settings.device,
                                                  memory_format=torch.channels_last)
        if not settings.dropout:
            for module in self.network.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
        self.average = copy.deepcopy(self.network).eval()
        self.classes = self.network.classes
        self.learning, self.measured = self.network, self.average
        self.teacher = None
        if teacher is not None:
            self.teacher = load_checkpoint(teacher).to(settings.device,
                                                       memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), settings.rate,
                                           weight_decay=settings.decay, fused=True)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimiser, mode="max", factor=0.5, patience=settings.patience)
        self.step, self.best, self.rows = 0, -1.0, []

    @property
    def epoch(self):
        return len(self.rows)

    @property
    def stalled(self):
        """Epochs since the best one."""
        return self.epoch - max((i for i, row in enumerate(self.rows, 1)
                                 if row["score"] >= self.best), default=0)

    def calibrate(self, frames):
        """Of a quantised stage: scales for the average's weights, from a few frames. What learns
        and what is measured is rounded by them from now on."""
        if self.settings.quantised:
            some = min(CALIBRATED, len(frames))
            images = [frames.frame(i * len(frames) // some) for i in range(some)]
            graph = quantize(self.average, images, clipping=CLIPPING)
            self.learning, self.measured = (FakeQuantised(network, graph) for network in
                                            (self.network, self.average))

    def save(self, path):
        """Write all of it; the weights that count are the average, folded."""
        cuda = torch.cuda.get_rng_state_all() if self.settings.device != "cpu" else []
        save_checkpoint(path, folded(self.average).cpu(), normed=self.average.state_dict(),
                        run={"network": self.network.state_dict(),
                             "optimiser": self.optimiser.state_dict(),
                             "plateau": self.plateau.state_dict(),
                             "random": torch.get_rng_state(), "random_cuda": cuda,
                             "step": self.step, "best": self.best, "rows": self.rows,
                             "settings": dataclasses.asdict(self.settings)})

    def resume(self, path):
        """Go on from where :meth:`save` was called last."""
        content = read_checkpoint(path, self.settings.model, self.settings.width)
        state = content.get("run")
        if state is None:
            raise InputError(f"Checkpoint {str(path)!r} holds no unfinished run; name the last.pt "
                             f"that training wrote")
        check_run(state, content.get("normed"), self, f"The run at {str(path)!r} cannot be resumed")
        for field in dataclasses.fields(self.settings):
            name, now = field.name, getattr(self.settings, field.name)
            then = state["settings"].get(name, field.default)       # there were fewer once
            free = name == "epochs" and self.settings.schedule == "plateau"
            if then != now and not free:
                raise InputError(f"The run at {str(path)!r} has {name} {then!r}, not {now!r}; "
                                 f"resume it as it was, or begin another")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(content["normed"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.plateau.load_state_dict(state["plateau"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all(state["random_cuda"])
        self.step, self.best, self.rows = state["step"], state["best"], state["rows"]

    def learn(self, image_NCHW, truth_NHW, odds_N, total, number_N=None):
        """One batch; its loss, and the sums of `MEASURED` over its images. ``number_N`` are the
        classes of lesions, where the network tells them apart."""
        s = self.settings
        if s.schedule == "cosine":
            falling = (1 + math.cos(math.pi * self.step / total)) / 2
            rising = min(1, (self.step + 1) / (WARM_UP * total))
            rate = s.rate * rising * (0.01 + 0.99 * falling)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
        index_N = torch.multinomial(odds_N, s.batch, replacement=s.batch > len(odds_N))
        x_NCHW, truth_NKHW = augment(image_NCHW[index_N], truth_NHW[index_N], s.crop,
                                     AUGMENTATIONS[s.augmentation])
        if self.classes:
            truth_NKHW = one_hot(truth_NKHW, number_N[index_N], len(self.classes))
        if s.blended:
            x_NCHW, truth_NKHW = blend(x_NCHW, truth_NKHW, s.blended)
        x_N3HW = channels_last(x_NCHW, s.device)
        truth_NKHW = truth_NKHW.to(s.device)
        loss_of = LOSSES[s.loss]
        self.network.train()
        with half(s), swift():
            logit_NCHW = self.learning(x_N3HW).float()
        loss = loss_of(logit_NCHW, truth_NKHW)
        if self.teacher is not None:        # it knows where a lesion is, if not of which class
            with torch.no_grad(), half(s):
                taught_N1HW = torch.sigmoid(lesion_logit(self.teacher(x_N3HW).float()))
            taught = loss_of(lesion_logit(logit_NCHW), taught_N1HW)
            loss = (1 - s.taught) * loss + s.taught * taught
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        _follow(self.average, self.network, min(s.average, (1 + self.step) / (10 + self.step)))
        return loss.item(), _batch_measures(_lesion(logit_NCHW.detach()), truth_NKHW.sum(1))


def train(settings, frames, validation, folder, *, phantoms=None, start=None, teacher=None,
          resume=False, sheet_every=5, begun=lambda: None, report=lambda text: None,
          advance=lambda loss: None):
    """Train until the epochs are over or nothing has improved for long; the best score.

    ``folder`` receives ``best.pt``, ``last.pt``, ``log.csv``, ``curves.png`` and picture sheets.
    Of each epoch the log has loss, accuracy, IoU and Dice of validation and, as ``loss`` and
    ``training_...``, of the batches as they were learnt: augmented, drawn with odds, with dropout.
    The score is the mean IoU over validation frames with a lesion (over all, if none has one).
    Where the network tells classes apart, it is that of the lesion's own class, while accuracy, IoU
    and Dice take lesions of all classes for one.
    ``start`` is a checkpoint to begin with (:func:`golden.training.start.begin`); ``teacher`` one
    whose masks are learnt beside the true ones. With ``resume`` the run in ``folder`` goes on, bit
    for bit as if it had never stopped. ``begun`` is called when there is nothing left to refuse:
    until then nothing is written.
    """
    if not len(frames) or not len(validation):
        part = "validation" if len(frames) else "train"
        raise InputError(f"The {part} part of the split is empty; give more images")
    check_folder(folder, resume)
    folder = Path(folder)
    last, best = folder / "last.pt", folder / "best.pt"
    run = _Run(settings, start, teacher, frames.image)
    if resume:
        run.resume(last)
        report(f"resumed after epoch {run.epoch}")
    image_NCHW, truth_NHW, odds_N = _mixture(settings, frames, phantoms)
    number_N, check_N = (_numbers(run.classes, *some) for some in ((frames, phantoms),
                                                                   (validation,)))
    steps = settings.steps or max(1, len(frames) // settings.batch)
    folder.mkdir(parents=True, exist_ok=True)
    begun()

    while run.epoch < settings.epochs and run.stalled < settings.stop:
        begin = time.monotonic()
        run.calibrate(frames)
        losses, measures = [], []
        for _ in range(steps):
            loss, sums = run.learn(image_NCHW, truth_NHW, odds_N, settings.epochs * steps,
                                   number_N)
            losses.append(loss)
            measures.append(sums)
            if not math.isfinite(losses[-1]):
                raise InputError(f"The loss is {losses[-1]} after step {run.step}; try a lower "
                                 f"RATE than {settings.rate:g}")
            advance(losses[-1])
        rate = run.optimiser.param_groups[0]["lr"]
        row = {"epoch": run.epoch + 1, "rate": rate, "loss": sum(losses) / steps,
               **_validate(run.measured, validation, check_N, settings)}
        row["seconds"] = time.monotonic() - begin
        learnt = torch.stack(measures).mean(0) / settings.batch
        row |= {f"training_{name}": value for name, value in
                zip(MEASURED, learnt.tolist(), strict=True)}
        run.rows.append(row)
        improved = row["score"] > run.best
        run.best = max(run.best, row["score"])
        if settings.schedule == "plateau":
            run.plateau.step(row["score"])
        if improved:
            save_checkpoint(best, folded(run.average).cpu(), normed=run.average.state_dict())
        run.save(last)
        _write_log(folder / "log.csv", run.rows)
        draw_curves(folder / "curves.png", run.rows)
        if sheet_every and (run.epoch % sheet_every == 0 or run.epoch == settings.epochs):
            draw_sheet(folder / f"sheet-{run.epoch:03}.png", run.measured, validation, settings)
        report(_said(row, improved))
    return run.best


def _said(row, improved):
    """What a person reads of an epoch."""
    def measures(prefix):
        return "  ".join(f"{title} {row[f'{prefix}{name}']:.4f}" for title, name in
                         (("accuracy", "accuracy"), ("IoU", "iou"), ("Dice", "dice")))

    return (f"epoch {row['epoch']:3d}  rate {row['rate']:.1e}  loss {row['loss']:.4f}  "
            f"{measures('training_')}\n"
            f"{'validation':>23}  loss {row['validation_loss']:.4f}  {measures('')}\n"
            f"{'score':>23}  {row['score']:.4f}{' (best)' if improved else ''}, "
            f"{row['seconds']:.0f} s")


def check_folder(folder, resume):
    """Refuse to overwrite a run, and to go on where there is none."""
    exists = (Path(folder) / "last.pt").exists()
    if exists and not resume:
        raise InputError(f"{str(folder)!r} holds a run already; go on with RESUME=1, or name "
                         f"another folder with OUT")
    if resume and not exists:
        raise InputError(f"{str(folder)!r} holds no run to go on with; name its folder with OUT, "
                         f"or begin one without RESUME")


def _begin(settings, start, image_NCHW):
    """The network to train, on the CPU."""
    normalise = settings.normalise and not settings.quantised
    make = with_norms if normalise else lambda network: network
    network = initialise(make(settings.network()))
    if start is None:
        return network
    content = read_checkpoint(start)
    source = dataclasses.replace(settings, model=content["model"], width=content["width"])
    lender = source.network()
    if normalise and "normed" in content:
        lender = make(lender)
        check_state(content["normed"], lender.state_dict(), f"Checkpoint {str(start)!r} does not "
                    f"fit {source.model}")
        lender.load_state_dict(content["normed"])
    else:
        lender.load_state_dict(content["state_dict"])
        if normalise:
            some_NCHW = image_NCHW[::max(1, len(image_NCHW) // UNFOLDED)]
            x_NCHW = channels_last(some_NCHW.float() / 255, "cpu")
            lender = unfold(lender, make(source.network()), x_NCHW)
    return begin(network, lender, noise=settings.noise)


def _mixture(settings, frames, phantoms):
    """All frames to draw from, and the odds of each."""
    odds = dict(settings.odds)
    for kind in odds:
        if kind not in frames.kinds:
            raise InputError(f"No class {kind!r} to give odds to; classes: "
                             f"{', '.join(frames.kinds)}")
    odds_N = torch.tensor([odds.get(sample.kind, 1.0) for sample in frames.samples])
    if phantoms is None or not len(phantoms):
        return frames.image, frames.truth, odds_N
    odds_N = torch.cat([(1 - settings.mixed) * odds_N / odds_N.sum(),
                        torch.full((len(phantoms),), settings.mixed / len(phantoms))])
    channels = max(frames.image.shape[1], phantoms.image.shape[1])
    images = [x.image.expand(-1, channels, -1, -1) for x in (frames, phantoms)]
    return torch.cat(images), torch.cat([frames.truth, phantoms.truth]), odds_N


def _numbers(classes, *parts):
    """Of all frames to draw from the class of the lesion, where the network tells them apart."""
    return torch.cat([frames.numbers(classes) for frames in parts
                      if frames is not None and len(frames)]) if classes else None


def _lesion(logit_NCHW):
    """Where the mask says lesion, N x H x W, of whatever class."""
    return (logit_NCHW[:, 0] >= 0 if logit_NCHW.shape[1] == 1 else logit_NCHW.argmax(1) > 0)


@torch.no_grad()
def _follow(average, network, keep):
    for a, b in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - keep)
        else:
            a.copy_(b)


def _batch_measures(mask_NHW, truth_NHW):
    """`MEASURED` of a batch as :func:`golden.metrics.measure` has them, summed over its images; on
    its device, so that nobody waits. Where truths are blended, one half and more is lesion."""
    mask_NP, truth_NP = mask_NHW.flatten(1), (truth_NHW >= 0.5).flatten(1)
    both_N, area_N = (mask_NP & truth_NP).sum(1), mask_NP.sum(1) + truth_NP.sum(1)
    empty_N = area_N == 0
    accuracy_N = (mask_NP == truth_NP).float().mean(1)
    iou_N = torch.where(empty_N, 1.0, both_N / (area_N - both_N).clamp(min=1))
    dice_N = torch.where(empty_N, 1.0, 2 * both_N / area_N.clamp(min=1))
    return torch.stack([accuracy_N, iou_N, dice_N]).sum(1).cpu()


def _validate(network, frames, number_N, settings):
    rows, scores, losses = [], [], []
    for i in range(len(frames)):
        logit_CHW, truth_HW = logits(network, frames, i, settings)
        truth_1KHW, mask_HW = truth_HW[None, None].float(), _lesion(logit_CHW[None])[0]
        if number_N is not None:
            truth_1KHW = one_hot(truth_1KHW, number_N[i:i + 1], len(logit_CHW))
        losses.append(LOSSES[settings.loss](logit_CHW[None], truth_1KHW).item())
        rows.append(measure(mask_HW, truth_HW))
        if truth_HW.any():
            own_HW = mask_HW if number_N is None else logit_CHW.argmax(0) == number_N[i]
            scores.append(iou(own_HW, truth_HW))
    mean = {name: sum(row[name] for row in rows) / len(rows) for name in MEASURED}
    return {"validation_loss": sum(losses) / len(losses), **mean,
            "score": sum(scores) / len(scores) if scores else mean["iou"]}


def _write_log(path, rows):
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
