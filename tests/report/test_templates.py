"""Templates: hostile values are escaped, and jinja2 is imported only to render a page."""

import subprocess
import sys
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from vsr.report.html.templates import _environment, csp_hash, render, static

ROOT = Path(__file__).parents[2]
PACKAGE = "vsr.report.html"
TEXT = "a\x00b<\"'&\u202e"


def test_every_value_is_printable_and_escaped_but_for_markup() -> None:
    chart = {
        "curves": [], "lanes": [{"kind": TEXT, "name": TEXT, "label": Markup("<b>"), "path": "M0"}],
        "slot_size": None, "width": 1,
    }  # fmt: skip
    template = '{% from "charts.html" import timeline_chart %}{{ timeline_chart(chart) }}'
    text = _environment(PACKAGE).from_string(template).render(chart=chart)
    safe = "a\ufffdb&lt;&#34;&#39;&amp;\ufffd"
    assert f'<div class="lane {safe}">' in text
    assert f"<bdi>{safe}</bdi></span><b><b></b>" in text


def test_a_value_that_a_template_lacks_is_no_empty_text() -> None:
    with pytest.raises(UndefinedError, match="policy"):
        render(PACKAGE, "report.html")


def test_the_digest_is_that_of_the_standard() -> None:
    """The expected value is the example on MDN's page on the CSP source `hash`."""
    assert csp_hash("doSomething();") == "'sha256-RFWPLDbv2BY+rCkDzsE+0fr8ylGr2R2faWMhq4lfEQc='"


def test_style_sheet_and_scripts_hold_nothing_that_ends_their_element() -> None:
    files = [(PACKAGE, "style.css"), (PACKAGE, "report.js"), ("vsr.live.status", "status.js")]
    for package, name in files:
        text = static(package, name)
        assert len(text) > 500
        assert "</" not in text
        assert "<!--" not in text


def test_jinja2_is_loaded_only_for_a_page() -> None:
    code = (
        "import sys, vsr, vsr.report.report, vsr.report.rolling; assert 'jinja2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
