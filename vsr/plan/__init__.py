"""Forecasts speed on this machine: measures decoder, networks and encoder; chooses a network."""
