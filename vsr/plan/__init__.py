"""Says what this machine holds: measures decoder, networks and encoder, and chooses by that."""
