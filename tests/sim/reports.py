"""Reports of imaginary runs, for tests of what reads reports."""

import copy
import json

__all__ = ["imaginary", "save"]

CYCLES = 1000


def _unit(**stack):
    stack = {"issue": 0, "dependency": 0, "conflict": 0, "offchip": 0, "backpressure": 0,
             "fill_drain": 0, **stack}
    stack["no_work"] = CYCLES - sum(stack.values())
    return {"instructions": stack["issue"], "ipc": stack["issue"] / CYCLES, "macro": 3,
            "stack": stack}


def _layer(name, unit, cycles, utilization, moved):
    return {"name": name, "unit": unit, "macs": 100 if cycles else 0, "cycles": cycles,
            "offchip_bytes": moved, "mac_utilization": utilization, "engine": unit,
            "issued": cycles // 2}


REPORT = {
    "schema": 1, "model": "elec4848", "config": "tiny", "engine": "verilator", "frames": 1,
    "bit_exact": True,
    "tensors": {"compared": 5, "mismatched": 0, "bytes": 1364, "first_mismatch": None,
                "problems": []},
    "mask": {"pixel_agreement_float": 0.99, "iou_float": 0.6, "dice_truth": 0.5,
             "iou_truth": 1 / 3},
    "clock": {"mhz": 100, "source": "configured"},
    "cycles": {"total": CYCLES, "latency": 900, "interval": None},
    "execution_time_ms": 0.01, "frames_per_second": 111111.11,
    "macs": 50_000, "mac_lanes": 112,
    "mac_utilization": {"latency": 0.4960, "steady": None},
    "products": {"total": 1000, "lanes_busy": 0.4961},
    "instructions": {"vector": 1500, "macro": 9}, "ipc": 1.5, "cpi": 2 / 3,
    "units": {"load_encoder": _unit(issue=100, offchip=50),
              "encoder": _unit(issue=600, dependency=100, offchip=200),
              "attention": _unit(issue=300, dependency=500),
              "decoder": _unit(issue=500, dependency=280, backpressure=20)},
    "traffic": {"offchip": {"read": 900, "write": 100, "compulsory": 800, "ratio": 1.25,
                            "classes": {"program": 100, "weights": 700, "frame": 100,
                                        "spill": 0, "alpha": 0, "mask": 100},
                            "memory": "ddr3-1600", "row_hits": 10, "row_misses": 20},
                "onchip": {"read": 10, "write": 10}},
    "occupancy": {"onchip_capacity": 81920, "onchip_peak": 18032, "offchip_peak": 199936},
    "layers": [_layer("e1a", "encoder", 400, 0.35, 500), _layer("c1", "encoder", 300, 0.50, 200),
               _layer("gated1", "attention", 200, None, 0)],
    "simulation": {"wall_s": 1.0, "cycles_per_s": 1000.0, "build_s": 0.0},
    "input": {"images": ["phantom:7"], "size": 32, "width": 4, "trained": True},
}


def imaginary(**changes):
    """A report that counts, with changes by dotted name, such as ``{"cycles.total": 5}``."""
    report = copy.deepcopy(REPORT)
    for name, value in changes.items():
        *path, last = name.split(".")
        place = report
        for key in path:
            place = place[int(key) if isinstance(place, list) else key]
        place[last] = value
    return report


def save(folder, report):
    """Write a report where a run would; returns the folder as text."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report))
    return str(folder)
