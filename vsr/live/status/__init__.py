"""Show the state of a relay over HTTP."""
