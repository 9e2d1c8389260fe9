"""A machine small enough to look at every run of its blocks."""

from dataclasses import replace

from hw.config import TINY

SMALL = replace(TINY, name="small", onchip_bytes=512, offchip_bytes=8192)
"""64 words on chip, 1024 off chip, of 8 bytes."""
