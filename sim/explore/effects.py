"""What each parameter matters: how much of a figure's variance goes with it alone."""

from statistics import fmean, pvariance

__all__ = ["effects"]


def effects(rows, parameters, objectives):
    """``{objective: {path: {"share", "means"}}}`` of parameters with more than one value.

    ``share`` is the variance of the means of the machines with each value over the variance of all
    (the main effect of an analysis of variance; first-order Sobol index where every combination is
    there); ``means`` has ``[value, mean, machines]`` for each value.
    """
    varied = [path for path, values in parameters.items() if len(values) > 1]
    return {name: {path: _effect(rows, path, parameters[path], name) for path in varied}
            for name in objectives}


def _effect(rows, path, values, objective):
    figures = [row["figures"][objective] for row in rows]
    groups  = [(value, [figure for row, figure in zip(rows, figures, strict=True)
                        if row["knobs"][path] == value]) for value in values]
    groups  = [(value, found) for value, found in groups if found]
    whole   = pvariance(figures) if figures else 0
    mean    = fmean(figures) if figures else 0
    between = sum(len(found) * (fmean(found) - mean) ** 2 for _, found in groups)
    return {"share": between / len(figures) / whole if whole else 0.0,
            "means": [[value, fmean(found), len(found)] for value, found in groups]}
