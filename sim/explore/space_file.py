"""The file that describes a space.

It names a ``base``, gives ``[parameters]`` (knobs with the values that each may have),
``constraints``, and the ``objectives`` that are to be small. Knobs, units and ranges are those of
machine files (:mod:`hw.machine_file`). All mistakes of a file are told at once.
"""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

from golden.errors import InputError, shown
from golden.names import MOST_SIZE, MOST_WIDTH, POOLINGS, check_shape, demand_network, is_file
from hw.config import DRAMS, MACHINES, Config, Dram
from hw.knobs import Mistakes, is_table, knob, knob_of, read_amount, read_value, spoken
from hw.machine_file import is_path, read_toml, refuse, unknown
from sim.explore.constraints import Constraint, Unusable
from sim.explore.metrics import METRICS
from sim.explore.space import Space, all_knobs

__all__ = ["SHIPPED", "read_space"]

SHIPPED = {path.stem: path for path in sorted((Path(__file__).parent / "spaces").glob("*.toml"))}
MOST_VALUES = 1000          # of one parameter


@dataclass(frozen=True, kw_only=True)
class _File:
    """What a file may say, as the knobs of a machine are described; of the last four the words
    alone."""
    base:        str   = knob("the machine from which all begin, by name or path")
    model:       str   = knob("the network, by name or the path of an ONNX file",
                              default="elec4848")
    size:        int   = knob("side of a frame", least=1, most=MOST_SIZE, default=None)
    width:       int   = knob("filters of the first level", least=1, most=MOST_WIDTH, default=None)
    frames:      int   = knob("frames of the stream", least=1, most=1000, default=1)
    objectives:  tuple = knob("metrics and knobs that are to be small")
    constraints: tuple = knob("comparisons that must hold", default=())
    parameters:  dict  = knob("knobs with the values that they may have")


def read_space(name):
    """The space of a file, the shipped one called ``name``, or what such a file would say, as a
    dictionary.

    Raises
    ------
    InputError
        With every mistake in the file on a line of its own.
    """
    given = isinstance(name, dict)
    if not given and not is_path(name) and name not in SHIPPED:
        raise InputError(f"Unknown space {name!r}; known are {', '.join(SHIPPED)}, or the path of "
                         "a .toml file")
    file  = Path("space") if given else SHIPPED.get(name, Path(name))
    table = name if given else read_toml(file, "space")
    lines = [unknown(_File, _File, key, "") for key in table if key not in _names(_File)]
    plain = {}
    for each in fields(_File)[:5]:
        if each.name in table:
            try:
                plain[each.name] = read_value(each, table[each.name])
            except Mistakes as wrong:
                lines += wrong.lines
        else:
            plain[each.name] = each.default
    base = None
    try:
        if "base" not in table:
            lines.append("lacks base, the machine from which all begin")
        elif "base" in plain:
            base = MACHINES.load(plain["base"], file.parent)[0]
    except InputError as error:
        lines.append(f"base: {error}")
    lines += _network_mistakes(plain, file.parent)
    parameters = _parameters(table.get("parameters"), file.parent, lines)
    objectives = _objectives(table.get("objectives"), plain.get("frames"), lines)
    holding    = _constraints(table.get("constraints", []), base, plain.get("frames"), lines)
    refuse(shown(file), lines)
    return Space(file.stem, base, plain["model"], plain["size"], plain["width"], plain["frames"],
                 objectives, holding, parameters, file.parent)


def _names(kind):
    return [each.name for each in fields(kind) if knob_of(each) or is_table(each)]


def _network_mistakes(plain, folder):
    """What is wrong with the network; the path of a file becomes one from here."""
    model = plain.get("model")
    try:
        if model and is_file(model):
            plain["model"] = str(folder / model)
            if not (folder / model).is_file():
                raise InputError(f"No file {shown(plain['model'])!r}; name an ONNX file")
        elif model:
            demand_network(model)
            if plain.get("size") is not None:
                check_shape(plain["size"], 1, 1 << POOLINGS[model])
    except InputError as error:
        return [f"model: {error}" if "size" not in str(error) else str(error)]
    return []


def _parameters(table, folder, lines):
    """``{path: values}`` of the table of parameters; what is wrong goes to ``lines``."""
    if not isinstance(table, dict) or not table:
        lines.append("lacks [parameters], such as outputs = [4, 8] in [parameters.decoder]; "
                     "without any, the space has one machine")
        return {}
    found = {}
    _collect(_nested(table, lines), Config, "", folder, found, lines)
    return found


def _nested(table, lines):
    """Names with dots, in quotes, as the tables that they mean."""
    made = {}
    for name, value in table.items():
        for part in reversed(name.split(".")):
            value = {part: value}
        _merge(made, value, "", lines)
    return made


def _merge(made, more, prefix, lines):
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(made.get(name), dict):
            _merge(made[name], value, f"{prefix}{name}.", lines)
        elif name in made:
            lines.append(f"parameters give {prefix}{name} twice")
        else:
            made[name] = value


def _collect(table, kind, prefix, folder, found, lines):
    known = {each.name: each for each in fields(kind) if knob_of(each) or is_table(each)}
    for name, given in table.items():
        path, each = f"{prefix}{name}", known.get(name)
        try:
            if each is None:
                lines.append(f"{prefix}{unknown(kind, Config, name, prefix)}")
            elif path in ("name", "dram.name"):
                lines.append(f"{path} is no parameter; machines are called by their numbers")
            elif is_table(each) and isinstance(given, dict):
                _collect(given, each.type, f"{path}.", folder, found, lines)
            elif is_table(each) and each.type is not Dram:
                lines.append(f"{path} must be a table of knobs, not {given!r}")
            else:
                values = (_memories(given, folder) if is_table(each) else
                          _range(each, given) if isinstance(given, dict) else
                          _list(each, given))
                if len(set(values)) < len(values):
                    raise Mistakes([f"{name} has a value twice"])
                found[path] = tuple(values)
        except (Mistakes, InputError) as wrong:
            lines += [f"{prefix}{line}" for line in getattr(wrong, "lines", [f"{name}: {wrong}"])]


def _memories(given, folder):
    if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
        raise Mistakes([f"dram must be a list of names, such as [{', '.join(DRAMS.files)}]"])
    for one in given:
        DRAMS.load(one, folder)
    return given


def _list(each, given):
    if not isinstance(given, list):
        raise Mistakes([(f"{each.name} must be a list of values, or {{from, to, step}} or "
                        f"{{from, to, factor}}, not {given!r}")])
    if not given:
        raise Mistakes([f"{each.name} has no values"])
    return [read_value(each, one) for one in given[:MOST_VALUES + 1]]


def _range(each, given):
    """The values of ``{from, to, step}`` or ``{from, to, factor}``; powers of two double."""
    name = each.name
    for key in given:
        if key not in ("from", "to", "step", "factor"):
            near = get_close_matches(key, ("from", "to", "step", "factor"), 1)
            raise Mistakes([(f"{name} has {key!r}; {f'did you mean {near[0]}?' if near else ''}"
                            f"{'' if near else 'a range has from, to, and step or factor'}")])
    if each.type not in (int, float) or not {"from", "to"} <= given.keys() or {
            "step", "factor"} <= given.keys():
        raise Mistakes([(f"{name} must be a list of values, or a range of numbers: from, to, and "
                        "one of step and factor")])
    first, last = (read_value(each, given[key]) for key in ("from", "to"))
    if first > last:
        raise Mistakes([(f"{name} is an empty range: from {spoken(first, knob_of(each).unit)} to "
                        f"{spoken(last, knob_of(each).unit)}")])
    factor = given.get("factor", 2 if knob_of(each).power and "step" not in given else None)
    if factor is not None and (type(factor) not in (int, float) or not 1 < factor < 1e6):
        raise Mistakes([f"{name} grows by a factor above 1, not {factor!r}"])
    if factor is None and "step" not in given:
        raise Mistakes([f"{name} lacks the step or factor of its range"])
    step, values = 0 if factor else read_amount(each, given["step"]), []
    while True:
        count = len(values)
        value = first * factor**count if factor else first + step * count
        if value > last * (1 + 1e-12) or count > MOST_VALUES:
            break
        value = round(value) if each.type is int else round(value, 9)
        values.append(read_value(each, value))
    if len(values) > MOST_VALUES:
        raise Mistakes([f"{name} has more than {MOST_VALUES} values"])
    return values


def _named(names, frames):
    """What is wrong with names of metrics and knobs, a line each."""
    known = {*METRICS, *all_knobs(MACHINES.shipped["reference"])}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            yield (f"{name!r} is unknown; " + (f"did you mean {near[0]}?" if near else
                                               f"known are {', '.join(METRICS)}, and knobs"))
        elif name == "interval" and frames == 1:
            yield "interval is of a stream; give frames = 2 or more"


def _objectives(given, frames, lines):
    if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
        lines.append('lacks objectives, a list such as ["latency", "mac_lanes"]')
        return ()
    values = all_knobs(MACHINES.shipped["reference"])
    wrong  = [*_named(given, frames),
              *(f"{name!r} is nothing to be small" for name in given
                if name in METRICS and not METRICS[name].objective
                or isinstance(values.get(name), str | bool))]
    if len(set(given)) < len(given):
        wrong.append("names one twice")
    lines += [f"objectives: {line}" for line in wrong]
    return tuple(given)


def _constraints(given, base, frames, lines):
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        lines.append('constraints must be a list such as ["mac_lanes <= 1024"]')
        return ()
    made = []
    for text in given:
        try:
            constraint = Constraint(text)
            wrong = list(_named(sorted(constraint.names), frames))
            lines += [f"constraint {text!r}: {line}" for line in wrong]
            if not wrong and base is not None:
                constraint.holds(all_knobs(base) | dict.fromkeys(METRICS, 1))
                made.append(constraint)
        except Unusable as error:
            shown_text = text if len(text) < 60 else text[:60] + "…"
            lines.append(f"constraint {shown_text!r} {error}")
    return tuple(made)
