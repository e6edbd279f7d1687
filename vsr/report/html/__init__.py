"""The latency report as an HTML page (`--report out.html`): see `page.page`."""
