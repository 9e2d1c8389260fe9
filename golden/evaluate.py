"""How good the masks are: the float network and its INT8 form side by side, image by image.

    python -m golden.evaluate --model elec4848 --data FOLDER --out FOLDER [--part test]
    make evaluate MODEL=elec4848 DATA=FOLDER OUT=FOLDER [PART=test] [CHECKPOINT=FILE]

Takes all images of the data, or one part of its split. Writes ``metrics.json`` (means over ``all``
images, over those with a ``lesion``, and by ``class``, for ``float`` and ``int8``), ``images.csv``,
``masks-001.png`` and so on (every image with its masks, worst INT8 mask first), and
``reliability.png`` (what confidence is worth). Weights are the repository's unless a checkpoint is
given; that one is quantised here, on images of the training part where others are measured, or on
phantoms.

``--temperature`` divides the logits of a checkpoint, ``fit`` by what suits the validation part.
``--peak`` drops parts of masks whose highest confidence is lower, and says what that changed.
"""

import csv
import json
import sys
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from golden import data
from golden.classes import lesion_confidence, numbers
from golden.command import Parser, exit_code, make_console
from golden.confidence import (
    DEFINITION,
    SUSPECTED,
    auc,
    calibration_error,
    check_peak,
    drop_faint,
    lesion_score,
    reliability,
    temper,
)
from golden.contact import Masks, contact_sheets, draw_reliability
from golden.data import phantoms
from golden.errors import InputError
from golden.export import FIT, calibration_images, fitted, parse_temperature, quantise
from golden.folders import Fresh
from golden.integer import float_mask, real, run
from golden.metrics import (
    METRICS,
    OUTLIER_RULE,
    areas,
    binary,
    iou,
    measure,
    pixel_agreement,
    pooled,
    summary,
)
from golden.models import is_trained, load_float, load_graph
from golden.progress import bars
from golden.training import load_checkpoint

__all__ = ["evaluate", "execute", "main"]

FORMS = ("float", "int8")
SHEETS = "masks-[0-9][0-9][0-9]*.png"
FILES = ("metrics.json", "images.csv", "reliability.png", SHEETS)
CONVENTION = ("a mask is where the probability is at least 0.5; if truth and mask are both empty, "
              "every measure is 1; if one of them is, a measure without a denominator is 0")


def evaluate(network, graph, frames, *, peak=None, advance=lambda: None, shown=None):
    """One row per frame and form, and one of how the two forms agree.

    With ``peak``, parts of masks that are fainter are dropped
    (:func:`golden.confidence.drop_faint`) before masks are measured; ``untouched`` of a row is what
    was measured without. ``shown``, a list, receives the masks for
    :func:`golden.contact.contact_sheets`; ``advance`` is called after each frame. Of a network that
    tells classes apart a row has ``truth``, the number of the frame's class, and ``classes``: of
    each form the :class:`golden.metrics.Areas` of every class, and what the mask says of the frame.
    Everything else takes lesions of all classes for one.
    """
    rows = []
    true_N = frames.numbers(network.classes) if network.classes else None
    for i, sample in enumerate(frames.samples):
        truth_HW = frames.truth[i] > 0
        found, confidence = _found(network, graph, frames.frame(i))
        masks = {form: found[form] > 0 for form in FORMS}
        row = {"name": sample.name, "class": sample.kind, "lesion": bool(truth_HW.any())}
        if peak is not None:
            row["untouched"] = _measured(masks, truth_HW)
            masks = {form: drop_faint(masks[form], confidence[form], peak) for form in FORMS}
        row |= {**_measured(masks, truth_HW),
                "score": {form: lesion_score(confidence[form]) for form in FORMS},
                "reliability": {form: {least: reliability(confidence[form], truth_HW, least)
                                       for least in (0.0, SUSPECTED)} for form in FORMS},
                "iou float/int8": iou(*masks.values()),
                "pixels equal": pixel_agreement(*masks.values())}
        drawn = truth_HW, *masks.values()
        if network.classes:
            true_HW = true_N[i] * truth_HW.to(torch.uint8)
            found = {form: found[form] * masks[form] for form in FORMS}
            row |= {"truth": int(true_N[i]),
                    "classes": {form: _by_class(found[form], true_HW, network.classes)
                                for form in FORMS},
                    "pixels equal": pixel_agreement(*found.values())}
            drawn = true_HW, *found.values()
        rows.append(row)
        if shown is not None:
            shown.append(Masks(i, _caption(row, network.classes), *drawn, confidence["int8"]))
        advance()
    return rows


def _found(network, graph, image_CHW):
    """Of each form the mask, uint8 and above 0 where lesion is, by its class if the network tells
    classes apart; and the confidence."""
    stored = run(graph, image_CHW)
    if not network.classes:
        masks = {"float": network.segment(image_CHW), "int8": float_mask(graph, stored)}
        return {form: binary(masks[form]).to(torch.uint8) for form in FORMS}, masks
    with torch.no_grad():
        trace = network.trace(image_CHW[None].to(torch.float32) / 255)
    masks  = {"float": trace["mask"][0, 0], "int8": float_mask(graph, stored)}
    logits = {"float": trace["logit"][0], "int8": real(graph, stored, "logit")}
    return ({form: numbers(masks[form]) for form in FORMS},
            {form: lesion_confidence(logits[form]) for form in FORMS})


def _by_class(found_HW, true_HW, classes):
    """Areas of each class but the background, by name, and as ``frame`` the number of the class
    that has most pixels, 0 if there are none."""
    pixels = [int((found_HW == number).sum()) for number in range(1, len(classes))]
    return {"areas": {name: areas(found_HW == number, true_HW == number)
                      for number, name in enumerate(classes[1:], 1)},
            "frame": 1 + pixels.index(max(pixels)) if any(pixels) else 0}


def _measured(masks, truth_HW):
    """Measures of each form, and ``areas``."""
    return {**{form: measure(masks[form], truth_HW) for form in FORMS},
            "areas": {form: areas(masks[form], truth_HW) for form in FORMS}}


def _caption(row, classes):
    """Of a row of a contact sheet."""
    if classes:
        said = (f"{form} {classes[row['classes'][key]['frame']]}, IoU {row[key]['iou']:.3f}"
                for form, key in (("float", "float"), ("INT8", "int8")))
        return f"{row['name']}, truth {classes[row['truth']]}: {'; '.join(said)}"
    figures = "; ".join(f"{form} IoU {row[key]['iou']:.3f}, Dice {row[key]['dice']:.3f}"
                        for form, key in (("float", "float"), ("INT8", "int8")))
    return f"{row['name']}: {figures}"


def worst_first(rows, shown):
    """Masks in the order of their INT8 IoU; where that is equal, of the float one, and of names."""
    keys = [(row["int8"]["iou"], row["float"]["iou"], row["name"]) for row in rows]
    return [shown[i] for i in sorted(range(len(rows)), key=keys.__getitem__)]


def totals(rows, classes=()):
    """What ``metrics.json`` says of the rows: per form, over all, with lesion, and per class; of
    images without a lesion, how many have an alarm; and what the confidence is worth. Where the
    network tells ``classes`` apart, of each what :func:`_class_totals` has."""
    result = {}
    for form in FORMS:
        lesions = [row for row in rows if row["lesion"]]
        result[form] = {
            "all": summary([row[form] for row in rows]),
            "lesion": {**summary([row[form] for row in lesions]),
                       "pooled": pooled([row["areas"][form] for row in lesions])},
            "class": {kind: summary([row[form] for row in rows if row["class"] == kind])
                      for kind in sorted({row["class"] for row in rows})},
            "false_alarms": _alarms(rows, form),
            "calibration": _calibration(rows, form),
            "lesion_score": {"auc": auc([row["score"][form] for row in rows],
                                        [row["lesion"] for row in rows])}}
        if classes:
            result[form]["classes"] = _class_totals(rows, form, classes)
    result["agreement"] = {name: sum(row[name] for row in rows) / len(rows)
                           for name in ("iou float/int8", "pixels equal")}
    return result


def _class_totals(rows, form, classes):
    """``found`` of each class but the background: IoU and Dice, mean over the images whose lesion
    is of that class, and pooled over all images; and ``frames``: of those that are truly of a class
    how many the mask calls what, by the class that has most of its pixels."""
    found = {}
    for number, name in enumerate(classes[1:], 1):
        own = [pooled([row["classes"][form]["areas"][name]]) for row in rows
               if row["truth"] == number]
        found[name] = {"images": len(own),
                       **{key: sum(one[key] for one in own) / len(own) if own else None
                          for key in ("iou", "dice")},
                       "pooled": pooled([row["classes"][form]["areas"][name] for row in rows])}
    frames = {true: {seen: sum((row["truth"], row["classes"][form]["frame"]) == (t, s)
                               for row in rows) for s, seen in enumerate(classes)}
              for t, true in enumerate(classes)}
    return {"found": found, "frames": frames}


def _alarms(rows, form):
    healthy = [row for row in rows if not row["lesion"]]
    return {"images": len(healthy),
            "alarms": sum(row["areas"][form].mask > 0 for row in healthy)}


def _calibration(rows, form):
    every_3K, suspected_3K = (sum(row["reliability"][form][least] for row in rows)
                              for least in (0.0, SUSPECTED))
    return {"error": calibration_error(suspected_3K), "error_all": calibration_error(every_3K),
            "ranges": [{"pixels": int(count),
                        "probability": confidence / count if count else None,
                        "lesion": lesion / count if count else None}
                       for count, confidence, lesion in every_3K.T.tolist()]}


def peak_effect(rows, peak):
    """What ``peak`` in ``metrics.json`` says: measures of the masks without it, and with it."""
    result = {"value": peak}
    for key, some in (("without", [{**row, **row["untouched"]} for row in rows]), ("with", rows)):
        result[key] = {}
        for form in FORMS:
            lesions = summary([row[form] for row in some if row["lesion"]])
            result[key][form] = {"lesion_iou": lesions["iou"], "lesion_dice": lesions["dice"],
                                 "false_alarms": _alarms(some, form)["alarms"],
                                 "missed": sum(row["lesion"] and not row["areas"][form].mask
                                               for row in some)}
    return result


def write_rows(path, rows):
    """A CSV with one line per image."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["name", "class", "lesion",
                        *(f"{form} {name}" for form in FORMS for name in METRICS),
                        "iou float/int8", "pixels equal", *(f"{form} score" for form in FORMS)])
        for row in rows:
            table.writerow([row["name"], row["class"], int(row["lesion"]),
                            *(f"{row[form][name]:.6f}" for form in FORMS for name in METRICS),
                            f"{row['iou float/int8']:.6f}", f"{row['pixels equal']:.6f}",
                            *(f"{row['score'][form]:.6f}" for form in FORMS)])


def main(arguments=None):
    """Command line; exit status 2 and one line on bad input."""
    return exit_code(execute, arguments)


def _parse(arguments):
    parser = Parser("golden.evaluate", __doc__)
    parser.add_argument("--model", default="elec4848")
    parser.add_argument("--width", type=int, help="default: the source's")
    parser.add_argument("--size", type=int, help="of frames; default: the source's")
    parser.add_argument("--data", default="phantom",
                        help="folder as published, table (.csv), or phantom:N")
    parser.add_argument("--out", type=Path, default=Path("reports/evaluate"))
    parser.add_argument("--part", choices=("all", *data.PARTS), default="all",
                        help="of the data's split (default: all images)")
    parser.add_argument("--split", type=Path, metavar="CSV", help="a split.csv to use")
    parser.add_argument("--split-seed", type=int, default=0, help="of the split")
    parser.add_argument("--folds", type=int, default=0, help="test parts that the data have")
    parser.add_argument("--fold", type=int, default=0, help="which of them, from 1")
    parser.add_argument("--checkpoint", type=Path, help="in place of the repository's weights")
    parser.add_argument("--temperature", metavar="fit|X",
                        help="divide a checkpoint's logits by X, or by what fits validation best")
    parser.add_argument("--peak", type=float,
                        help="drop parts of masks whose highest confidence is below it")
    parser.add_argument("--clahe", action="store_true", help="equalise images as ELEC4848 does")
    parser.add_argument("--skip", action="store_true", help="leave broken pairs out")
    return parser.parse_args(arguments)


def execute(arguments):
    """What :func:`main` does, where bad input is an exception."""
    options = _parse(arguments)
    if options.peak is not None:
        check_peak(options.peak)
    if options.temperature is not None and options.checkpoint is None:
        raise InputError("TEMPERATURE is of a checkpoint; name one with CHECKPOINT, such as "
                         "elec4848-32")
    fold = data.check_fold(options.fold, options.folds)
    console = make_console(soft_wrap=True)
    with Fresh(options.out, FILES, shared=True) as folder:
        written = _measure(options, fold, folder, console)
    for older in options.out.glob(SHEETS):
        if older.name not in written:           # of a run with more images
            older.unlink()
    console.print(f"see {options.out}/metrics.json, images.csv, masks-*.png, reliability.png")


def _measure(options, fold, folder, console):
    """Write the files into ``folder``; the names of the pictures."""
    network, weights = _network(options)
    temperature = parse_temperature(options.temperature)
    dataset = data.find(options.data)
    with bars(console) as progress:
        reading = progress.add_task("reading images", total=len(dataset.samples))
        frames = data.load(dataset, network.size, skip=options.skip, equalise=options.clahe,
                           advance=lambda: progress.advance(reading))
        for line in (*dataset.notes, *frames.notes,
                     *(f"left out {line}" for line in frames.broken)):
            console.print(f"{dataset.source}: {line}")
        parts = {"all": frames.samples,
                 **data.split(frames.samples, options.split_seed, options.split, fold)}
        if temperature == FIT:
            temperature = fitted(network, frames.pick(parts["validation"]), console, progress)
        if temperature is not None:
            network = temper(network, temperature)
        graph = _graph(options, network, frames.pick(parts["train"]), console, progress)
        frames = frames.pick(parts[options.part])
        if not len(frames):
            raise InputError(f"The {options.part} part of {options.data!r} is empty; give more "
                             f"images, or PART=all")
        measuring = progress.add_task("measuring masks", total=len(frames))
        shown = []
        rows = evaluate(network, graph, frames, peak=options.peak, shown=shown,
                        advance=lambda: progress.advance(measuring))
        drawing = progress.add_task("drawing masks", total=len(frames))
        written = contact_sheets(folder, frames, worst_first(rows, shown),
                                 advance=lambda: progress.advance(drawing))
    result = {"model": network.name, "width": network.width, "size": network.size,
              "weights": weights, "data": dataset.source, "layout": dataset.layout,
              "part": options.part, "fold": fold, "clahe": options.clahe,
              "left_out": list(frames.broken), "temperature": temperature,
              "convention": CONVENTION, "outlier_rule": OUTLIER_RULE,
              "calibration_rule": DEFINITION, **totals(rows, network.classes)}
    if options.peak is not None:
        result["peak"] = peak_effect(rows, options.peak)
    (folder / "metrics.json").write_text(json.dumps(result, indent=2) + "\n")
    write_rows(folder / "images.csv", rows)
    draw_reliability(folder / "reliability.png",
                     {form: result[form]["calibration"] for form in FORMS})
    console.print(_table(result, len(rows)))
    console.print(f"float and INT8 masks: IoU {result['agreement']['iou float/int8']:.4f}, "
                  f"{100 * result['agreement']['pixels equal']:.3f} % of pixels equal")
    for line in _remarks(result):
        console.print(line)
    return written


def _remarks(result):
    """What the table has no room for, a line each."""
    alarms = {form: result[form]["false_alarms"] for form in FORMS}
    if healthy := alarms["float"]["images"]:
        yield (f"false alarms on {healthy} images without lesion: float "
               f"{alarms['float']['alarms']}, INT8 {alarms['int8']['alarms']}")
    if (area := result["float"]["lesion_score"]["auc"]) is not None:
        yield (f"is there a lesion: area under ROC float {area:.4f}, INT8 "
               f"{result['int8']['lesion_score']['auc']:.4f}")
    errors = [result[form]["calibration"] for form in FORMS]
    if all(error["error"] is not None for error in errors):
        yield (f"calibration error from confidence {SUSPECTED} on: float "
               f"{errors[0]['error']:.4f}, INT8 {errors[1]['error']:.4f}")
    if result["float"]["lesion"]["images"]:
        pool = {form: result[form]["lesion"]["pooled"] for form in FORMS}
        yield ("lesions, pixels pooled, float and INT8: " + "; ".join(
            f"{name} {pool['float'][key]:.4f}, {pool['int8'][key]:.4f}"
            for name, key in (("IoU", "iou"), ("Dice", "dice"))))
    for form in FORMS if "classes" in result["float"] else ():
        found, frames = (result[form]["classes"][key] for key in ("found", "frames"))
        right = sum(frames[name][name] for name in found)
        total = sum(sum(frames[name].values()) for name in found)
        yield (f"classes, {form}: " + "; ".join(
            f"{name} IoU {_figure(one['iou'])}, Dice {_figure(one['dice'])}"
            for name, one in found.items())
            + f"; {right} of {total} lesions called by their class")
    for form in FORMS if "peak" in result else ():
        before, after = (result["peak"][key][form] for key in ("without", "with"))
        yield (f"PEAK={result['peak']['value']:g}, {form}: lesion IoU "
               f"{_figure(before['lesion_iou'])} -> {_figure(after['lesion_iou'])}, false alarms "
               f"{before['false_alarms']} -> {after['false_alarms']}, missed "
               f"{before['missed']} -> {after['missed']}")


def _figure(value):
    return "none" if value is None else f"{value:.4f}"


def _network(options):
    """The float network, and where its weights come from."""
    if options.checkpoint is not None:
        network = load_checkpoint(options.checkpoint, options.model, options.width, options.size)
        return network, str(options.checkpoint)
    trained = is_trained(options.model, options.width)
    return (load_float(options.model, options.size, options.width),
            "repository" if trained else "none: seeded, without meaning")


def _graph(options, network, train, console, progress):
    """Its integer graph: the repository's, or made on images that are not measured."""
    if options.checkpoint is None:
        return load_graph(options.model, options.size, options.width)
    measured = options.part in ("all", "train") or phantoms.is_phantom(options.data)
    images = calibration_images(None if measured else train, network.size, equalise=options.clahe)
    return quantise(network, images, options.checkpoint, console, progress)


def _table(result, count):
    table = Table(title=f"{result['model']}, {count} images: mean ± standard deviation",
                  box=SIMPLE_HEAD, padding=0)       # fits 80 columns
    table.add_column("measure")
    sets = [(form, part) for part in ("all", "lesion") for form in FORMS]
    for form, part in sets:
        table.add_column(f"{part} ({result[form][part]['images']}),\n{form}", justify="right")
    for name in METRICS:
        cells = [result[form][part] for form, part in sets]
        table.add_row(name, *("none" if cell[name] is None else
                              f"{cell[name]:.4f} ± {cell['std'][name]:.4f}" for cell in cells))
    return table


if __name__ == "__main__":
    sys.exit(main())
