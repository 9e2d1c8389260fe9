"""A space: what varies, what must hold, what is to be small; and the machines in it, by number."""

import hashlib
import json
import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from golden.errors import InputError
from golden.names import is_file
from hw.config import DRAMS, MACHINES, Config, Dram
from hw.knobs import differences, is_table, knob_of
from hw.machine_file import is_path
from sim.explore.metrics import METRICS, STATIC, of_machine

__all__ = ["Candidate", "Space", "all_knobs"]

MEASURED = METRICS.keys() - set(STATIC)


@dataclass(frozen=True)
class Candidate:
    """A machine of a space before anything ran: its knobs, and its metrics and ``config``; or, with
    ``status`` ``refused`` or ``excluded``, the reason why it is none."""
    number: int
    knobs:  dict
    config: Config = None
    known:  dict   = field(default_factory=dict)
    status: str    = ""
    reason: str    = ""


@dataclass(frozen=True)
class Space:
    """What a file says. ``parameters`` are ``{path of a knob: tuple of values}``."""
    name:        str
    base:        Config
    model:       str
    size:        int | None
    width:       int | None
    frames:      int
    objectives:  tuple
    constraints: tuple
    parameters:  dict
    folder:      Path

    @property
    def machines(self):
        """How many combinations there are."""
        return math.prod(map(len, self.parameters.values()))

    def knobs(self, number):
        """The parameters of machine ``number``: those named last change first."""
        found = {}
        for path, values in reversed(self.parameters.items()):
            number, digit = divmod(number, len(values))
            found[path] = values[digit]
        return {path: found[path] for path in self.parameters}

    def number(self, digits):
        """The machine with these places of its values, by path."""
        found = 0
        for path, values in self.parameters.items():
            found = found * len(values) + digits[path]
        return found

    def candidate(self, number):
        """Machine ``number``, as a :class:`Candidate`."""
        knobs = self.knobs(number)
        try:
            config = self._config(number, knobs)
        except InputError as error:
            reason = "; ".join(line.strip() for line in str(error).partition("machine: ")[2]
                               .splitlines() or str(error).splitlines()[1:])
            return Candidate(number, knobs, status="refused", reason=reason)
        metrics = of_machine(config)
        given   = [each for each in self.constraints if not each.names & MEASURED]
        broken  = self._broken(given, config, metrics)
        if broken:
            return Candidate(number, knobs, config, metrics, "excluded", f"not {broken}")
        return Candidate(number, knobs, config, metrics)

    def machine(self, number):
        """Machine ``number`` whole, with what was changed of the base, as files and reports say."""
        made = self.candidate(number).config
        return replace(made, base=self.base.name, changes=tuple(differences(self.base, made)))

    def broken(self, candidate, metrics):
        """The first constraint that a machine breaks, None if all hold."""
        return self._broken(self.constraints, candidate.config, metrics)

    def content(self):
        """All that it says, as JSON: two spaces of the same content are one."""
        return {"base": repr(self.base), "model": self.model, "size": self.size,
                "width": self.width, "frames": self.frames, "objectives": list(self.objectives),
                "constraints": [each.text for each in self.constraints],
                "parameters": {path: list(values) for path, values in self.parameters.items()},
                "files": self._files()}

    @property
    def hash(self):
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()

    def _broken(self, constraints, config, metrics):
        known = all_knobs(config) | metrics if constraints else {}
        return next((each.text for each in constraints if not each.holds(known)), None)

    def _config(self, number, knobs):
        table = {"name": f"{self.name[:40]}-{number}"}
        for path, value in knobs.items():
            *parts, last = path.split(".")
            inner = table
            for part in parts:
                inner = inner.setdefault(part, {})
            inner[last] = value
        return MACHINES.change(self.base, table, "machine", self.folder)

    def _files(self):
        """What the files that it names hold."""
        found = {name: repr(DRAMS.load(name, self.folder)[0])
                 for name in self.parameters.get("dram", ()) if is_path(name)}
        if is_file(self.model):
            found["model"] = hashlib.sha256(Path(self.model).read_bytes()).hexdigest()
        return found


def all_knobs(config, kind=Config, prefix=""):
    """Every knob of a machine by its path; ``dram`` is the name of the memory."""
    found = {}
    for each in fields(kind):
        value = getattr(config, each.name)
        if is_table(each):
            found |= all_knobs(value, each.type, f"{prefix}{each.name}.")
            if each.type is Dram:
                found[f"{prefix}{each.name}"] = value.name
        elif knob_of(each):
            found[f"{prefix}{each.name}"] = value
    return found
