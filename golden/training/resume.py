"""Whether what a checkpoint holds of an unfinished run can be gone on with."""

import dataclasses
import math

import torch

from golden.errors import InputError
from golden.training.checkpoint import check_state

__all__ = ["check_run"]

KEYS = ("network", "optimiser", "plateau", "random", "random_cuda", "step", "best", "rows",
        "settings")
MOMENTS = ("exp_avg", "exp_avg_sq")         # of AdamW, shaped like the weight that they are of
SCORED = ("score", "iou", "dice")


def check_run(state, average, run, problem):
    """Refuse, in a line that begins with ``problem``, what :meth:`golden.training.loop._Run.save`
    has not written of a run such as ``run``: other names, types or shapes, or no finite numbers.

    ``state`` is ``run`` of the checkpoint, ``average`` its ``normed``.
    """
    def demand(fulfilled, what):
        if not fulfilled:
            raise InputError(f"{problem}: its {what} is damaged; begin another run")

    demand(isinstance(state, dict) and set(state) == set(KEYS), "description")
    for part, network, values in (("network", run.network, state["network"]),
                                  ("average", run.average, average)):
        check_state(values, network.state_dict(), f"{problem}: its {part} does not fit")
    settings = state["settings"]
    demand(isinstance(settings, dict)
           and set(settings) <= {field.name for field in dataclasses.fields(run.settings)},
           "list of settings")
    demand(type(state["step"]) is int and state["step"] >= 0, "number of steps")
    demand(_finite(state["best"]), "best score")
    rows = state["rows"]
    demand(isinstance(rows, list) and all(
        isinstance(row, dict) and all(isinstance(name, str) and _finite(value)
                                      for name, value in row.items())
        and set(SCORED) <= set(row) for row in rows), "log")
    random = state["random"]
    demand(isinstance(random, torch.Tensor) and random.dtype is torch.uint8
           and random.shape == torch.get_rng_state().shape, "random state")
    try:
        torch.Generator().set_state(random)
    except RuntimeError:
        demand(False, "random state")
    demand(isinstance(state["random_cuda"], list), "random state")
    plateau = run.plateau.state_dict()
    demand(_alike(state["plateau"], plateau), "schedule")
    demand(_optimises(state["optimiser"], run.optimiser), "optimiser")


def _finite(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _alike(value, like):
    """Whether two values have the same keys, lengths and types throughout."""
    if isinstance(like, dict):
        return (isinstance(value, dict) and set(value) == set(like)
                and all(_alike(value[key], like[key]) for key in like))
    if isinstance(like, (list, tuple)):
        return (type(value) is type(like) and len(value) == len(like)
                and all(map(_alike, value, like)))
    if isinstance(like, float) and not isinstance(like, bool):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and (
            not math.isnan(value))
    return type(value) is type(like)


def _optimises(value, optimiser):
    """Whether a state of AdamW fits an optimiser that has not yet made a step."""
    like = optimiser.state_dict()
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    if not (isinstance(value, dict) and set(value) == {"state", "param_groups"}
            and _alike(value["param_groups"], like["param_groups"])
            and isinstance(value["state"], dict) and set(value["state"]) <= set(range(len(weights)))
            and all(ours["params"] == theirs["params"] for ours, theirs in
                    zip(like["param_groups"], value["param_groups"], strict=True))):
        return False
    return all(_moments(moments, weights[index]) for index, moments in value["state"].items())


def _moments(value, weight):
    if not isinstance(value, dict) or set(value) != {"step", *MOMENTS}:
        return False
    shapes = {"step": torch.Size(), **dict.fromkeys(MOMENTS, weight.shape)}
    return all(isinstance(value[name], torch.Tensor) and value[name].shape == shape
               and value[name].layout is torch.strided and value[name].is_floating_point()
               and value[name].device.type == "cpu" and bool(value[name].isfinite().all())
               for name, shape in shapes.items())
