"""The RTL has the last word: machines of the front, run whole, against what was found of them."""

from golden.folders import Fresh
from hw.machine import text_of
from sim.measured import refusal
from sim.run import Options, run

__all__ = ["certify", "contradictions", "file_of"]

SAME = {"cycles": "cycles.total", "latency": "cycles.latency", "interval": "cycles.interval",
        "offchip_bytes_moved": "traffic.offchip.total", "mac_lanes": "mac_lanes"}


def file_of(folder, config):
    """The machine as a file in ``folder``, which CONFIG takes."""
    file = folder / f"{config.name}.toml"
    with Fresh(folder, (), shared=True) as fresh:
        (fresh / file.name).write_text(text_of(config))
    return file


def certify(row, config, network, folder, console):
    """In what the RTL contradicts a row of results, a sentence each; the run is kept in ``folder``.

    Raises
    ------
    SimulationError
        If it could not be run.
    """
    report = run(Options(model=network.model, config=str(file_of(folder, config)),
                         frames=network.frames, size=network.size, width=network.width,
                         out=str(folder / config.name)), console, brief=True)
    return contradictions(row["figures"], report)


def contradictions(figures, report):
    """What differs between the figures of a machine and the report of its run."""
    reason = refusal(report)
    found  = [reason] if reason else []
    found += report["cycle_model"]["differences"]
    for name, path in SAME.items():
        value = report
        for part in path.split("."):
            value = value[part]
        if value != figures[name]:
            found.append(f"{name}: {value} in the RTL, {figures[name]} in the search")
    return found
