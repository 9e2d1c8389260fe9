"""What an injection campaign found: shares with intervals, per class of state and for the chip.

Intervals are those of Wilson (JASA 22, 1927, p. 209), 95 %: right near 0 and 1 and for few upsets,
where the usual ones are not (Brown, Cai, DasGupta, Statistical Science 16, 2001, p. 101). A figure
for many classes is their mean, weighted by bits: an upset hits each bit of the chip alike.
"""

from collections import Counter
from math import sqrt

from matplotlib.figure import Figure

__all__ = ["OUTCOMES", "SILENT", "print_table", "summarise", "wilson", "write_picture"]

Z = 1.959964        # 97.5 % of a normal distribution lie below

OUTCOMES = {
    "masked":    "every output right",
    "corrected": "every output right, and an error corrected",
    "mask":      "wrong mask, without a word",
    "other":     "another output wrong, without a word",
    "detected":  "stopped by a memory's error that could not be corrected",
    "error":     "stopped by another error",
    "watchdog":  "stopped by a limit on cycles",
    "hang":      "no interrupt, or no answer on the bus",
}
SILENT = ("mask", "other")


def wilson(found, n):
    """Bounds of a share of which ``n`` trials found ``found``: 95 %, after Wilson."""
    if n == 0:
        return 0.0, 1.0
    share  = found / n
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half   = Z * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def weighted(parts):
    """Share and bounds of a whole, of which ``parts`` are ``(weight, found, n)``.

    The bounds add up the variances of the parts, each with two more of either kind than were found
    (Agresti, Coull, The American Statistician 52, 1998, p. 119).
    """
    total = sum(weight for weight, _, n in parts if n)
    share = sum(weight / total * found / n for weight, found, n in parts if n)
    half  = Z * sqrt(sum((weight / total) ** 2 * (p := (found + 2) / (n + 4)) * (1 - p) / (n + 4)
                         for weight, found, n in parts if n))
    return share, (max(0.0, share - half), min(1.0, share + half))


def summarise(upsets, targets):
    """``classes``, and ``totals`` of registers, memories and both, by name: each with its bits,
    upsets, and for every outcome and for ``silent`` a share and its bounds."""
    bits, memory = Counter(), {}
    for target in targets:
        if target.kind:
            bits[target.kind] += target.bits
            memory[target.kind] = target.memory
    counts, lost = {kind: Counter() for kind in bits}, {kind: [] for kind in bits}
    for upset in upsets:
        counts[upset.kind][upset.outcome] += 1
        if upset.outcome == "mask":
            lost[upset.kind].append(1 - upset.dice)

    def found(kind, outcomes):
        return sum(counts[kind][outcome] for outcome in outcomes)

    groups  = {**{outcome: (outcome,) for outcome in OUTCOMES}, "silent": SILENT}
    classes = {}
    for kind in sorted(bits, key=lambda kind: (memory[kind], kind)):
        n = counts[kind].total()
        classes[kind] = {
            "memory": memory[kind], "bits": bits[kind], "upsets": n,
            "counts": {name: found(kind, group) for name, group in groups.items()},
            "shares": {name: found(kind, group) / n if n else None
                       for name, group in groups.items()},
            "bounds": {name: wilson(found(kind, group), n) for name, group in groups.items()},
            "dice_lost_mean": sum(lost[kind]) / len(lost[kind]) if lost[kind] else None,
            "dice_lost_most": max(lost[kind], default=None)}
    totals = {}
    for name, chosen in (("registers", [k for k in bits if not memory[k]]),
                         ("memories", [k for k in bits if memory[k]]), ("chip", list(bits))):
        n = sum(counts[kind].total() for kind in chosen)
        if not n:
            continue
        results = {group: weighted([(bits[kind], found(kind, outcomes), counts[kind].total())
                                    for kind in chosen]) for group, outcomes in groups.items()}
        losses  = [x for kind in chosen for x in lost[kind]]
        totals[name] = {
            "bits": sum(bits[kind] for kind in chosen), "upsets": n,
            "counts": {group: sum(found(kind, outcomes) for kind in chosen)
                       for group, outcomes in groups.items()},
            "shares": {group: share for group, (share, _) in results.items()},
            "bounds": {group: bounds for group, (_, bounds) in results.items()},
            "dice_lost_mean": sum(losses) / len(losses) if losses else None,
            "dice_lost_most": max(losses, default=None)}
    return {"classes": classes, "totals": totals}


def print_table(summary):
    """The shares in per cent, in 80 columns."""
    print(f"{'% of the upsets':<20}{'n':>6}{'right':>7}{'wrong, 95 %':>18}{'-Dice':>6}"
          f"{'limit':>6}{'error':>6}{'hang':>5}{'det.':>5}")

    def line(name, part):
        if not part["upsets"]:
            return
        share = {key: 100 * value for key, value in part["shares"].items()}
        low, high = (100 * bound for bound in part["bounds"]["silent"])
        loss = part["dice_lost_mean"]
        right = share["masked"] + share["corrected"]
        print(f"{name:<20}{part['upsets']:>6}{right:>7.1f}{share['silent']:>7.2f} "
              f"{f'{low:.2f}-{high:.2f}':>10}{'' if loss is None else f'{loss:.2f}':>6}"
              f"{share['watchdog']:>6.1f}{share['error']:>6.1f}{share['hang']:>5.1f}"
              f"{share['detected']:>5.0f}")

    for memory, total in ((False, "registers"), (True, "memories")):
        for name, part in summary["classes"].items():
            if part["memory"] == memory:
                line(name, part)
        if total in summary["totals"]:
            line(f"all {total}", summary["totals"][total])
    line("the chip, by bits", summary["totals"]["chip"])


COLOURS = {"masked": "#d9dde3", "corrected": "#7fb3d5", "detected": "#2e6da4", "error": "#f2c14e",
           "watchdog": "#e8963e", "hang": "#7d5ba6", "other": "#e58a8a", "mask": "#c0392b"}


def write_picture(path, summary):
    """A bar for each class of state, divided by outcome."""
    rows   = [(name, part) for name, part in reversed(summary["classes"].items())
              if part["upsets"]]
    figure = Figure(figsize=(9, 1.4 + 0.26 * len(rows)), layout="constrained")
    axes   = figure.add_subplot()
    left   = [0.0] * len(rows)
    for outcome, colour in COLOURS.items():
        widths = [100 * part["shares"][outcome] for _, part in rows]
        if any(widths):
            axes.barh([name for name, _ in rows], widths, left=left, color=colour,
                      label=OUTCOMES[outcome])
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of upsets")
    axes.margins(y=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
