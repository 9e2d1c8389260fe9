"""``make node-tests``: ONNX's own published tests of single nodes, through compiler and machine.

Each is run by :class:`sim.onnx_backend.AttuneBackend` and judged by ONNX's own comparison. What
does not run is refused for a reason, and counted by it. Exit code 0: all that ran gave what is
published; 1: one did not; 2: it could not be done, and one line says why.
"""

import re
import sys
import warnings
from collections import Counter, defaultdict

import onnx
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from golden.progress import bars
from hw.compiler import CompileError
from hw.compiler.importer import Refused
from sim.onnx_backend import AttuneBackend, Unfit

__all__ = ["main", "outcome", "reason_of"]

MOST_DETAILS = 12       # of a reason, in a line
OPERATOR = re.compile(r"\((\w+)\): (.*)")


def outcome(case, machine="tiny"):
    """What became of a test of ONNX: ``"equal"``, ``"different"``, or ``"refused"``; and the
    exception, None if it is equal."""
    try:
        prepared = AttuneBackend.prepare(case.model, machine=machine)
        for inputs, expected in case.data_sets:
            Runner.assert_similar_outputs(expected, prepared.run(inputs), case.rtol, case.atol)
    except AssertionError as error:
        return "different", error
    except (InputError, CompileError) as error:
        return "refused", error
    return "equal", None


def reason_of(error):
    """Why a test was refused, in general, and in particular: the operator, or the type."""
    if isinstance(error, Unfit):
        return error.reason, error.detail
    if isinstance(error, CompileError):
        return "maps that do not fit the machine", ""
    found = OPERATOR.search(error.reasons[0] if isinstance(error, Refused) else "")
    if not found:
        return "graphs that are no network of one frame", ""
    what = ("operators that the machine does not have" if "no such operator" in found[2] else
            "operators in a form that the machine does not have")
    return what, found[1]


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments)


def _command(arguments):
    options, console = _parse(arguments), make_console()
    warnings.simplefilter("ignore")             # of the tests' own arithmetic
    with console.status("making ONNX's tests"):
        cases = [case for case in load_model_tests(kind="node")
                 if not options.only or re.search(options.only, case.name)]
    if not cases:
        raise InputError(f"No test of ONNX matches {options.only!r}")
    names, reasons = defaultdict(list), defaultdict(Counter)
    with bars(console) as bar:
        for case in bar.track(cases, description="tests"):
            what, error = outcome(case, options.config)
            names[what].append(case.name)
            if what == "refused":
                reason, detail = reason_of(error)
                reasons[reason][detail] += 1
            if options.list:
                console.print(f"{case.name}: {what}" + (f": {error}" if error else ""),
                              soft_wrap=True, markup=False)
    console.print(f"{len(names['equal'])} of {len(cases)} node tests of ONNX {onnx.__version__} "
                  f"run on {options.config}, with the published outputs", soft_wrap=True)
    for reason, details in sorted(reasons.items(), key=lambda one: -one[1].total()):
        console.print(f"{details.total():5} refused: {reason}{_spoken(details)}", soft_wrap=True,
                      markup=False)
    for name in names["different"]:
        console.print(f"  different outputs: {name}", soft_wrap=True)
    return 1 if names["different"] else 0


def _spoken(details):
    found = [f"{name} {count}" for name, count in details.most_common() if name]
    more  = [f"and {len(found) - MOST_DETAILS} more"] if len(found) > MOST_DETAILS else []
    return f" ({', '.join(found[:MOST_DETAILS] + more)})" if found else ""


def _parse(arguments):
    parser = Parser("sim.node_tests", __doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--config", default="tiny")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args(arguments)
    try:
        re.compile(options.only)
    except re.error as error:
        raise InputError(f"ONLY is no pattern: {error}") from None
    return options


if __name__ == "__main__":
    sys.exit(main())
