"""Train the papers' networks and write `engines/`: `python -m train --help` from a checkout.

Repo-only: nothing in `vsr/` imports this package, and this package imports nothing from
`vsr/`; they meet in the files of `engines/`. It needs torch (the `train` dependency group).
"""
