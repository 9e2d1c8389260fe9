"""Reports of runs that are over: reading them, and whether their figures count."""

import json
from pathlib import Path

from golden.errors import InputError
from sim.report import SCHEMA

__all__ = ["read_report", "refusal"]


def read_report(path):
    """The report of a run from its folder, or from the file.

    Raises
    ------
    InputError
        If there is none, or it lacks what every report has.
    """
    path = Path(path)
    file = path / "report.json" if path.is_dir() else path
    try:
        report = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"No report at {str(path)!r}; name the folder of a run, such as "
                         "reports/latest") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{str(file)!r} cannot be read as a report ({error}); repeat the "
                         "run") from None
    required = json.loads(SCHEMA.read_text())["required"]
    missing  = [key for key in required if not isinstance(report, dict) or key not in report]
    if missing:
        raise InputError(f"{str(file)!r} is no report of a run: it lacks {', '.join(missing)}; "
                         "name the folder of a run, such as reports/latest")
    return report


def refusal(report):
    """Why no figure of a run counts; None if it does.

    A run counts if something was compared, nothing differed, and the causes of every engine sum to
    the cycles of the run.
    """
    tensors = report["tensors"]
    if not tensors["compared"]:
        return "not bit-exact: no tensor was compared"
    if not report["bit_exact"] or tensors["mismatched"] or tensors.get("problems"):
        return (f"not bit-exact: {tensors['mismatched']} of {tensors['compared']} tensors differ"
                + _first(tensors))
    if tensors.get("first_mismatch"):
        return "not bit-exact" + _first(tensors)
    for name, unit in report["units"].items():
        charged = sum(unit["stack"].values())
        if charged != report["cycles"]["total"]:
            return (f"inconsistent: the causes of {name} sum to {charged} cycles, and the run took "
                    f"{report['cycles']['total']}")
    return None


def _first(tensors):
    first = tensors.get("first_mismatch")
    return f", first {first['layer']} of frame {first['frame']}" if first else ""
