"""report.html: what one run measured, as a page that opens anywhere, without a network."""

from sim.page.build import render, write_page

__all__ = ["render", "write_page"]
