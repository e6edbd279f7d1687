"""Cut the training patches of any step from prepared pictures; sample k is the same in every run.

A sample's position, rotation and scale depend only on the seed, the step and its index in the
batch. A resumed run and any number of processes or workers therefore get the same patches as an
uninterrupted single-process run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from train.data.images import Pixels, to_input
from train.data.pictures import Pictures
from train.errors import TrainError
from train.fit.recipe import Recipe


@dataclass(frozen=True)
class Patches(Dataset[tuple[Tensor, Tensor, int]]):
    """Map-style data set with sample k = step * batch + index in the batch.

    A sample is (LR [C, p, p], HR [C, s*p, s*p], scale), float 0..1.
    """

    pictures: Pictures
    recipe: Recipe
    colour: str
    scales: tuple[int, ...]
    """The network's scales."""

    def __post_init__(self) -> None:
        """Raise TrainError if network, recipe and pictures do not match."""
        requested = {scale for _, phase in self.recipe.scales for scale in phase}
        if extra := sorted(requested - set(self.scales)):
            raise TrainError(f"recipe '{self.recipe.name}' uses x{extra[0]}, the network does not")
        for scale in self.scales:
            p, pictures = self.recipe.lr_patch(scale), self.pictures.lr.get(scale, [])
            if min((side for picture in pictures for side in picture.shape[:2]), default=0) < p:
                raise TrainError(
                    f"the pictures do not suit x{scale} and patches of {p} LR pixels: "
                    "prepare them for this recipe and scale"
                )

    def scale_of(self, step: int) -> int:
        """Return the scale of a step's batch."""
        choice = self.recipe.scales_at(step, self.scales)
        return choice[int(np.random.default_rng((self.recipe.seed, step)).integers(len(choice)))]

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor, int]:
        recipe = self.recipe
        scale = self.scale_of(k // recipe.batch)
        rng = np.random.default_rng((recipe.seed, *divmod(k, recipe.batch)))
        index, y, x = (
            self._grid_position(k, scale) if recipe.grid else self._random_position(rng, scale)
        )
        p, low, high = recipe.lr_patch(scale), self.pictures.lr[scale], self.pictures.hr[scale]
        lr = low[index][y : y + p, x : x + p]
        hr = high[index][y * scale : (y + p) * scale, x * scale : (x + p) * scale]
        turns = int(rng.integers(4)) if recipe.turns == "all" else 2 * int(rng.integers(2))
        lr, hr = np.rot90(lr, turns), np.rot90(hr, turns)
        if rng.integers(2):
            lr, hr = lr[:, ::-1], hr[:, ::-1]
        return self._tensor(lr), self._tensor(hr), scale

    def epoch(self, scale: int) -> int:
        """Return the number of grid patches, or without a grid, of those covering all pictures."""
        if self.recipe.grid:
            return len(self._grid[scale])
        pixels = sum(picture.shape[0] * picture.shape[1] for picture in self.pictures.lr[scale])
        return max(1, pixels // self.recipe.lr_patch(scale) ** 2)

    def _random_position(self, rng: np.random.Generator, scale: int) -> tuple[int, int, int]:
        """Return a random (picture, y, x), with pictures sampled in proportion to their area."""
        pictures, p = self.pictures.lr[scale], self.recipe.lr_patch(scale)
        index = int(np.searchsorted(self._areas[scale], rng.random(), side="right"))
        height, width = pictures[index].shape[:2]
        return index, int(rng.integers(0, height - p + 1)), int(rng.integers(0, width - p + 1))

    def _grid_position(self, k: int, scale: int) -> tuple[int, int, int]:
        """Return (picture, y, x) on the grid: each place once per epoch, shuffled every epoch."""
        places = self._grid[scale]
        epoch, place = divmod(k, len(places))
        index, y, x = places[_order(self.recipe.seed, epoch, len(places))[place]]
        return int(index), int(y), int(x)

    @cached_property
    def _areas(self) -> dict[int, npt.NDArray[np.float64]]:
        found = {}
        for scale, pictures in self.pictures.lr.items():
            area = np.cumsum([p.shape[0] * p.shape[1] for p in pictures], dtype=np.float64)
            found[scale] = area / area[-1]
        return found

    @cached_property
    def _grid(self) -> dict[int, npt.NDArray[np.int64]]:
        found = {}
        for scale, pictures in self.pictures.lr.items():
            stride, p = max(1, self.recipe.grid // scale), self.recipe.lr_patch(scale)
            places = [
                (index, y, x)
                for index, picture in enumerate(pictures)
                for y in range(0, picture.shape[0] - p + 1, stride)
                for x in range(0, picture.shape[1] - p + 1, stride)
            ]
            found[scale] = np.array(places)
        return found

    def _tensor(self, picture: Pixels) -> Tensor:
        x = to_input(picture, self.colour)  # [H, W, C]
        return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, 0, epoch)).permutation(count)


@dataclass(frozen=True)
class Steps(Sampler[list[int]]):
    """Batch sampler: indices of the samples of steps `first`..`last` - 1 for process `rank`."""

    first: int
    last: int
    batch: int
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.last):
            yield list(range(step * self.batch + self.rank, (step + 1) * self.batch, self.world))
