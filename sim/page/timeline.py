"""What happened when, small enough for a page: from trace.json, or without one from the report."""

from sim.page.words import CAUSES, ENGINES

__all__ = ["layer_causes", "timeline"]

ARRAYS = {"encoder_conv": "encoder", "attention_conv": "attention", "decoder_conv": "decoder"}


def timeline(report, trace=None):
    """Slices, frames and counters over the cycles of the run, as the page's script reads them.

    ``rows`` has one entry per engine; its ``slices`` are flat, five numbers each: cycles since the
    end of the one before, length in cycles, layer, row, operation (numbers of ``layers`` and
    ``operations``). Without a trace only the arrays and the gate have slices, one per layer, and
    ``counters`` is None.
    """
    found = {
        "cycles":     report["cycles"]["total"],
        "clock_mhz":  report["clock"]["mhz"],
        "source":     "layers" if trace is None else "trace",
        "layers":     [], "operations": [], "frames": [], "counters": None,
        "blocks":     report["occupancy"]["over_time"]["blocks"],
        "capacity":   report["occupancy"]["onchip_capacity"],
    }
    slices = _from_layers(report) if trace is None else _from_trace(trace)
    found["rows"] = [{"unit": unit, "name": name, "label": label,
                      "slices": _packed(slices.get(name, ()), found)}
                     for unit, members in ENGINES.items() for name, label in members.items()
                     if trace is not None or name in slices]
    if trace is not None:
        found["frames"]   = trace["otherData"].get("frames", [])
        found["counters"] = _counters(trace)
        found["merged"]   = trace["otherData"].get("instructions_per_slice", 1)
    return found


def layer_causes(trace):
    """(engine, layer) -> cause -> cycles: spent on the layer's instructions, and waited for each
    since the one before."""
    found = {}
    names = _engines(trace)
    for event in trace["traceEvents"]:
        if event["ph"] == "X" and "by_cause" in event["args"]:
            key    = names[event["pid"], event["tid"]], event["name"]
            causes = found.setdefault(key, dict.fromkeys(CAUSES, 0))
            for part in ("by_cause", "waited"):
                for cause, cycles in event["args"].get(part, {}).items():
                    causes[cause] += cycles
    return found


def _engines(trace):
    names = {(one["pid"], one["tid"]): ARRAYS.get(one["name"], one["name"])
             for one in trace["otherData"]["engines"]}
    monitor = [event["pid"] for event in trace["traceEvents"]
               if event["ph"] == "M" and event["args"].get("name") == "monitor"]
    return names | {(pid, 1): "monitor" for pid in monitor}


def _from_layers(report):
    """Engine -> (start, length, layer, row, operation): the first row's end to the last row's."""
    found = {}
    for layer in report["layers"]:
        if layer["engine"] is not None and layer.get("first_row") is not None:
            start = min(layer["first_row"], layer["last"])
            found.setdefault(layer["engine"], []).append(
                (start, max(1, layer["last"] - start), layer["name"], 0, "layer"))
    return {engine: _disjoint(sorted(slices)) for engine, slices in found.items()}


def _disjoint(slices):
    """Layers whose rows alternate, such as both convolutions of a level, become one slice."""
    merged = []
    for start, length, name, row, operation in slices:
        if merged and start < merged[-1][0] + merged[-1][1]:
            begun, had, names, *_ = merged.pop()
            start, length, name = (begun, max(had, start + length - begun), f"{names}, {name}")
        merged.append((start, length, name, row, operation))
    return merged


def _from_trace(trace):
    names, found = _engines(trace), {}
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            engine, args = names.get((event["pid"], event["tid"])), event["args"]
            if engine is not None and args.get("op") != "sync":
                found.setdefault(engine, []).append(
                    (args["cycle"], args["cycles"], event["name"], args.get("row", 0),
                     args.get("op", "send")))
    return {engine: sorted(slices) for engine, slices in found.items()}


def _packed(slices, found):
    flat, end = [], 0
    for start, length, layer, row, operation in slices:
        flat += [start - end, length, _number(found["layers"], layer), row,
                 _number(found["operations"], operation)]
        end = start + length
    return flat


def _number(names, name):
    if name not in names:
        names.append(name)
    return names.index(name)


def _counters(trace):
    """Per sample: the first cycle after it, and what moved in it."""
    clock   = trace["otherData"]["clock_mhz"]
    samples = {}
    for event in trace["traceEvents"]:
        if event["ph"] == "C":
            samples.setdefault(event["name"], []).append((event["ts"], event["args"]))
    read, written = samples["off-chip bytes read"], samples["off-chip bytes written"]
    rows  = samples["off-chip row accesses"]
    # The last sample only ends the one before it; intervals are increments from their start on.
    edges = [round(time * clock) for time, _ in read]
    def column(events, key):
        return [args.get(key, 0) for _, args in events[:-1]]
    return {
        "edges":  edges,
        "read":   {key: column(read, key) for key in read[0][1]},
        "write":  {key: column(written, key) for key in written[0][1]},
        "hits":   column(rows, "hits"),
        "misses": column(rows, "misses"),
    }
