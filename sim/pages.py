"""Pages of several runs: self-contained HTML in the style of a run's own page."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["render"]

HERE  = Path(__file__).parent
STYLE = HERE / "page" / "page.css"


def render(template, **values):
    """A template of ``templates/`` as text; nothing in it is fetched from elsewhere."""
    environment = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True,
                              trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return environment.get_template(template).render(style=Markup(STYLE.read_text()), **values)
