"""The latency report that people read, as a page (`--report out.html`): see `page.page`."""
