"""Spaces for tests, and machines that are measured in no time."""

from sim.explore.space_file import read_space

__all__ = ["SIX", "found_of", "space_of"]

SIX = """
base        = "tiny"
size        = 16
width       = 4
objectives  = ["latency", "mac_lanes"]
constraints = ["mac_lanes >= 64"]

[parameters]
decoder.outputs = [1, 2, 4]
onchip_bytes    = ["32 KiB", "64 KiB"]
"""


def space_of(folder, text=SIX, name="six"):
    file = folder / f"{name}.toml"
    file.write_text(text)
    return read_space(str(file))


def found_of(number, config):
    """What an imaginary worker finds of a machine: lanes and memory make it faster; of an encoder
    with 8 pixels nothing is found."""
    if config.encoder.pixels == 8:
        return {"status": "failed", "reason": "does not fit", "seconds": 0.5}
    cycles = 10**6 // config.mac_lanes - config.onchip_bytes // 1024
    return {"status": "measured", "reason": "", "seconds": 0.5,
            "metrics": {"cycles": cycles, "latency": cycles, "interval": None,
                        "milliseconds": cycles / 1e5, "offchip_bytes_moved": 1000 + number,
                        "utilisation": 0.5},
            "units": {"encoder": [cycles, 0, 0, 0, 0, 0, 0]}}
