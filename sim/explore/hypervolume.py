"""How soon a search found what it found, beside machines drawn by chance."""

import numpy as np

__all__ = ["progress"]

SAMPLES = 8192      # points of the box; what is said of it is right to half a percent
AT_ONCE = 128       # of them
SHOWN   = 100       # numbers of evaluations


def progress(searched, drawn):
    """The hypervolume after 1, 2, .. evaluations: the share of the box between the best and the
    worst of all figures in which some machine is as good in everything.

    It is measured on points drawn evenly from the box. The expectation of machines drawn by chance
    is exact for these points: of ``n`` of which ``m`` are as good as a point, ``k`` miss it with
    probability ``C(n - m, k) / C(n, k)``.

    Parameters
    ----------
    searched : list
        The figures of machines by objective, in the order of a search; None for one that does not
        run or breaks a constraint.
    drawn : list
        The same of machines that chance has drawn, or of all that there are.

    Returns
    -------
    dict
        ``evaluations``, and for each the hypervolumes ``search`` and ``random``, the latter None
        where fewer were drawn; None where there is nothing to tell apart.
    """
    good = np.array([each for each in (*searched, *drawn) if each], float)
    if not len(good) or not np.ptp(good, axis=0).any():
        return None
    apart  = np.ptp(good, axis=0) > 0
    least, most = good.min(axis=0)[apart], good.max(axis=0)[apart]
    points = least + (most - least) * np.random.default_rng(0).random((SAMPLES, len(least)))
    first, _  = _reached(points, searched, apart)
    _, reach  = _reached(points, drawn, apart)
    counts    = np.unique(np.geomspace(1, len(searched), SHOWN).astype(int))
    random    = [_by_chance(reach, len(drawn), k) if k <= len(drawn) else None
                 for k in counts.tolist()]
    return {"evaluations": counts.tolist(),
            "search": [round(float((first < k).mean()), 5) for k in counts], "random": random}


def _reached(points, machines, apart):
    """Per point, which machine is the first that is as good in everything, and how many are."""
    figures = np.full((len(machines), len(apart)), np.inf)
    for number, each in enumerate(machines):
        if each:
            figures[number] = each
    first, count = [], []
    for start in range(0, len(points), AT_ONCE):
        as_good = np.ones((len(points[start:start + AT_ONCE]), len(machines)), bool)
        for column, values in enumerate(figures[:, apart].T):
            as_good &= values <= points[start:start + AT_ONCE, column, None]
        count.append(as_good.sum(axis=1))
        first.append(np.where(count[-1] > 0, as_good.argmax(axis=1) if len(machines) else 0,
                              len(machines)))
    return np.concatenate(first), np.concatenate(count)


def _by_chance(reach, total, k):
    """The share of points that ``k`` of ``total`` machines reach on average."""
    logs   = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])    # of factorials
    others = np.maximum(total - reach - k, 0)
    missed = np.exp(logs[total - reach] - logs[others] - logs[total] + logs[total - k])
    return round(float(1 - np.where(reach + k <= total, missed, 0).mean()), 5)
