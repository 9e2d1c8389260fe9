"""Reports of runs that are over: reading them, and whether their figures count."""

import json
from pathlib import Path

import jsonschema

from golden.errors import InputError
from sim.report import SCHEMA

__all__ = ["check_report", "read_json", "read_report", "refusal"]

MOST_BYTES   = 2**28        # of a file: traces of the longest runs have a tenth
MOST         = 1e18         # of a number: what is computed from such stays finite
SHOWN        = 60           # characters of what is wrong


def read_report(path):
    """The report of a run from its folder, or from the file.

    Raises
    ------
    InputError
        If there is none, or it is not what :data:`sim.report.SCHEMA` describes.
    """
    path = Path(path)
    file = path / "report.json" if path.is_dir() else path
    if not file.exists():
        raise InputError(f"No report at {str(path)!r}; name the folder of a run, such as "
                         "reports/latest")
    return check_report(read_json(file), file)


def read_json(path):
    """What a file of JSON holds. Numbers are finite and below :data:`MOST`.

    Raises
    ------
    InputError
        If it cannot be read, or is something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{str(path)!r} is no file; name the folder of a run")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{str(path)!r} has more than {MOST_BYTES >> 20} MiB, so no run wrote it")
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse,
                          parse_float=lambda text: _bounded(float(text)),
                          parse_int=lambda text: _bounded(int(text)))
    except RecursionError:
        reason = "nested too deeply"
    except (OSError, ValueError) as error:
        reason = error
    raise InputError(f"{str(path)!r} cannot be read as JSON ({reason}); repeat the run") from None


def check_report(report, file):
    """``report`` itself if it is what every report is; ``file`` is what errors call it."""
    schema  = json.loads(SCHEMA.read_text())
    missing = [key for key in schema["required"] if not isinstance(report, dict)
               or key not in report]
    if missing:
        raise InputError(f"{str(file)!r} is no report of a run: it lacks {', '.join(missing)}; "
                         "name the folder of a run, such as reports/latest")
    wrong = next(jsonschema.Draft202012Validator(schema).iter_errors(report), None)
    if wrong is not None:
        place = ".".join(map(str, wrong.absolute_path)) or "the whole"
        if not place.isprintable() or len(place) > SHOWN:
            place = repr(place[:SHOWN])
        what = repr(wrong.instance)
        raise InputError(f"{str(file)!r} is no report of a run: {place} is "
                         f"{what if len(what) <= SHOWN else what[:SHOWN] + '…'}, against "
                         f"{wrong.validator!r} of its schema; repeat the run")
    return report


def _bounded(number):
    if not -MOST < number < MOST:
        raise ValueError("a number beyond 1e18")
    return number


def _refuse(word):
    raise ValueError(f"{word} is no number")


def refusal(report):
    """Why no figure of a run counts; None if it does.

    A run counts if something was compared, nothing differed, and the causes of every engine sum to
    the cycles of the run. Of the cycle model nothing can be compared; of the hardware its counters
    with that model's, too.
    """
    tensors, model = report["tensors"], report.get("cycle_model", {})
    if model.get("differences"):
        return f"not cycle-exact: {model['differences'][0]}"
    if report["engine"] == "model":
        return _uncharged(report)
    if not tensors["compared"]:
        return "not bit-exact: no tensor was compared"
    if not report["bit_exact"] or tensors["mismatched"] or tensors.get("problems"):
        return (f"not bit-exact: {tensors['mismatched']} of {tensors['compared']} tensors differ"
                + _first(tensors))
    if tensors.get("first_mismatch"):
        return "not bit-exact" + _first(tensors)
    return _uncharged(report)


def _uncharged(report):
    for name, unit in report["units"].items():
        charged = sum(unit["stack"].values())
        if charged != report["cycles"]["total"]:
            return (f"inconsistent: the causes of {name} sum to {charged} cycles, and the run took "
                    f"{report['cycles']['total']}")
    return None


def _first(tensors):
    first = tensors.get("first_mismatch")
    return f", first {first['layer']} of frame {first['frame']}" if first else ""
