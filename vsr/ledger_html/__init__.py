"""The latency report that people read (`--report out.html`): `page` draws facts and `Columns`."""

from vsr.ledger_html.columns import Codes, Columns
from vsr.ledger_html.page import page

__all__ = ["Codes", "Columns", "page"]
