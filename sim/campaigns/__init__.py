"""Thousands of runs against the machine and its doors: what nobody would think of trying."""
