"""trace.json read back: what :func:`sim.trace.write_trace` wrote, and nothing else."""

from golden.errors import InputError
from hw.isa import Cause
from sim.measured import read_json

__all__ = ["SERIES", "read_trace"]

# Counters over time that readers look at, by name.
SERIES  = ("off-chip bytes read", "off-chip bytes written", "off-chip row accesses")
CAUSES  = {cause.name.lower() for cause in Cause}
COUNTED = ("index", "row", "instructions", "busy")          # of a slice, where it has them


def read_trace(path, series=SERIES):
    """``trace.json`` of a run as a dictionary.

    Raises
    ------
    InputError
        If it is no trace: every event has its place, its time and the figures of its kind, slices
        lie on known tracks, and the counters ``series`` have samples at the same times.
    """
    whole = read_json(path)
    try:
        _check(whole, series)
    except ValueError as error:
        raise InputError(f"{str(path)!r} is no trace of a run: {error}; repeat the run with "
                         "TRACE=1") from None
    return whole


def _check(whole, series):
    _demand(isinstance(whole, dict) and isinstance(whole.get("traceEvents"), list)
            and isinstance(whole.get("otherData"), dict), "it has no events")
    about = whole["otherData"]
    _demand(_is_number(about.get("clock_mhz", 1)) and about.get("clock_mhz", 1) > 0
            and ("clock_mhz" in about or not series), "it has no clock")
    _demand(_are(about.get("engines"), lambda one: isinstance(one.get("name"), str)
                 and _is_count(one.get("pid")) and _is_count(one.get("tid"))),
            "it has no list of engines")
    _demand(_are(about.get("frames", []), lambda one: _is_count(one.get("start"))
                 and _is_count(one.get("end"))), "it has no list of frames")
    _demand(_is_count(about.get("instructions_per_slice", 1)), "it has no length of slices")
    tracks  = {(one["pid"], one["tid"]) for one in about["engines"]}
    samples = {name: [] for name in series}
    for number, event in enumerate(whole["traceEvents"]):
        where = f"event {number}"
        _demand(isinstance(event, dict) and isinstance(event.get("name"), str)
                and isinstance(event.get("ph"), str) and _is_count(event.get("pid"))
                and isinstance(event.get("args", {}), dict), f"{where} has no name, phase or track")
        if event["ph"] == "X":
            _check_slice(event, tracks, where)
        elif event["ph"] == "C":
            args = event.get("args", {})
            _demand(_is_number(event.get("ts")) and all(map(_is_count, args.values())),
                    f"{where} has no time or no counts")
            if event["name"] in samples:
                samples[event["name"]].append((event["ts"], args))
        elif event["ph"] == "M":
            _demand("args" in event, f"{where} has no arguments")
    times = [[time for time, _ in series] for series in samples.values()]
    _demand(all(one and one == sorted(one) and one == times[0] for one in times),
            "its counters have not the same samples")


def _check_slice(event, tracks, where):
    args = event.get("args", {})
    _demand(_is_count(event.get("tid")) and _is_count(args.get("cycle"))
            and _is_count(args.get("cycles")) and args["cycles"] > 0
            and isinstance(args.get("op", ""), str)
            and all(_is_count(args.get(key, 0)) for key in COUNTED),
            f"{where} has no track or no cycles")
    for part in ("by_cause", "waited"):
        causes = args.get(part, {})
        _demand(isinstance(causes, dict) and set(causes) <= CAUSES
                and all(map(_is_count, causes.values())), f"{where} has no cycles by cause")
    _demand("by_cause" not in args or (event["pid"], event["tid"]) in tracks,
            f"{where} is of no engine")


def _demand(fulfilled, what):
    if not fulfilled:
        raise ValueError(what)


def _are(values, fits):
    return isinstance(values, list) and all(isinstance(one, dict) and fits(one) for one in values)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value):
    return type(value) is int and value >= 0
