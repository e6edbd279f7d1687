"""Choose the network that keeps a relay's deadline, and prepare the others."""
