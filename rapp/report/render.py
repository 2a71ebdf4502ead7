"""Fills the page templates of `rapp/templates`, and others that build on them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from rapp.report.svg import COLOURS, STYLE

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """One page as a whole, which needs no other file and no network; texts are escaped, `Markup` is not."""
    return _environment().get_template(template).render(colours=COLOURS, plot_style=STYLE, **values)


def render_source(source: str, **values: Any) -> str:
    """As `render`, from the text of a template, which may extend and include those of the package."""
    return _environment().from_string(source).render(colours=COLOURS, plot_style=STYLE, **values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("rapp", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
