"""The latency report that people read (`--report out.html`): `page` draws facts and `Columns`."""

from vsr.report.html.columns import Codes, Columns
from vsr.report.html.page import page

__all__ = ["Codes", "Columns", "page"]
