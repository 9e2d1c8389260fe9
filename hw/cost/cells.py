"""Cells of an ECP5 that a machine will take, without synthesis: for searches.

Multipliers and block RAM follow from the sizes. LUTs and flip-flops of a block are a sum over a few
of its sizes, each times a coefficient that was fitted to synthesised blocks (:mod:`hw.cost.fit`).
"""

import json
from functools import cache
from pathlib import Path

from hw.cost.parts import BLOCKS
from hw.isa import Requant

__all__ = ["COEFFICIENTS", "FITTED", "KINDS", "block_rams", "cells_of_machine", "features",
           "luts_by_place"]

COEFFICIENTS = Path(__file__).with_name("cells.json")
FITTED       = ("LUT4", "FF")

BOUND_BITS = sum(Requant.as_shape()[part].width for part in ("bound", "ceiling"))
PARAM_BITS = sum(Requant.as_shape()[part].width for part in ("bias", "multiplier", "shift"))
RAM_BITS   = 1 << 14        # of a DP16KD, without those for parity
CONTROLLER_RAMS = 22        # instructions and layer ledger
LEAST      = 33             # words of a memory that is in block RAM, and not in LUTs


def block_rams(width, depth):
    """DP16KDs of a memory: words may be 1, 2, 4 .. 32 bits wide in each; bytes of them can be
    written alone."""
    if depth < LEAST:
        return 0
    return min(-(-width // (1 << bits)) * -(-depth // (RAM_BITS >> bits)) for bits in range(6))


def _array(config, unit, name):
    sums, lanes = unit.pixels * unit.outputs, unit.pixels * unit.outputs * config.vector
    wide = unit.pixels * config.vector
    return {"lanes": lanes, "sums": sums, "depthwise": wide, "transformed": unit.transform * lanes,
            "transformed sums": unit.transform * sums}


def _drain(config, unit, name):
    wide = unit.pixels * config.vector
    return {"one": 1, "lanes": unit.drain, "bounded": config.channel_bounds * unit.drain,
            "sums": unit.pixels * unit.outputs,
            "pairs": unit.transform * unit.pixels * unit.outputs, "depthwise": wide}


def _weights(config, unit, name):
    return {"one": 1, "outputs": unit.outputs, "drain": unit.drain,
            "in LUTs": unit.drain * _in_luts(-(-unit.params * unit.outputs // unit.drain)),
            "two depths": unit.outputs * (unit.weight_words & (unit.weight_words - 1) > 0)}


def _in_luts(depth):
    """Blocks of 16 words of a memory that is in LUTs."""
    return -(-depth // 16) * (depth < LEAST)


def _conv(config, unit, name):
    window = unit.banks * config.vector
    return {"one": 1, "turning": window * (unit.banks.bit_length() - 1), "window": window,
            "columns": unit.pixels * unit.taps * config.vector,
            "picked": unit.pixels * unit.banks * window,        # of which bank a pixel's bytes are
            "pixel transform": unit.transform * unit.pixels * unit.banks * window,
            "weight transform": unit.transform * unit.outputs * config.vector,
            "read": config.pipelined * window}


def _rows(config, unit, name):
    window = unit.banks * config.vector
    return {"window": window, "masks": unit.banks * window // unit.outputs,
            "gated": window * (name == "decoder")}


def _fill(config, unit, name):
    return {"one": 1, "vector": config.vector, "pipelined": config.pipelined * config.vector}


def _gate(config, *_):
    return {"one": 1, "lanes": config.gate_lanes, "vector": config.vector,
            "in LUTs": config.gate_lanes * _in_luts(config.gate_param_words),
            "pipelined": config.pipelined}


def _onchip(config, *_):
    bank = config.onchip_bytes // config.onchip_banks
    deep = max(bank // (config.vector * RAM_BITS) - 1, 0)   # outputs of block RAM to choose from
    return {"banks": config.onchip_banks, "wide banks": config.onchip_banks * config.vector,
            "squared": config.onchip_banks ** 2, "deep": deep * config.onchip_banks * config.vector,
            "pipelined": config.pipelined * config.onchip_banks * config.vector}


def _vector(config, *_):
    return {"one": 1, "vector": config.vector, "pipelined": config.pipelined * config.vector}


KINDS = {
    "controller": _vector, "load": _vector, "stores": _vector, "monitor": _vector, "": _vector,
    "alpha": _vector, "memory": _vector, "onchip": _onchip, "gate": _gate,
    "array": _array, "drain": _drain, "weights": _weights, "conv": _conv, "rows": _rows,
    "fill": _fill, "unit": _vector,
}
"""The last name of a block -> what its sizes are; those of a unit itself are ``unit``."""


def kind_of(block):
    """The kind of a block of :data:`hw.cost.parts.BLOCKS`."""
    last = block.rpartition(".")[2]
    return last if last in KINDS else "unit"


def features(config, block):
    """The sizes of a block, by name, in the order of its coefficients."""
    name = block.partition(".")[0]
    return KINDS[kind_of(block)](config, config.units.get(name), name)


@cache
def coefficients():
    """``{kind: {resource: {size: coefficient}}}``, as fitted."""
    return json.loads(COEFFICIENTS.read_text())["coefficients"]


def predicted(config, block, resource, fitted):
    """How many of a resource of ``FITTED`` a block takes, by the coefficients ``fitted``."""
    per = fitted[kind_of(block)][resource]
    return sum(per.get(size, 0) * value for size, value in features(config, block).items())


def luts_by_place(config):
    """``{place: LUT4}``: of the controller, each unit, the loads and so on; what is in none of
    them is ``between``."""
    found = {}
    for block in (*BLOCKS, ""):
        place = block.partition(".")[0] or "between"
        found[place] = found.get(place, 0) + predicted(config, block, "LUT4", coefficients())
    return {place: round(luts) for place, luts in found.items()}


def cells_of_machine(config):
    """``{"LUT4", "FF", "MULT18X18D", "DP16KD"}`` of a machine; the first two are fitted."""
    return {**{resource: round(sum(predicted(config, block, resource, coefficients())
                                   for block in (*BLOCKS, ""))) for resource in FITTED},
            "MULT18X18D": multipliers(config), "DP16KD": rams(config)}


def multipliers(config):
    """A multiplier each MAC lane, two each requantiser, of which the gate has one a lane, too."""
    return (config.mac_lanes + 2 * sum(unit.drain for unit in config.units.values())
            + 3 * config.gate_lanes)


def rams(config):
    """Block RAMs of all memories that are not in LUTs."""
    bits, units = config.vector * 8, config.units
    return (CONTROLLER_RAMS
            + config.onchip_banks * block_rams(bits, config.onchip_words // config.onchip_banks)
            + block_rams(bits, config.feedback_words)
            + block_rams(bits, config.alpha_words)
            + config.gate_lanes * block_rams(PARAM_BITS, config.gate_param_words)
            + sum(unit.banks * block_rams(bits, unit.row_words)
                  + unit.outputs * block_rams(bits, unit.weight_words)
                  + unit.drain * block_rams(PARAM_BITS + BOUND_BITS * config.channel_bounds,
                                            -(-unit.params * unit.outputs // unit.drain))
                  for unit in units.values()))
