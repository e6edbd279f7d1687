"""Make random generators that depend on the patch, not on the process that has it."""

import numpy as np


def patch_rngs(
    seed: int, step: int, count: int, rank: int = 0, world: int = 1
) -> list[np.random.Generator]:
    """Return a generator for each of the `count` patches of process `rank` of `world` in a step.

    It is seeded by seed, step and the patch's index in the whole batch alone, so that any number of
    processes, resumed or not, get the same numbers. They are independent of those of `Patches`.
    """
    places = range(rank, rank + count * world, world)
    return [np.random.default_rng((seed, step, place, 1)) for place in places]
