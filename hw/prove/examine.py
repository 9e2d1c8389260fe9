"""One property, examined: it holds, it is not vacuous, and its mutant is refuted."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass

from golden.places import CACHE
from hw.prove import solve
from hw.prove.bench import catalogue
from hw.prove.integers import decide
from hw.prove.trace import replay

BUILD = CACHE / "prove"

SEARCH = {"pdr": 80, "induction": 80, "smt": 16}
"""Cycles in which covers and mutants are looked for."""


@dataclass(frozen=True)
class Result:
    """``outcome`` is ``holds``, or what is wrong; ``seconds`` is the processor time it took to find
    out, which does not depend on what else the machine does."""
    name:        str
    kind:        str
    unbounded:   bool
    seconds:     float
    outcome:     str
    explanation: str = ""

    @property
    def shown(self):
        return self.outcome == "holds"


def examine(name, *, again=False, out=BUILD / "counterexamples"):
    """Examine the property called ``name``; a counterexample is written to ``out``."""
    begun = processor_time()
    entry = catalogue()[name]
    if entry.method == "integers":
        texts = [entry.integers(broken=broken).text() for broken in (False, True)]
    else:
        texts = {
            "property": solve.model(entry.bench(), goal="holds"),
            "covers":   solve.model(entry.bench(), goal="covered"),
            "mutant":   solve.model(entry.bench(broken=True), goal="holds"),
        }
    how  = [entry.steps, entry.method, entry.depth, solve.PREPARE, solve.TO_BITS, solve.TO_WORDS]
    what = json.dumps([name, texts, how, solve.tools()])
    kept = BUILD / f"{hashlib.sha256(what.encode()).hexdigest()[:24]}.json"
    if kept.exists() and not again:
        return Result(**json.loads(kept.read_text()))

    outcome, explanation = (_examine_integers(entry) if entry.method == "integers"
                            else _examine(entry, texts, out))
    result  = Result(name=name, outcome=outcome, explanation=explanation,
                     kind="unbounded" if entry.steps is None else f"to {entry.steps} steps",
                     unbounded=entry.steps is None, seconds=processor_time() - begun)
    if result.shown:
        BUILD.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(asdict(result)))
        partial.replace(kept)
    return result


def processor_time():
    """Seconds of this process, and of those that it started and that are over."""
    times = os.times()
    return sum(times[:4])


def _examine_integers(entry):
    holds, why = decide(entry.integers(), seconds=entry.seconds)
    if not holds:
        return "undecided" if holds is None else "REFUTED", why
    holds, why = decide(entry.integers(broken=True), seconds=entry.seconds)
    if holds is not False:
        return "blind", f"It holds with {entry.mutant.old!r} turned into {entry.mutant.new!r}."
    return "holds", ""


def _examine(entry, texts, out):
    search = SEARCH[entry.method]

    def decide(what, steps):
        return solve.solve(texts[what], folder=BUILD / entry.name / what, steps=steps,
                           method=entry.method, depth=entry.depth, seconds=entry.seconds)

    try:
        return _decided(entry, decide, search, out)
    except solve.SolverError as error:
        return "failed", str(error)


def _decided(entry, decide, search, out):
    verdict = decide("property", entry.steps)
    if verdict.holds is None:
        return "undecided", f"No answer within {entry.seconds} s."
    if not verdict.holds:
        return "REFUTED", _explain(entry, verdict, out)

    verdict = decide("covers", search)
    if verdict.holds is not False:
        return "vacuous", f"Its covers are not reached within {search} cycles."
    _, covered, _ = replay(entry.bench(), verdict.inputs)
    if not covered:
        return "unconfirmed", "The simulator does not reach the covers that the solver reached."

    verdict = decide("mutant", entry.steps or search)
    if verdict.holds is not False:
        return "blind", (f"It holds with {entry.mutant.old!r} turned into {entry.mutant.new!r} in "
                         f"{entry.mutant.function.__qualname__}.")
    broken, _, _ = replay(entry.bench(broken=True), verdict.inputs)
    if not broken:
        return "unconfirmed", "The simulator does not see the fault that the solver found."
    return "holds", ""


def _explain(entry, verdict, out):
    """Write the counterexample as text and waveforms; returns what to say about it."""
    out.mkdir(parents=True, exist_ok=True)
    vcd, text = out / f"{entry.name}.vcd", out / f"{entry.name}.txt"
    broken, _, lines = replay(entry.bench(), verdict.inputs, vcd=vcd)
    claim = [f"{entry.name} does not hold: {entry.statement}",
             *(f"broken in the last cycle: {what}" for what in broken)]
    if not broken:
        claim.append("Yet the simulator sees nothing broken: solver and simulator disagree.")
    text.write_text("\n".join([*claim, "", *lines, ""]))
    return "\n".join([*claim, *lines[-24:], f"all of it: {text}; waveforms: {vcd}"])
