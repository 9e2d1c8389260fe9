"""What a run prints at its end."""

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from golden.models import shipped
from hw.network import padding

__all__ = ["print_summary"]

HEADINGS = {"dependency": "depend-\nency", "backpressure": "back-\npressure",
            "offchip": "off-chip"}     # in 80 columns
ROWS = 12       # frames that are listed at most


def print_summary(console, report, folder):
    """A few lines and a table of the units."""
    cycles, simulation, energy = (report[key] for key in ("cycles", "simulation", "energy"))
    steady = report["mac_utilization"]["steady"]
    console.print(f"[bold]{escape(report['model'])}[/] on [bold]{escape(report['config'])}[/] "
                  f"{_measured_by(report['engine'])}, {report['frames']} frame(s)")
    facts  = {
        "time":       f"{report['execution_time_ms']:.3f} ms at {report['clock']['mhz']:g} MHz "
                      f"({report['clock']['source']}), "
                      f"{cycles['total']} cycles (the compiler expected "
                      f"{cycles['estimated'] / cycles['total'] - 1:+.1%})",
        "frame":      f"latency {cycles['latency']} cycles" + (
                      f", interval {cycles['interval']:.0f}" if cycles["interval"] else ""),
        "stages":     ", ".join(f"{name} {cycle / 1e6:.2f} M"
                                for name, cycle in report["stages"].items()) or "overlap",
        "MACs":       f"{report['mac_utilization']['latency']:.1%} of {report['mac_lanes']} lanes "
                      "in one frame" + (f", {steady:.1%} steady" if steady else "")
                      + (" (effective)" if max(report["mac_utilization"]["latency"],
                                               steady or 0) > 1 else "")
                      + f"; {report['products']['lanes_busy']:.1%} busy",
        "IPC":        f"{report['ipc']:.2f} (CPI {report['cpi']:.3f})",
        "off-chip":   f"{_offchip(report) / 2**20:.2f} MiB, "
                      f"{report['traffic']['offchip']['ratio']:.2f} times the compulsory",
        "on-chip":    f"{report['occupancy']['onchip_peak'] / 1024:.0f} of "
                      f"{report['occupancy']['onchip_capacity'] / 1024:.0f} KiB at most",
        "energy":     f"{energy['frame']['low']:.3g} to {energy['frame']['high']:.3g} mJ a frame, "
                      f"counted events as if in 45 nm; at the high end {_dearest(energy)}",
        "simulation": f"{simulation['wall_s']:.1f} s, "
                      f"{simulation['cycles_per_s'] / 1e3:.0f} kcycles/s, build "
                      f"{simulation['build_s']:.0f} s",
        "report":     str(folder / "report.json"),
        "page":       str(folder / "report.html"),
    }
    changes = report.get("machine", {}).get("changes", ())
    if changes:
        facts["changed"] = f"of {report['machine']['base']}: " + "; ".join(
            f"{one['knob']} {one['was']} -> {one['is']}" for one in changes)
    given = report["input"]
    if "frame" in given and (line := padding((given["size"], given["columns"]), given["frame"])):
        facts["picture"] = line
    if "classes" in report["mask"]:
        facts["classes"] = ", ".join(f"{name} {pixels:,} pixels"
                                     for name, pixels in report["mask"]["classes"].items())
    if not report["input"]["trained"]:
        widths = map(str, sorted(width for model, width in shipped().values()
                                 if model == report["model"]))
        trained = " or ".join(widths)
        facts["weights"] = ("seeded, not trained: the mask means nothing; "
                            + (f"trained ones come with WIDTH={trained}" if trained else
                               f"{report['model']} has no trained ones"))
    console.print(f"  mask       {_verdict(report)}", soft_wrap=True)
    if "cycle_model" in report:
        console.print(f"  cycles     {_agreement(report)}", soft_wrap=True)
    for name, fact in facts.items():
        console.print(f"  {name:<10} {fact}", soft_wrap=True, markup=False)
    console.print(_units(report))
    if report["frames"] > 1:
        console.print(_frames(report["stream"]))


def _measured_by(engine):
    return {"model": "by the exact cycle model", "board": "on a board"}.get(engine,
                                                                            f"under {engine}")


def _verdict(report):
    """In markup: green or red, whatever names there are."""
    tensors, wrong = report["tensors"], report["tensors"]["first_mismatch"]
    if report["bit_exact"] is None:
        return ("of the golden integer model; the cycle model moves no data; "
                f"{report['mask']['pixel_agreement_float']:.2%} of pixels as the float network")
    if report["bit_exact"]:
        return (f"[green]bit exact[/]: {tensors['compared']} tensors, {tensors['bytes']} bytes; "
                f"{report['mask']['pixel_agreement_float']:.2%} of pixels as the float network")
    first = tensors["problems"][0] if wrong is None else (
        f"frame {wrong['frame']}, {wrong['layer']} channel {wrong['channel']} row {wrong['row']} "
        f"column {wrong['column']}: expected {wrong['expected']}, got {wrong['got']}")
    return (f"[red]not bit exact[/]: {tensors['mismatched']} of {tensors['compared']} tensors "
            f"differ; first {escape(first)}")


def _agreement(report):
    """In markup: whether the cycle model says the same."""
    model, total = report["cycle_model"], report["cycles"]["total"]
    found = model["differences"]
    if not found and "margin" in model:
        return (f"[green]{total / model['cycles'] - 1:+.1%}[/] at the SDRAM's pins, against the "
                f"cycle model's memory; up to {model['margin']:.0%} may be")
    if not found:
        return "[green]exact[/]: the cycle model counts the same, by engine, cause and layer"
    return f"[red]{len(found)} counters differ from the cycle model's[/]; {escape(found[0])}"


def _frames(stream):
    """Cycles of each frame, and how evenly they came; of a long stream its first and last."""
    def cycles(value):
        return "" if value is None else f"{value:.0f}"

    live   = "delay" in stream
    times  = ("started", "ended", "latency", "interval")
    if live:
        times = ("arrived", "started", "ended", "latency", "delay", "interval")
    table  = Table("frame", "image", *times, box=None, header_style="dim")
    frames = list(enumerate(stream["frames"], 1))
    left   = frames[:ROWS - 1] + frames[-1:] if len(frames) > ROWS else frames
    for number, frame in left:
        if number == len(frames) > ROWS:
            table.add_row("..")
        table.add_row(str(number), Path(frame["image"]).name,
                      *(cycles(frame[key]) for key in times))
    jitter = [stream[key]["jitter"] for key in times if key in stream]
    blank  = [""] * live
    table.add_row("", "jitter", *blank, "", "cycles", *map(cycles, jitter))
    table.add_row("", "", *blank, "", "ms",
                  *(f"{x / stream['clock_mhz'] / 1e3:.3f}" for x in jitter))
    for column in (table.columns[0], *table.columns[2:]):
        column.justify = "right"
    return table


def _dearest(energy):
    """The two units that take most."""
    first = sorted(energy["units"].items(), key=lambda pair: -pair[1]["high"])[:2]
    return ", ".join(f"{unit} {part['high'] / energy['high']:.0%}" for unit, part in first)


def _offchip(report):
    return report["traffic"]["offchip"]["read"] + report["traffic"]["offchip"]["write"]


def _units(report):
    total  = report["cycles"]["total"]
    causes = list(next(iter(report["units"].values()))["stack"])
    table  = Table("issue port", *(HEADINGS.get(cause, cause.replace("_", "\n"))
                                   for cause in causes), box=None, header_style="dim")
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for name, unit in report["units"].items():
        table.add_row(name, *(f"{unit['stack'][cause] / total:.1%}" for cause in causes))
    return table
