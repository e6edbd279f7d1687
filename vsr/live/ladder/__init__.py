"""Choose the network that meets a relay's deadline, and load and prepare the others."""
