"""Random draws of a training step that belong to a patch, whichever process has it."""

import numpy as np


def draws(
    seed: int, step: int, count: int, rank: int = 0, world: int = 1
) -> list[np.random.Generator]:
    """A generator for each of the `count` patches that process `rank` of `world` has in a step.

    Its draws depend on seed, step and the patch's place in the whole batch alone, so that one
    process and several, resumed or not, draw the same; those of `Patches` are others.
    """
    places = range(rank, rank + count * world, world)
    return [np.random.default_rng((seed, step, place, 1)) for place in places]
