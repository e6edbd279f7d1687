"""Train a network: recipe, loop, losses, checkpoints."""
