"""Boards: the chip with a clock, a memory and a host."""

BOARDS = ("ulx3s",)
