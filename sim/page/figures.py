"""Figures of the page: each carries the path of its value in report.json, so that a test, or a
reader, can hold one against the other."""

from markupsafe import Markup, escape

__all__ = ["Figures", "lookup", "written"]

BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
MANY  = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


def lookup(report, path):
    """The value at a path such as ``traffic.offchip.read`` or ``layers.3.macs``."""
    value = report
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def written(value, style):
    """A number as text.

    ``int``: all digits; ``bytes`` and ``many``: three or more digits with a unit; ``percent``;
    or the number of decimals.
    """
    if value is None:
        return "–"
    if style == "int":
        return f"{round(value):,}"
    if style in ("bytes", "many"):
        scale, unit = next(pair for pair in (BYTES if style == "bytes" else MANY)
                           if abs(value) >= pair[0] or pair[0] == 1)
        digits = 0 if scale == 1 else 2 if abs(value) < 100 * scale else 1
        return f"{value / scale:,.{digits}f}\u00a0{unit}".rstrip("\u00a0")
    if style == "percent":
        digits = 3 if 0.9995 <= value < 1 else 1        # nearly all is not all
        return f"{100 * value:.{digits}f}\u00a0%"
    return f"{value:,.{style}f}"


class Figures:
    """Makes the elements: ``fig(path, style)``, and ``share(path, of)`` for a part of another
    figure."""

    def __init__(self, report):
        self._report = report

    def fig(self, path, style="int", unit=""):
        value = lookup(self._report, path)
        exact = f"{value:,}" if isinstance(value, int) else value
        return self._element(path, value, written(value, style), style, unit,
                             title=f"{exact} {'bytes' if style == 'bytes' else ''}".strip()
                             if style in ("bytes", "many") else None)

    def share(self, path, of):
        value, whole = lookup(self._report, path), lookup(self._report, of)
        return self._element(path, value, written(value / whole if whole else None, "percent"),
                             "share", "", of=of)

    def _element(self, path, value, text, style, unit, *, of=None, title=None):
        if value is None:
            return Markup(f'<data class="fig" data-path="{escape(path)}" value="">{text}</data>')
        extra  = f' data-of="{escape(of)}"' if of else ""
        extra += f' title="{escape(title)}"' if title else ""
        after  = f'<span class="unit">\u00a0{escape(unit)}</span>' if unit else ""
        return Markup(f'<data class="fig" data-path="{escape(path)}" data-style="{style}"{extra} '
                      f'value="{escape(value)}">{text}</data>{after}')
