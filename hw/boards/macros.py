"""Where block RAMs and multipliers go, ahead of nextpnr.

They have places of their own in a few rows of the chip. nextpnr places everything as if they could
be anywhere, then takes each of them to a free place near by; with most places taken that doubles
the wires, and the rest is placed around it. So :func:`place_macros` looks for all of them together:
it minimises the bounding boxes of all nets (Spindler, Schlichtmann and Johannes, Kraftwerk2, IEEE
Transactions on CAD 27, 2008: the weights that make their sum quadratic), pulls logic apart where
there is more of it than room, as SimPL does (Kim, Lee and Markov, IEEE Transactions on CAD 31,
2012), and pulls the block RAMs and multipliers to the places that are nearest to them in all (an
assignment problem). All that again and again, ever harder. nextpnr then gets their places, and
finds all others itself.
"""

import re
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import cg

__all__ = ["SITES", "pads_of", "place_macros"]

COLUMNS  = (4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114)
SITES    = {
    "DP16KD": [(x + 2 * k, y, f"X{x + 2 * k}/Y{y}/EBR{k}")
               for y in (22, 46, 70, 82) for x in COLUMNS for k in range(4)],
    "MULT18X18D": [(x + k, y, f"X{x + k}/Y{y}/MULT18_{k}")
                   for y in (10, 34, 58) for x in COLUMNS for k in (0, 1, 4, 5)],
}
"""Places of an LFE5U-85F: column, row and nextpnr's name, by kind of cell."""

WIDTH, HEIGHT = 126, 95         # of the chip, in tiles
LOGIC         = {"LUT4": 1.0, "CCU2C": 2.0, "TRELLIS_DPR16X4": 6.0, "TRELLIS_FF": 0.35}
"""Room that cells take, in LUTs: a register usually shares that of the LUT ahead of it."""
ROOM          = 7.1             # of a tile: of its 8 LUTs, and with such registers
GLOBAL        = ("CLK", "LSR", "WCK", "CLKA", "CLKB")       # inputs on networks of clocks
MOST_PINS     = 1200            # of a net that counts
LEAF          = 4               # tiles on a side, within which logic may lie as it likes
ROUNDS, EARLY = 60, 4           # the latter without any pull
PULL, GROWTH  = 0.004, 1.3
FIRM          = 40              # times as hard as logic are macros pulled


@dataclass(frozen=True)
class Netlist:
    """Cells by number, and the nets between them: ``pins`` are the cells of net 0, those of net 1
    and so on, from ``start`` of each on."""
    names: list
    kinds: np.ndarray
    pins:  np.ndarray
    start: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, module):
        names  = list(module["cells"])
        users  = {}
        for number, cell in enumerate(module["cells"].values()):
            for port, bits in cell["connections"].items():
                if port not in GLOBAL:
                    for bit in bits:
                        if isinstance(bit, int):
                            users.setdefault(bit, set()).add(number)
        nets  = [sorted(cells) for cells in users.values() if 2 <= len(cells) <= MOST_PINS]
        sizes = np.array([len(cells) for cells in nets], int)
        return cls(names, np.array([cell["type"] for cell in module["cells"].values()]),
                   np.concatenate([np.array(cells, int) for cells in nets] or [np.array([], int)]),
                   np.cumsum(sizes) - sizes, sizes)

    def wires(self, *axes):
        """Half the circumference of the bounding boxes of all nets, in tiles."""
        return sum((np.maximum.reduceat(axis[self.pins], self.start)
                    - np.minimum.reduceat(axis[self.pins], self.start)).sum() for axis in axes)


def pads_of(log):
    """``{cell: (column, row)}`` of the pads, as nextpnr tells of them while it packs."""
    return {name: (int(x), int(y)) for name, x, y in re.findall(
        r"pin '([^']+)' constrained to Bel 'X(\d+)/Y(\d+)/", log)}


def place_macros(module, pads, *, rounds=ROUNDS, progress=lambda part: None):
    """Give the block RAMs and multipliers of ``module``, one of Yosys' JSON mapped to an ECP5,
    their places (attribute ``BEL``).

    Parameters
    ----------
    pads : dict
        Of :func:`pads_of`.
    progress : callable
        Is told the part that is done.

    Returns
    -------
    float
        Wires in tiles, all logic where it would lie best: an estimate, for comparison.
    """
    netlist = Netlist.of(module)
    kinds   = netlist.kinds
    macros  = {kind: np.flatnonzero(kinds == kind) for kind in SITES}
    for kind, cells in macros.items():
        if len(cells) > len(SITES[kind]):
            raise ValueError(f"There are {len(SITES[kind])} {kind}, not {len(cells)}")
    area  = np.array([LOGIC.get(kind, 0.0) for kind in kinds])
    fixed = np.array([name in pads for name in netlist.names])
    at    = np.random.default_rng(1).normal((WIDTH / 2, HEIGHT / 2), 5, (len(kinds), 2)).T
    for number in np.flatnonzero(fixed):
        at[:, number] = pads[netlist.names[number]]

    pull, goal = np.zeros_like(at), at.copy()
    for _ in range(EARLY):
        at = _solved(netlist, at, fixed, pull, goal)
    sites = {}
    for step in range(rounds):
        goal = _apart(at, area, ~fixed & (area > 0))
        hard = PULL * (1 + step)**GROWTH
        pull = np.where(area > 0, hard, 0) / np.maximum(abs(at - goal), 1)
        for kind, cells in macros.items():
            sites[kind] = _assigned(at[:, cells], SITES[kind])
            goal[:, cells] = np.array([SITES[kind][site][:2] for site in sites[kind]],
                                      float).reshape(-1, 2).T
            pull[:, cells] = FIRM * hard / np.maximum(abs(at[:, cells] - goal[:, cells]), 1)
        at = _solved(netlist, at, fixed, pull, goal)
        progress((step + 1) / rounds)

    for kind, cells in macros.items():
        for cell, site in zip(cells, sites[kind]):
            module["cells"][netlist.names[cell]]["attributes"]["BEL"] = SITES[kind][site][2]
    return netlist.wires(*np.where(area > 0, _apart(at, area, ~fixed & (area > 0)), goal))


def _solved(netlist, at, fixed, pull, goal):
    """Positions that minimise the wires, and ``pull`` times the square of the way to ``goal``."""
    return np.array([_axis(netlist, *axis, fixed) for axis in zip(at, pull, goal)])


def _axis(netlist, at, pull, goal, fixed):
    # Every pin of a net is tied to its two outermost ones, so that at `at` the sum is the length.
    pins, start, sizes = netlist.pins, netlist.start, netlist.sizes
    net   = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((at[pins], net))
    low, high = pins[order[start]][net], pins[order[start + sizes - 1]][net]
    one, other, weight = [], [], []
    for bound, ties in ((low, pins != low), (high, (pins != high) & (pins != low))):
        one.append(pins[ties])
        other.append(bound[ties])
        weight.append(1 / (sizes[net] - 1)[ties]
                      / np.maximum(abs(at[pins] - at[bound])[ties], 1))
    one, other, weight = (np.concatenate(parts) for parts in (one, other, weight))

    many     = len(at)
    diagonal = (np.bincount(one, weight, many) + np.bincount(other, weight, many) + pull + 1e-6)
    matrix   = diags_array(diagonal) - coo_array(
        (np.concatenate([weight, weight]),
         (np.concatenate([one, other]), np.concatenate([other, one]))), shape=(many, many))
    free  = np.flatnonzero(~fixed)
    rows  = matrix.tocsr()[free]
    right = ((pull + 1e-6) * goal)[free] - rows[:, np.flatnonzero(fixed)] @ at[fixed]
    found, _ = cg(rows[:, free], right, x0=at[free], rtol=1e-5, maxiter=100,
                  M=diags_array(1 / diagonal[free]))
    at = at.copy()
    at[free] = found
    return at


def _apart(at, area, movable):
    """Positions in which no part of the chip has more logic than room: it is halved again and
    again, and what a half has too much of, nearest to the cut, goes to the other half."""
    at = at.copy()

    def halve(cells, low, high):
        if not len(cells):
            return
        if max(high - low) <= LEAF:
            at[:, cells] = np.clip(at[:, cells], low[:, None], high[:, None])
            return
        axis   = int(np.argmax(high - low))
        middle = (low[axis] + high[axis]) / 2
        where  = at[axis, cells]
        cells  = cells[np.argsort(where, kind="stable")]
        filled = np.cumsum(area[cells])
        room   = ROOM * np.prod(high - low) / 2
        wanted = area[cells][np.sort(where) < middle].sum()
        least, most = max(filled[-1] - room, 0), min(room, filled[-1])
        wanted = filled[-1] / 2 if least > most else min(max(wanted, least), most)
        cut    = int(np.searchsorted(filled, wanted + 1e-6, side="right"))
        first, second = cells[:cut], cells[cut:]
        at[axis, first]  = np.minimum(at[axis, first], middle - 0.01)
        at[axis, second] = np.maximum(at[axis, second], middle + 0.01)
        below, above = high.copy(), low.copy()
        below[axis] = above[axis] = middle
        halve(first, low, below)
        halve(second, above, high)

    halve(np.flatnonzero(movable), np.array([1.0, 1.0]), np.array([WIDTH, HEIGHT], float))
    return at


def _assigned(at, sites):
    """A site for each of some cells, so that they are least far in all; far ones count more."""
    places = np.array([site[:2] for site in sites], float).T
    far    = abs(at[:, :, None] - places[:, None, :]).sum(0)
    return linear_sum_assignment(far + 0.02 * far**2)[1]
