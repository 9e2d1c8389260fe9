"""The Chrome trace event format, as its specification and Perfetto's importer demand it."""

import math

__all__ = ["assert_chrome_trace"]

COMMON = {"name", "ph", "pid"}
TIMED  = COMMON | {"ts", "tid"}
FIELDS = {                                      # phase -> fields it must have, and may have
    "X": (TIMED | {"dur"}, {"cat", "args"}),
    "i": (TIMED | {"s"}, {"cat", "args"}),
    "b": (TIMED | {"id", "cat"}, {"args"}),
    "e": (TIMED | {"id", "cat"}, {"args"}),
    "C": (COMMON | {"ts", "args"}, {"tid", "cat", "id"}),
    "M": (COMMON | {"args"}, {"tid", "ts", "cat"}),
}
NAMES  = {"process_name": ("name", str), "thread_name": ("name", str),
          "process_sort_index": ("sort_index", int), "thread_sort_index": ("sort_index", int)}


def assert_chrome_trace(whole):
    """Whole numbers of nanoseconds, so that a viewer's rounding moves nothing; named tracks whose
    slices nest; counters in order, always with the same series; spans that begin and end."""
    assert whole.keys() <= {"traceEvents", "displayTimeUnit", "otherData"}
    assert whole["displayTimeUnit"] in ("ms", "ns")
    named, slices, counters, spans = set(), {}, {}, {}
    for event in whole["traceEvents"]:
        needed, allowed = FIELDS[event["ph"]]
        assert needed <= event.keys() <= needed | allowed, event
        assert isinstance(event["name"], str) and event["name"], event
        assert all(type(event.get(key, 0)) is int for key in ("pid", "tid")), event
        for key in ("ts", "dur"):
            assert _is_time(event.get(key, 0)), event
        assert isinstance(event.get("args", {}), dict), event
        track = event["pid"], event.get("tid")
        match event["ph"]:
            case "M":
                key, kind = NAMES[event["name"]]
                assert type(event["args"][key]) is kind, event
                if kind is str:
                    named.add(track if event["name"] == "thread_name" else event["pid"])
            case "X":
                begin = round(1000 * event["ts"])
                slices.setdefault(track, []).append((begin, begin + round(1000 * event["dur"])))
            case "i":
                assert event["s"] in ("g", "p", "t"), event
            case "C":
                series = counters.setdefault((event["pid"], event["name"]), [])
                assert all(type(value) in (int, float) and math.isfinite(value)
                           for value in event["args"].values()), event
                assert not series or (series[-1]["ts"] < event["ts"] and
                                      series[-1]["args"].keys() == event["args"].keys()), event
                series.append(event)
            case phase:
                key = event["cat"], event["id"], event["name"]
                assert (key in spans) == (phase == "e"), event
                assert phase == "b" or spans[key] <= event["ts"], event
                spans[key] = event["ts"] if phase == "b" else math.inf
    assert all(end == math.inf for end in spans.values()), "a span never ends"
    for track, found in slices.items():
        assert track in named, f"track {track} has no name"
        for one, following in zip(sorted(found), sorted(found)[1:], strict=False):
            assert one[1] <= following[0], f"slices of track {track} overlap"
    assert {event["pid"] for event in whole["traceEvents"]} <= named, "a process has no name"


def _is_time(value):
    return (type(value) in (int, float) and math.isfinite(value) and value >= 0
            and math.isclose(1000 * value, round(1000 * value), rel_tol=1e-12, abs_tol=1e-9))
