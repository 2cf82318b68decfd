"""The report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, Template
from markupsafe import Markup

from corral.compare.report.chapters.whole import document
from corral.compare.report.document import SIGNS
from corral.compare.results import Comparison

_SAID = {"good": "good", "bad": "bad", "warn": "mind this", "missing": "missing"}  # read out in place of the signs


def html_page(comparison: Comparison) -> str:
    """Every text of the comparison is escaped; plots are escaped where they are drawn."""
    # The style and the plots are this package's own markup.
    return _template().render(
        document=document(comparison),
        signs=SIGNS,
        said=_SAID,
        style=Markup(_read("style.css")),  # noqa: S704
        markup=Markup,
    )


@cache
def _template() -> Template:
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_read("page.html"))


def _read(name: str) -> str:
    return (files("corral.compare.report") / name).read_text("utf-8")
