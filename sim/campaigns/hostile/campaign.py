"""Hostile files by the thousand: which, where they lie, how they fared."""

import gc
import json
import multiprocessing
import pickle
import random
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path

from golden.errors import InputError
from golden.places import COMMAND
from sim.campaigns.hostile.cage import LIMITS, Outcome, caged, state
from sim.campaigns.hostile.checkpoints import CHECKPOINTS
from sim.campaigns.hostile.networks import NETWORKS
from sim.campaigns.hostile.pictures import PICTURES
from sim.campaigns.hostile.runs import RUNS
from sim.campaigns.hostile.tables import TABLES

__all__ = ["KINDS", "Tally", "campaign", "corpus_of", "named", "try_all"]

TOGETHER = 16           # files that share a process: to fork one takes longer than most files
KINDS = {kind.name: kind for kind in (*PICTURES, *CHECKPOINTS, *TABLES, *RUNS, *NETWORKS)}


@dataclass
class Tally:
    """What became of the files of one kind. ``faults`` are by kind of fault; ``peak`` is the most
    memory in bytes, ``seconds`` the longest processor time, that one took."""
    accepted: int = 0
    refused:  int = 0
    faults:   Counter = field(default_factory=Counter)
    peak:     int = 0
    seconds:  float = 0.0

    @property
    def tried(self):
        return self.accepted + self.refused + self.faults.total()

    def add(self, outcome):
        if outcome.is_fault:
            self.faults[outcome.kind] += 1
        else:
            setattr(self, outcome.kind, getattr(self, outcome.kind) + 1)
        self.peak    = max(self.peak, outcome.peak)
        self.seconds = max(self.seconds, outcome.seconds)


def named(text):
    """The kinds that ``text`` names, with commas; all for ``all``."""
    names = list(KINDS) if text == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in KINDS:
            raise InputError(f"Unknown kind of file {name!r}; known are {', '.join(KINDS)}, all")
    return [KINDS[name] for name in names]


def campaign(kinds, seeds, out, *, run, jobs=1, limits=LIMITS, done=lambda name, outcome: None):
    """Try one file per seed; returns a :class:`Tally` by name of kind.

    The kind of a seed's file depends on the seed and ``kinds`` alone, and the file on its seed and
    kind. Faults are kept in folders ``out/KIND-SEED``: the files, and ``fault.json``. ``run`` is
    the folder of a run, for kinds that damage such. ``done`` is called after each.
    """
    out = Path(out).resolve()
    global _job
    _job = kinds, {kind.name: corpus_of(kind, run) for kind in kinds}, out, limits
    tallies = {kind.name: Tally() for kind in kinds}
    gc.freeze()             # what was made so far is shared with all that are forked
    with multiprocessing.get_context("fork").Pool(jobs, _begin) as pool:
        some = [seeds[first:first + TOGETHER] for first in range(0, len(seeds), TOGETHER)]
        for name, outcome in chain.from_iterable(pool.imap_unordered(_some, some)):
            tallies[name].add(outcome)
            done(name, outcome)
    return tallies


def corpus_of(kind, run):
    """Good examples of a kind, made in a process of their own: threads that libraries start
    meanwhile would be missing from every process that is forked from here, and be waited for."""
    with multiprocessing.get_context("fork").Pool(1, _begin) as pool:
        return pickle.loads(pool.apply(_made, (kind.name, run)))


def _begin():
    """In a new process: signals mean what they do anywhere; ours told of an interruption."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _made(name, run):
    return pickle.dumps(KINDS[name].corpus(run))


def try_all(cases, folder, limits=LIMITS):
    """Make and try files, a case being ``(kind, corpus, seed)``; yields for each its
    :class:`Outcome` and the folder, below ``folder``, that its file is in. ``unmade``, a fault, is
    one of ours."""
    made = []
    for number, (kind, corpus, seed) in enumerate(cases):
        place = folder / str(number)
        (place / "in").mkdir(parents=True)
        try:
            command = kind.make(random.Random(f"{kind.name} {seed}"), corpus, place)
        except Exception as error:
            line = f"{type(error).__name__}: {error}"
            yield Outcome("unmade", line, traceback.format_exc()), place
        else:
            made.append((command, place, state(place / "in")))
    outcomes = caged([(command, place) for command, place, _ in made], limits)
    for (_, place, before), outcome in zip(made, outcomes, strict=True):
        if not outcome.is_fault and state(place / "in") != before:
            outcome = replace(outcome, kind="write", line="changed what it read")
        yield outcome, place


def _some(seeds):
    kinds, corpora, out, limits = _job
    chosen = [(random.Random(seed).choices(kinds, [kind.share for kind in kinds])[0], seed)
              for seed in seeds]
    results = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        cases = [(kind, corpora[kind.name], seed) for kind, seed in chosen]
        for (outcome, place) in try_all(cases, Path(folder).resolve(), limits):
            kind, seed = chosen[int(place.name)]
            results.append((kind.name, outcome))
            if outcome.is_fault:
                kept = out / f"{kind.name}-{seed}"
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(place / "in", kept / "in", symlinks=True, ignore=_special)
                repeat = f"{COMMAND} hostile KINDS={kind.name} SEED={seed} N=1"
                record = {**asdict(outcome), "repeat": repeat}
                (kept / "fault.json").write_text(json.dumps(record, indent=2) + "\n")
    return results


def _special(folder, names):
    """Pipes and sockets: there is nothing in them to keep."""
    return [name for name in names if not (path := Path(folder) / name).is_symlink()
            and not path.is_dir() and not path.is_file()]

