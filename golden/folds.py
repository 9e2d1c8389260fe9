"""Training and test in several folds: what a network is worth on this data, and how sure that is.

    python -m golden.folds --data FOLDER --out runs/folds [--folds 5] [options of golden.train]
    make folds DATA=FOLDER OUT=runs/folds [FOLDS=5] [MODEL=elec4848] [EPOCHS=40] ...

The related groups of the data are dealt into folds; each is tested once, by a network that was
trained on the others. What `golden.train` writes goes to ``fold-1`` and so on, what
`golden.evaluate` says of the test part to ``fold-1/test``, and means over the folds, with their
confidence intervals, to ``folds.json``. The same command goes on where it was stopped: a fold that
was tested is not repeated. In ``--start`` and ``--teacher``, ``{fold}`` is the number of the fold.
"""

import copy
import json
import math
import statistics
import sys
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from golden import data, evaluate, train
from golden.command import exit_code, make_console
from golden.errors import InputError
from golden.folders import Fresh

__all__ = ["interval", "main"]

FORMS = ("float", "int8")
# Of Student's t, 0.975 quantile, by degrees of freedom.
T = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 6: 2.4469, 7: 2.3646, 8: 2.3060,
     9: 2.2622}
RULE = ("95 % interval of the mean by Student's t over folds: t * s / sqrt(n); folds share images "
        "to train on, so it is not exact")
FREE = ("out", "resume", "sheets", "threads", "fold")       # may differ where a run goes on


def main(arguments=None):
    """Command line; exit status 2 and one line on bad input."""
    return exit_code(_command, arguments)


def _parse(arguments):
    parser = train.parser("golden.folds", __doc__)
    parser.set_defaults(folds=5, out=Path("runs/folds"))
    return parser.parse_args(arguments)


def _command(arguments):
    options = _parse(arguments)
    data.check_folds(options.folds)
    if options.split or options.final or options.fold:
        raise InputError("Folds have splits of their own, and train on no validation part; leave "
                         "out --split, --fold and --final")
    try:
        _run(options)
    except KeyboardInterrupt:
        raise InputError("stopped; the same command goes on") from None


def _run(options):
    console = make_console(soft_wrap=True)
    for number in range(1, options.folds + 1):
        place = options.out / f"fold-{number}"
        if (place / "test" / "metrics.json").exists():
            _check_settings(options)
            console.print(f"fold {number} of {options.folds}: done")
            continue
        resume = (place / "last.pt").exists()
        if resume or options.out.exists():
            _check_settings(options)
        console.print(f"fold {number} of {options.folds}: {'goes on' if resume else 'begins'}")
        own = copy.copy(options)
        own.out, own.fold, own.resume = place, number, resume
        for name in ("start", "teacher"):
            path = getattr(options, name)
            setattr(own, name, path and Path(str(path).replace("{fold}", str(number))))
        try:
            train.execute(own)
        finally:
            if (place / "last.pt").exists():
                _keep_settings(options)
        evaluate.execute([f"--checkpoint={place / 'best.pt'}", f"--data={options.data}",
                          f"--split={place / 'split.csv'}", "--part=test",
                          f"--out={place / 'test'}",
                          *(f"--{name}" for name in ("clahe", "skip") if getattr(options, name))])
    results = [json.loads((options.out / f"fold-{number}" / "test" / "metrics.json").read_text())
               for number in range(1, options.folds + 1)]
    summary = summarise(results)
    with Fresh(options.out, ("folds.json",), shared=True) as folder:
        (folder / "folds.json").write_text(json.dumps(summary, indent=2) + "\n")
    console.print(_table(summary))
    console.print("± is half the 95 % interval of the mean, by Student's t over folds", style="dim")
    console.print(f"see {options.out}/folds.json")


def _settings(options):
    return {name: str(value) for name, value in sorted(vars(options).items()) if name not in FREE}


def _keep_settings(options):
    """Write what every fold must be trained with."""
    with Fresh(options.out, ("settings.json",), shared=True) as folder:
        (folder / "settings.json").write_text(json.dumps(_settings(options), indent=2) + "\n")


def _check_settings(options):
    """Refuse to go on with other settings: folds would not be comparable."""
    path = options.out / "settings.json"
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return
    except ValueError:
        kept = None
    if not isinstance(kept, dict):
        raise InputError(f"{str(path)!r} is damaged; name another folder with OUT")
    for name, now in _settings(options).items():
        if kept.get(name) != now:
            raise InputError(f"The folds in {str(options.out)!r} have {name} {kept.get(name)}, not "
                             f"{now}; give that, or name another folder with OUT")


def interval(values):
    """Mean of values of folds, and half the width of its 95 % confidence interval; None for what
    they are too few for."""
    values = [value for value in values if value is not None]
    if not values:
        return {"mean": None, "half_width": None}
    half = None
    if len(values) > 1:
        half = T[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": statistics.fmean(values), "half_width": half}


def summarise(results):
    """What ``folds.json`` says of the ``metrics.json`` of all folds."""
    folds = []
    for number, result in enumerate(results, 1):
        folds.append({"fold": number, "images": result["float"]["all"]["images"],
                      "lesions": result["float"]["lesion"]["images"],
                      **{form: _figures(result[form]) for form in FORMS}})
    names = [name for name in folds[0]["float"] if name != "false_alarms"]
    return {"rule": RULE, "folds": folds,
            **{form: {**{name: interval([fold[form][name] for fold in folds]) for name in names},
                      "false_alarms": {key: sum(fold[form]["false_alarms"][key] for fold in folds)
                                       for key in ("images", "alarms")}} for form in FORMS}}


def _figures(part):
    """Of one form of one fold."""
    alarms = part["false_alarms"]
    return {"iou": part["lesion"]["iou"], "dice": part["lesion"]["dice"],
            "pooled_iou": part["lesion"]["pooled"]["iou"],
            "pooled_dice": part["lesion"]["pooled"]["dice"],
            "calibration_error": part["calibration"]["error"],
            "auc": part["lesion_score"]["auc"], "false_alarms": alarms,
            "alarm_share": alarms["alarms"] / alarms["images"] if alarms["images"] else None}


def _table(summary):
    table = Table(title=f"{len(summary['folds'])} folds, their test parts", box=SIMPLE_HEAD,
                  padding=0)
    for column in ("fold", "images", "lesions", "lesion IoU\nfloat", "\nINT8", "lesion Dice\nfloat",
                   "\nINT8", "false alarms\nfloat", "\nINT8"):
        table.add_column(column, justify="right")
    for fold in summary["folds"]:
        table.add_row(str(fold["fold"]), str(fold["images"]), str(fold["lesions"]),
                      *(_cell(fold[form][name]) for name in ("iou", "dice") for form in FORMS),
                      *(_alarms(fold[form]) for form in FORMS))
    sums = [str(sum(fold[key] for fold in summary["folds"])) for key in ("images", "lesions")]
    table.add_section()
    table.add_row("mean", *sums, *(_cell(summary[form][name]["mean"]) for name in ("iou", "dice")
                                   for form in FORMS), *(_alarms(summary[form]) for form in FORMS))
    table.add_row("±", "", "", *(_cell(summary[form][name]["half_width"])
                                 for name in ("iou", "dice") for form in FORMS), "", "")
    return table


def _cell(value):
    return "none" if value is None else f"{value:.4f}"


def _alarms(figures):
    return "{alarms} of {images}".format(**figures["false_alarms"])


if __name__ == "__main__":
    sys.exit(main())
