"""Renders the HTML pages from Jinja2 templates: every value is printable and escaped.

Names and URLs on a page are untrusted input. Autoescape is on for all templates, and unprintable
characters are replaced first (`printable`); only `Markup`, which templates and `static` create, is
inserted unchanged. Templates, style sheet and scripts are package data, in the folder `templates`
of the package that uses them; `vsr.report.html` has the ones that all pages share.
"""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vsr.report.html.text import count, duration, printable, share, size, span

_SHARED: Final = "vsr.report.html"


@dataclass(frozen=True)
class Tile:
    """A key figure at the top of a page; see templates/tiles.html."""

    name: str
    text: str
    bad: bool = False
    wide: bool = False


def render(package: str, template: str, **values: Any) -> str:
    """Render a template of `package` with `values`; Markup in them is inserted unchanged."""
    return _environment(package).get_template(template).render(values)


@cache
def static(package: str, name: str) -> Markup:
    """Return a style sheet or script of `package`, for a template to insert unchanged."""
    return Markup(files(package).joinpath("templates", name).read_text(encoding="utf-8"))


def csp_hash(script: str) -> str:
    """Return the hash source of a script for a Content-Security-Policy (CSP level 2, 4.2.5)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def _environment(package: str) -> Environment:
    found = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, _SHARED))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    found.filters |= {f.__name__: f for f in (count, duration, share, size, span)}
    found.globals["style"] = static(_SHARED, "style.css")
    return found
