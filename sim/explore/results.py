"""What a search leaves: explore.json, explore.csv, the winner as a machine file, and the page."""

import csv
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from markupsafe import Markup

from golden.folders import Fresh
from hw.cost.cells import luts_by_place
from hw.isa import Cause
from hw.knobs import spoken
from hw.machine import text_of
from sim.explore.effects import effects
from sim.explore.hypervolume import progress
from sim.explore.metrics import METRICS
from sim.page.build import embedded
from sim.page.words import CAUSES, ENGINES
from sim.pages import render

__all__ = ["FILES", "make_results", "table", "write_results"]

FILES        = ("explore.json", "explore.csv", "winner.toml", "explore.html")
MOST_ON_PAGE = 2000         # machines
MOST_REASONS = 50
HERE         = Path(__file__).parent


def make_results(exploration, network, certified):
    """Everything that was found, as ``explore.json`` has it. ``certified`` are the sentences of
    :func:`sim.explore.certify.certify` by machine."""
    space, rows = exploration.space, exploration.rows
    counts = Counter(row["status"] for row in rows.values())
    front  = [row["machine"] for row in exploration.front]
    kept   = [*METRICS, *(name for name in space.objectives if name not in METRICS)]
    return {
        "schema":     1,
        "space":      space.name,
        "base":       space.base.name,
        "network":    asdict(network),
        "objectives": list(space.objectives),
        "constraints": [each.text for each in space.constraints],
        "parameters": {path: list(values) for path, values in space.parameters.items()},
        "machines":   space.machines,
        "possible":   exploration.possible,
        "enumerated": exploration.enumerated,
        "proved":     exploration.enumerated and not counts["lost"] and not counts["fault"],
        "counts":     dict(sorted(counts.items())),
        "cpu_s":      round(sum(row["seconds"] or 0 for row in rows.values()), 3),
        "progress":   progress(*([_objectives(rows[number], space) for number in numbers]
                                 for numbers in (exploration.searched, exploration.drawn))),
        "effects":    effects(exploration.good, space.parameters, space.objectives),
        "front":      front,
        "winner":     front[0],
        "causes":     [cause.name.lower() for cause in Cause],
        "rows":       [{**row, "figures": {name: row["figures"][name] for name in kept
                                           if name in row["figures"]},
                        "luts": (luts_by_place(space.machine(row["machine"]))
                                 if row["status"] == "measured" else None),
                        "certified": certified.get(row["machine"])}
                       for _, row in sorted(rows.items())],
    }


def _objectives(row, space):
    """The objectives of a machine; None if it has none, or breaks a constraint."""
    if row["status"] != "measured":
        return None
    return tuple(row["figures"][name] for name in space.objectives)


def verdict(results):
    """How much of the space is known, as a sentence."""
    front, count = len(results["front"]), results["counts"].get("measured", 0)
    among = (f"all {results['possible']} possible machines of {results['machines']} were tried"
             if results["enumerated"] else
             f"of {results['machines']} machines {count} were found to run and meet the "
             "constraints, the others were not tried, or do not")
    what  = ("the front is proved within the space" if results["proved"] else
             "nothing is proved of the others")
    return f"{among}: {what}; it has {front} machine{'' if front == 1 else 's'}"


def write_results(results, winner, out):
    """The files, each in one piece; ``winner`` is the machine."""
    with Fresh(out, (), shared=True) as folder:
        (folder / "explore.json").write_text(json.dumps(results, indent=1) + "\n")
        _write_table(results, folder / "explore.csv")
        (folder / "winner.toml").write_text(text_of(winner))
        (folder / "explore.html").write_text(page(results))


def table(results):
    """A flat dictionary for each machine: what became of it, its knobs, its figures (None where it
    has none)."""
    figures = [name for name in _figures(results) if name not in results["parameters"]]
    front   = set(results["front"])
    return [{"machine": row["machine"], "status": row["status"], "reason": row["reason"],
             "front": row["machine"] in front, "certified": _mark(row), **row["knobs"],
             **{name: row["figures"].get(name) for name in figures}} for row in results["rows"]]


def _write_table(results, file):
    rows = table(results)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows({**row, "front": int(row["front"])} for row in rows)


def _mark(row):
    """What the RTL said of a machine, in a word."""
    if row["certified"] is None:
        return ""
    return "contradicted" if row["certified"] else "equal"


def _figures(results):
    """Names of figures, objectives first."""
    return [*results["objectives"], *(name for name in METRICS
                                      if name not in results["objectives"])]


def page(results):
    """``explore.html``: the front first, and as many of the others as a page can hold."""
    first   = results["objectives"][0]
    good    = {row["machine"]: row for row in results["rows"] if row["status"] == "measured"}
    others  = sorted(good.keys() - set(results["front"]),
                     key=lambda number: (_figure(good[number], first), number))
    shown   = [good[number] for number in [*results["front"], *others][:MOST_ON_PAGE]]
    figures = [name for name in _figures(results)
               if any(_figure(row, name) is not None for row in shown)]
    reasons = Counter((row["status"], row["reason"]) for row in results["rows"]
                      if row["status"] != "measured")
    units   = {name: label for members in ENGINES.values() for name, label in members.items()
               if name in shown[0]["units"]}
    data    = {"figures": [[name, METRICS[name].unit if name in METRICS else ""]
                           for name in figures],
               "axes": figures, "units": units, "places": list(shown[0]["luts"]),
               "progress": results["progress"], "enumerated": results["enumerated"],
               "frames": results["network"]["frames"],
               "causes": [[key, CAUSES[key].name] for key in results["causes"]],
               "machines": [{"machine": row["machine"], "knobs": _spoken(row),
                             "figures": [_figure(row, name) for name in figures],
                             "front": row["machine"] in results["front"],
                             "certified": _mark(row), "luts": list(row["luts"].values()),
                             "units": [row["units"][name] for name in units]} for row in shown]}
    return render("explore.html.j2", results=results, verdict=verdict(results), shown=shown,
                  figures=figures, metrics=METRICS, figure=_figure, spoken=_spoken, mark=_mark,
                  front=set(results["front"]), good=len(good), causes=CAUSES,
                  reasons=reasons.most_common(MOST_REASONS), more=len(reasons) - MOST_REASONS,
                  data=embedded(data), text=_text, effects=_effects(results),
                  tables=Markup((HERE.parent / "page" / "tables.js").read_text()),
                  script=Markup((HERE / "explore.js").read_text()))


def _effects(results):
    """``(path, [(share, means as a text) of each objective])``, what matters most first."""
    found = [(path, [(effect["share"], " · ".join(
        f"{_knob(path, value)}: {_short(mean)}" for value, mean, _ in effect["means"]))
        for effect in (results["effects"][name][path] for name in results["objectives"])])
        for path in results["effects"][results["objectives"][0]]]
    return sorted(found, key=lambda each: max(share for share, _ in each[1]), reverse=True)


def _short(value):
    """A mean for people: three digits."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _figure(row, name):
    return row["figures"].get(name, row["knobs"].get(name))


def _spoken(row):
    """The knobs of a machine for people."""
    return {path: _knob(path, value) for path, value in row["knobs"].items()}


def _knob(path, value):
    return spoken(value, "bytes" if path.endswith("_bytes") else "")


def _text(value):
    """A figure for people."""
    if value is None:
        return "–"
    return f"{value:,.0f}".replace(",", " ") if value == int(value) else f"{value:,.3f}"
