"""The coefficients of :mod:`hw.cost.cells`, from blocks that were synthesised."""

import json
import re
import statistics
from dataclasses import dataclass
from functools import partial

import numpy as np

from hw.arbitrary import arbitrary_machine, is_arbitrary
from hw.config import preset
from hw.cost.cells import COEFFICIENTS, FITTED, features, kind_of, predicted
from hw.cost.parts import parts
from hw.cost.synth import cells_of, resources

__all__ = ["POINTS", "Error", "fit", "kept_points", "mean_error", "synthesised", "unseen", "write"]

SAME   = "^(?!controller)"        # its controller is nearly that of every other machine
LESS   = "^(?!controller|onchip)"     # Yosys' WebAssembly traps in on-chip memory of these
POINTS = {"edge": "", "tiny": SAME, "random:5": SAME, "random:21": SAME, "random:26": LESS,
          "random:40": LESS}
"""The machines whose blocks are fitted, those that match; ``random:SEED`` is one of
:mod:`hw.arbitrary`."""

TOLERANCE = 1e-6


def machine(name):
    """A machine by name."""
    return arbitrary_machine(name) if is_arbitrary(name) else preset(name)


def synthesised(progress=lambda what: None):
    """``{machine: {block: resources}}`` of :data:`POINTS`, by Yosys or kept from before."""
    from hw.top import Chip

    return {name: {
        block: resources(cells_of(part.text(), progress=partial(progress, f"{name}, {block}")))
        for block, part in parts(Chip(machine(name))).items() if re.search(pattern, block)}
        for name, pattern in POINTS.items()}


def kept_points():
    """The same, as they were when the coefficients were fitted."""
    return json.loads(COEFFICIENTS.read_text())["points"]


def write(measured):
    """Fit, and keep the coefficients with what they come from."""
    COEFFICIENTS.write_text(json.dumps({"coefficients": fit(measured), "points": measured},
                                       indent=1) + "\n")


def fit(measured):
    """``{kind: {resource: {size: coefficient}}}`` that comes nearest to ``{machine: {block:
    resources}}``, in relative terms. No coefficient is negative, so that none can grow wild beyond
    the machines that it comes from."""
    rows = {}
    for name, blocks in measured.items():
        for block, counts in blocks.items():
            rows.setdefault(kind_of(block), []).append((features(machine(name), block), counts))
    found = {}
    for kind, samples in rows.items():
        sizes = list(samples[0][0])
        table = np.array([[float(each[size]) for size in sizes] for each, _ in samples])
        found[kind] = {}
        for resource in FITTED:
            counts = np.array([max(1, counts[resource]) for _, counts in samples], float)
            best   = _nonnegative(table / counts[:, None])
            found[kind][resource] = {size: round(float(value), 4)
                                     for size, value in zip(sizes, best, strict=True) if value > 0}
    return found


def _nonnegative(table):
    """What of the columns of ``table``, not less than nothing, comes nearest to ones: the method of
    Lawson and Hanson."""
    goal, best = np.ones(len(table)), np.zeros(table.shape[1])
    free = np.zeros(table.shape[1], bool)
    while True:
        gain = np.where(free, 0, table.T @ (goal - table @ best))
        if gain.max() < TOLERANCE * np.abs(table).max():
            return best
        free[gain.argmax()] = True
        while True:
            tried = np.zeros(len(best))
            tried[free] = np.linalg.lstsq(table[:, free], goal, rcond=None)[0]
            below = free & (tried <= 0)
            if not below.any():
                break
            step = (best[below] / (best[below] - tried[below])).min()
            best = best + step * (tried - best)
            free &= best > 1e-12
            best[~free] = 0
        best = tried


@dataclass(frozen=True)
class Error:
    """Of a machine that was not fitted: what was synthesised and what the model says, by
    resource."""
    name:      str
    blocks:    int
    measured:  dict
    predicted: dict

    def of(self, resource):
        """The model's error over what was measured."""
        return self.predicted[resource] / self.measured[resource] - 1


def unseen(measured):
    """An :class:`Error` of each machine by a model fitted to all others, of the blocks of which
    others have some of the kind."""
    found = []
    for name, blocks in measured.items():
        fitted = fit({other: of for other, of in measured.items() if other != name})
        known  = [block for block in blocks if kind_of(block) in fitted]
        found.append(Error(
            name, len(known),
            {resource: sum(blocks[block][resource] for block in known) for resource in FITTED},
            {resource: sum(predicted(machine(name), block, resource, fitted) for block in known)
             for resource in FITTED}))
    return found


def mean_error(found, resource):
    """The mean of errors without their signs."""
    return statistics.mean(abs(error.of(resource)) for error in found)
