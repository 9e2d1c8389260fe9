"""Puts the page together: report.json, the pictures, and the event trace if there is one."""

import base64
import json
import os
import shlex
import tempfile
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup, escape

from golden.errors import InputError
from golden.names import CLASS_COLOURS
from golden.places import COMMAND, HOME, typed
from sim.measured import check_report, read_json
from sim.page.figures import Figures
from sim.page.timeline import layer_causes, timeline
from sim.page.words import BOUNDS, CAUSES, CLASSES, ENGINES, WORDS
from sim.trace_file import read_trace

__all__ = ["embedded", "render", "write_page"]

HERE     = Path(__file__).parent
PICTURES = (
    ("input.png",           "Input",            "the first frame"),
    ("truth.png",           "Truth",            "what an expert, or the phantom's maker, marked"),
    ("mask-golden.png",     "Golden mask",      "of the integer model: white is lesion"),
    ("mask-hardware.png",   "Hardware mask",    "as read back from the machine's memory"),
    ("mask-difference.png", "Difference",       "white where the two masks differ"),
    ("overlay.png",         "Overlay",          "the hardware's lesion outlined on the frame"),
)
MOVING      = "overlay.gif"         # of a stream; shown while the page stays light
MOVING_MOST = 4 * 2**20


def write_page(folder, *, shown=None):
    """Write ``report.html`` into the folder of a run; returns its path. ``shown`` is what the
    folder will be called, where it is still to be moved.

    Raises
    ------
    InputError
        If the folder has no usable report or trace.
    """
    folder = Path(folder)
    file   = folder / "report.json"
    if not file.exists():
        raise InputError(f"No file {str(file)!r}: no run is there; `{COMMAND} sim` makes one")
    report = check_report(read_json(file), file)
    trace  = folder / "trace.json"
    trace  = read_trace(trace) if trace.exists() else None
    try:
        text = render(report, _pictures(folder, report), trace, folder=_shown(shown or folder))
    except (KeyError, UndefinedError) as error:
        raise InputError(f"{str(file)!r} has not all that a page shows ({error}): it was written "
                         "by an older version; run again") from None
    return _write(folder / "report.html", text)


def render(report, pictures=(), trace=None, *, folder="reports/latest"):
    """The page as text. ``pictures`` are (title, text, data URI, kind), kind ``frame`` or
    ``alpha``."""
    figures     = Figures(report)
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=StrictUndefined)
    environment.globals.update(fig=figures.fig, share=figures.share, word=_word)
    return environment.get_template("page.html.j2").render(
        r=report, folder=shlex.quote(str(folder)), trace=trace is not None,
        style=Markup((HERE / "page.css").read_text()),
        script=Markup("".join((HERE / name).read_text() for name in ("tables.js", "page.js"))),
        report_json=embedded(report), timeline_json=embedded(timeline(report, trace)),
        frames=[one for one in pictures if one[3] == "frame"],
        alphas=[one for one in pictures if one[3] == "alpha"],
        engines=_engine_rows(report), layers=_layer_rows(report, trace),
        findings=_findings(report), causes=CAUSES, classes=CLASSES, bounds=BOUNDS, words=WORDS,
        units=ENGINES, command=COMMAND)


def _write(path, text):
    """In one piece: the page is complete, or it is the one before."""
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".page-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(scratch).chmod(0o644)
        Path(scratch).replace(path)
    finally:
        Path(scratch).unlink(missing_ok=True)
    return path


def _shown(folder):
    """How a person in ``HOME`` names the folder."""
    folder = Path(folder).resolve()
    return typed(folder) if folder.is_relative_to(HOME) else folder.name


def _pictures(folder, report):
    found = [(title, text, _uri(folder / name), "frame") for name, title, text in PICTURES
             if (folder / name).is_file()]
    if classes := report["mask"].get("classes"):
        said  = "; ".join(f"{colour} is {name}, {pixels:,} pixels" for colour, (name, pixels) in
                          zip(list(CLASS_COLOURS)[1:], classes.items(), strict=False))
        found = [(title, text.replace("white is lesion", said), *rest)
                 for title, text, *rest in found]
    moving = folder / MOVING
    if moving.is_file() and moving.stat().st_size <= MOVING_MOST:
        found.append(("All frames", "the hardware's lesion outlined, in motion",
                      _uri(moving, "image/gif"), "frame"))
    found += [(f"Gate {path.stem.removeprefix('alpha').split('-')[0]}",
               "as the monitor saw it" if path.stem.endswith("hardware") else
               "of the golden model; the monitor saw none", _uri(path), "alpha")
              for path in sorted(folder.glob("alpha*.png")) if path.is_file()]
    return found


def _uri(path, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def embedded(value):
    """JSON that may stand in a script element."""
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))


def _word(key, text=None):
    """A word with its definition: a link to it, which the script opens in place."""
    name, meaning = WORDS[key]
    return Markup(f'<a class="word" href="#word-{escape(key.replace(" ", "-"))}" '
                  f'title="{escape(meaning)}">{escape(text or name)}</a>')


def _engine_rows(report):
    """(unit, key, label) of every engine of the report, in the order of the machine."""
    return [(unit, name, label) for unit, members in ENGINES.items()
            for name, label in members.items() if name in report["units"]]


def _layer_rows(report, trace):
    """Per layer with cycles of its own: its number in the report, and its cycles by cause. Without
    a trace only the machine's ledger is known: cycles that issued, and the others that the layer
    held its engine."""
    causes = {} if trace is None else layer_causes(trace)
    rows   = []
    for index, layer in enumerate(report["layers"]):
        if layer["engine"] is None or not layer["cycles"]:
            continue
        stack = causes.get((layer["engine"], layer["name"]))
        if stack is None:
            stack = {"issue": layer["issued"], "fill_drain": layer["cycles"] - layer["issued"]}
        rows.append((index, layer, {cause: cycles for cause, cycles in stack.items() if cycles}))
    return rows


def _findings(report):
    """What a reader should see first: the engine that issues most, what it loses most to while it
    has work (None if nothing), and the layers with most cycles."""
    busiest = max(report["units"], key=lambda name: report["units"][name]["stack"]["issue"])
    stack   = report["units"][busiest]["stack"]
    lost    = max((cause for cause in stack if cause not in ("issue", "no_work")), key=stack.get)
    largest = sorted((index for index, layer in enumerate(report["layers"]) if layer["cycles"]),
                     key=lambda index: -report["layers"][index]["cycles"])[:3]
    label   = next(members[busiest] for members in ENGINES.values() if busiest in members)
    return {"busiest": busiest, "label": label, "lost": lost if stack[lost] else None,
            "largest": largest}
