"""Boards: the chip with a clock, a memory and a host."""
