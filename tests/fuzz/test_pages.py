"""Tests that the report's HTML page is safe for all names and numbers from untrusted files."""

import string

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.test_readers import quick
from tests.report.test_ledger_html import HOSTILE, Page, facts_of, ledger_of
from vsr.report.html.page import render_page
from vsr.report.ledger import STAGES, Ledger, Row

_MARKUP = st.sampled_from([HOSTILE, "<b>", "&lt;", "{{ 7 * 7 }}", "{% x %}", "]]>", "<!--", "\0"])
_TEXT = st.text(max_size=30) | _MARKUP | st.text(string.printable, max_size=12)
_NUMBER = st.floats(-1e9, 1e9)
_USUAL = Page(render_page(facts_of(ledger_of(99)), ledger_of(99).columns()))
_TAGS = frozenset(tag for tag, _ in _USUAL.tags)


@quick
@given(
    st.lists(
        st.tuples(_NUMBER, st.lists(_NUMBER, min_size=6, max_size=6), _TEXT, _TEXT), max_size=9
    ),
    _TEXT, st.lists(_TEXT, max_size=3), st.integers(-(2**70), 2**70),
)  # fmt: skip
def test_a_page_of_any_values(
    rows: list[tuple[float, list[float], str, str]], name: str, notes: list[str], number: int
) -> None:
    ledger = Ledger()
    for index, (pts, ms, rung, event) in enumerate(rows):
        ledger.add(Row(index, pts, tuple(ms[: len(STAGES)]), rung, event))
    facts = facts_of(
        ledger, notes=notes, fps=float(number),
        input={"name": name, "codec": name, "size": [number, 48], "rate": name},
        output={"name": name, "model": name, "scale": 2, "bytes": number},
    )  # fmt: skip
    found = Page(render_page(facts, ledger.columns()))
    assert {tag for tag, _ in found.tags} <= _TAGS | {"p", "ul", "li"}
    assert not any(key.startswith("on") for _, attrs in found.tags for key in attrs)
