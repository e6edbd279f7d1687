"""Checks the first pictures of an engine, and replaces an engine whose output is garbage.

Half precision overflows on some networks, and a driver can miscompile a kernel. Neither reports an
error: the output is NaN, shown as black or white, or noise. So block means of the enlarged luma are
compared with those of the input, and the luma must not be much rougher than the input.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from vsr.errors import BackendError
from vsr.inference.backend import Engine, Ticket
from vsr.media.frame import Plane, Planes, now

log = logging.getLogger(__name__)

_Codes = npt.NDArray[np.uint8]
PICTURES: Final = 3
"""Number of pictures with visible content that are checked."""
_CONTRAST: Final = 2.0
"""Standard deviation of luma codes below which a picture counts as empty."""
_BLOCK: Final = 8
"""Side in LR pixels of the blocks whose means are compared."""
_MOST: Final = 24.0
"""Limit of the mean block difference, in codes: a network has 1 or 2, garbage 30 and more."""
_MOST_IN_A_BLOCK: Final = 64.0
"""Limit of one block's difference, in codes: a network has up to 5, NaN at one pixel 100+."""
_MOST_ROUGHER: Final = 24.0
"""Limit of the increase in roughness, the mean difference of neighbours, in codes: a network lowers
it, noise that averages to the input's grey raises it by 50 and more."""


@dataclass(frozen=True)
class Candidate:
    """One of several engines that compute the same network."""

    name: str
    """Name for messages, such as `carn-m on tensorrt in fp16`."""
    make: Callable[[], Engine]


class CheckedEngine:
    """An `Engine` that uses the first of several candidates whose output passes the check."""

    def __init__(self, candidates: Sequence[Candidate], scale: int, bits: int = 8) -> None:
        self._used, *self._remaining = candidates
        self._scale, self._bits = scale, bits
        self._engine = self._used.make()
        self.rejected = 0
        """Number of candidates rejected so far."""
        self._left = PICTURES
        self._under_way = 0
        self._discarded = 0
        """Number of pictures that rejected engines still compute."""

    @property
    def name(self) -> str:
        """The name of the candidate in use."""
        return self._used.name

    @property
    def slots(self) -> int:
        """Number of slots as in `Engine.slots`, less one while pictures may need recomputing."""
        return max(1, self._engine.slots - (1 if self._discarded else 0))

    def submit(self, planes: Planes) -> Ticket:
        """See `vsr.inference.backend.Engine.submit`."""
        ticket = self._engine.submit(planes)
        if not self._left:
            return ticket
        self._under_way += 1
        y, u, v = (np.array(plane) for plane in planes)
        return _CheckedTicket(self, (y, u, v), ticket, self._engine)

    def collected(self, made_by: Engine) -> None:
        """Count down the pictures in flight: of the engine in use, or of rejected ones."""
        if made_by is self._engine:
            self._under_way -= 1
        else:
            self._discarded -= 1

    def verified(self, lr: Planes, sr: Planes, made_by: Engine) -> Planes:
        """Return `sr`, or the next candidate's result if `sr` is garbage. Raises BackendError."""
        if made_by is not self._engine:  # rejected meanwhile, so its result is not trusted
            return self._recompute(lr)
        if not self._left:
            return sr
        before, after = (_eight_bits(planes[0], self._bits) for planes in (lr, sr))
        if float(before.std()) < _CONTRAST:
            return sr
        wrong = fault_of(before, after, self._scale)
        if wrong is None:
            self._left -= 1
            return sr
        self._use_next(wrong)
        return self._recompute(lr)

    def _recompute(self, lr: Planes) -> Planes:
        return self.verified(lr, self._engine.submit(lr).result(), self._engine)

    def _use_next(self, wrong: str) -> None:
        """Switch to the next candidate that can be created. Raises BackendError if none is left."""
        engine = None
        while engine is None:
            if not self._remaining:
                raise BackendError(
                    f"{self._used.name} yields no picture: {wrong}; "
                    "try another --model or --backend"
                )
            before, self._used = self._used, self._remaining.pop(0)
            self.rejected += 1
            log.warning("%s yields no picture (%s): using %s", before.name, wrong, self._used.name)
            try:
                engine = self._used.make()
            except BackendError as exc:
                wrong = str(exc)
        self._engine = engine
        self._left = PICTURES
        self._discarded += self._under_way
        self._under_way = 0


class _CheckedTicket:
    """See `vsr.inference.backend.Ticket`."""

    def __init__(self, owner: CheckedEngine, lr: Planes, ticket: Ticket, engine: Engine) -> None:
        self._owner, self._lr, self._ticket, self._engine = owner, lr, ticket, engine
        self.started = ticket.started
        self.finished = 0.0

    def result(self) -> Planes:
        """See `vsr.inference.backend.Ticket.result`."""
        try:
            first = self._ticket.result()
        finally:
            self._owner.collected(self._engine)
        planes = self._owner.verified(self._lr, first, self._engine)
        self.finished = self._ticket.finished if planes is first else now()
        return planes


def _eight_bits(plane: Plane, bits: int) -> npt.NDArray[np.uint8]:
    """Reduce a plane's codes to 8 bits, the unit of the limits above."""
    return (plane >> (bits - 8)).astype(np.uint8) if bits > 8 else cast(_Codes, plane)


def fault_of(lr: _Codes, sr: _Codes, scale: int) -> str | None:
    """Return why `sr` cannot be the enlarged luma of `lr`, both in 8 bits; None if it can."""
    if sr.min() == sr.max():
        return f"every pixel is {sr.min()}"
    height, width = lr.shape
    block = min(_BLOCK, height, width)
    large = _block_means(sr[: height * scale, : width * scale], block * scale)
    off = np.abs(large - _block_means(lr, block))
    if off.mean() > _MOST:
        return f"it differs by {off.mean():.0f} of 255 from its input"
    if off.max() > _MOST_IN_A_BLOCK:
        return f"a part of it differs by {off.max():.0f} of 255 from its input"
    rougher = _roughness(sr) - _roughness(lr)
    return f"it is noise, {rougher:.0f} of 255 strong" if rougher > _MOST_ROUGHER else None


def _roughness(plane: _Codes) -> float:
    """Return the mean absolute difference of horizontal neighbours."""
    if plane.shape[1] < 2:
        return 0.0
    return float(np.abs(np.diff(plane.astype(np.int16), axis=1)).mean())


def _block_means(plane: _Codes, block: int) -> npt.NDArray[np.float32]:
    """Return the means of whole blocks, which denoising and sharpening hardly change."""
    rows, columns = plane.shape[0] // block, plane.shape[1] // block
    whole = plane[: rows * block, : columns * block]
    return whole.reshape(rows, block, columns, block).mean((1, 3), dtype=np.float32)
