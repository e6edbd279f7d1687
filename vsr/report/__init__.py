"""Record what a run measured, and write it as JSON, CSV or HTML."""
