"""Identities of integers, for which no block is needed: z3 over the integers, without widths."""

import z3


class Integers:
    """Integers within ranges, and what must hold of all of them."""

    def __init__(self):
        self.ranges = []
        self.checks = []

    def integer(self, name, low=None, high=None):
        value = z3.Int(name)
        if low is not None:
            self.ranges += [value >= low, value <= high]
        return value

    def byte(self, name):
        return self.integer(name, 0, 255)

    def weight(self, name):
        return self.integer(name, -128, 127)

    def equal(self, left, right, text):
        """Both sides are the same polynomial."""
        self.checks.append((z3.simplify(left - right, som=True) == 0, text))

    def check(self, condition, text):
        self.checks.append((condition, text))

    def fits(self, value, bits, text, *, signed=True):
        """``value`` is a number of ``bits`` bits."""
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        self.check(z3.And(value >= low, value <= high), text)


    def text(self):
        """All of it, as text: the same identities have the same."""
        return "\n".join([*(f"{bound}" for bound in self.ranges),
                          *(f"{name}: {condition}" for condition, name in self.checks)])


def decide(sums, *, seconds):
    """``(holds, explanation)`` of what ``sums`` must be; ``holds`` is None if the time ran out."""
    for condition, text in sums.checks:
        solver = z3.Solver()
        solver.set("timeout", int(seconds * 1000))
        solver.add(*sums.ranges)
        if solver.check() != z3.sat:
            return None, "the ranges are empty"
        solver.add(z3.Not(condition))
        answer = solver.check()
        if answer == z3.unknown:
            return None, f"no answer to: {text}"
        if answer == z3.sat:
            return False, f"not so: {text}, for {solver.model()}"
    return True, ""

