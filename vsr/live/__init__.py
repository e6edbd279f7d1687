"""A live stream in, a better stream out: what `vsr relay` is made of.

ingest.py -> relay.py (ladder.py, rungs.py, clock.py) -> push.py -> pusher.py, one process each
"""
