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
CHECKED_PICTURES: Final = 3
"""Number of pictures with visible content that are checked."""
_MIN_CONTRAST: Final = 2.0
"""Standard deviation of luma codes below which a picture counts as empty."""
_BLOCK: Final = 8
"""Side in LR pixels of the blocks whose means are compared."""
_MAX_MEAN_DIFF: Final = 24.0
"""Limit of the mean block difference, in codes: a network has 1 or 2, garbage 30 and more."""
_MAX_BLOCK_DIFF: Final = 64.0
"""Limit of one block's difference, in codes: a network has up to 5, NaN at one pixel 100+."""
_MAX_ROUGHNESS_GAIN: Final = 24.0
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
        self._candidate, *self._remaining = candidates
        self._scale, self._bits = scale, bits
        self._engine = self._candidate.make()
        self.rejected = 0
        """Number of candidates rejected so far."""
        self._checks_left = CHECKED_PICTURES
        self._in_flight = 0
        self._discarded = 0
        """Number of pictures that rejected engines still compute."""

    @property
    def name(self) -> str:
        """The name of the candidate in use."""
        return self._candidate.name

    @property
    def slots(self) -> int:
        """Number of slots as in `Engine.slots`, less one while pictures may need recomputing."""
        return max(1, self._engine.slots - (1 if self._discarded else 0))

    def submit(self, planes: Planes) -> Ticket:
        """See `vsr.inference.backend.Engine.submit`."""
        ticket = self._engine.submit(planes)
        if not self._checks_left:
            return ticket
        self._in_flight += 1
        y, u, v = (np.array(plane) for plane in planes)
        return _CheckedTicket(self, (y, u, v), ticket, self._engine)

    def count_collected(self, engine: Engine) -> None:
        """Count down the pictures in flight: of the engine in use, or of rejected ones."""
        if engine is self._engine:
            self._in_flight -= 1
        else:
            self._discarded -= 1

    def verify(self, lr: Planes, sr: Planes, engine: Engine) -> Planes:
        """Return `sr`, or the next candidate's result if `sr` is garbage. Raises BackendError."""
        if engine is not self._engine:  # rejected meanwhile, so its result is not trusted
            return self._recompute(lr)
        if not self._checks_left:
            return sr
        before, after = (_to_eight_bits(planes[0], self._bits) for planes in (lr, sr))
        if float(before.std()) < _MIN_CONTRAST:
            return sr
        fault = find_fault(before, after, self._scale)
        if fault is None:
            self._checks_left -= 1
            return sr
        self._use_next(fault)
        return self._recompute(lr)

    def _recompute(self, lr: Planes) -> Planes:
        return self.verify(lr, self._engine.submit(lr).result(), self._engine)

    def _use_next(self, fault: str) -> None:
        """Switch to the next candidate that can be created. Raises BackendError if none is left."""
        problem = f"output of {self._candidate.name} is invalid ({fault})"
        engine = None
        while engine is None:
            if not self._remaining:
                raise BackendError(f"{problem}; try another --model or --backend")
            self._candidate = self._remaining.pop(0)
            self.rejected += 1
            log.warning("%s: using %s", problem, self._candidate.name)
            try:
                engine = self._candidate.make()
            except BackendError as exc:
                problem = f"{self._candidate.name} failed ({exc})"
        self._engine = engine
        self._checks_left = CHECKED_PICTURES
        self._discarded += self._in_flight
        self._in_flight = 0


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
            self._owner.count_collected(self._engine)
        planes = self._owner.verify(self._lr, first, self._engine)
        self.finished = self._ticket.finished if planes is first else now()
        return planes


def _to_eight_bits(plane: Plane, bits: int) -> npt.NDArray[np.uint8]:
    """Reduce a plane's codes to 8 bits, the unit of the limits above."""
    return (plane >> (bits - 8)).astype(np.uint8) if bits > 8 else cast(_Codes, plane)


def find_fault(lr: _Codes, sr: _Codes, scale: int) -> str | None:
    """Return why `sr` cannot be the enlarged luma of `lr`, both in 8 bits; None if it can."""
    if sr.min() == sr.max():
        return f"every pixel is {sr.min()}"
    height, width = lr.shape
    block = min(_BLOCK, height, width)
    sr_means = _block_means(sr[: height * scale, : width * scale], block * scale)
    diff = np.abs(sr_means - _block_means(lr, block))
    if diff.mean() > _MAX_MEAN_DIFF:
        return f"it differs from the input by {diff.mean():.0f} of 255"
    if diff.max() > _MAX_BLOCK_DIFF:
        return f"an area differs from the input by {diff.max():.0f} of 255"
    roughness_gain = _roughness(sr) - _roughness(lr)
    if roughness_gain > _MAX_ROUGHNESS_GAIN:
        return f"noise of {roughness_gain:.0f} of 255"
    return None


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
