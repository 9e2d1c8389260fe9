"""The decoder unit: gated skips and its own previous output in, the mask out."""
