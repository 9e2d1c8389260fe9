"""A space of machines: which of them are the best, to the cycle."""
