"""Looks at an engine's first pictures, and takes another engine where they are not pictures.

Half precision overflows on some networks, a driver can miscompile a kernel, and neither says so:
the result is NaN, which becomes black or white, or noise. The enlarged luma, averaged over blocks,
must resemble the input, and must not be rougher.
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
"""Pictures with something in them that are looked at."""
_CONTRAST: Final = 2.0
"""Standard deviation of luma codes under which a picture shows nothing."""
_BLOCK: Final = 8
"""LR pixels over which both pictures are averaged before they are compared."""
_MOST: Final = 24.0
"""Mean difference in codes: a network changes one or two, garbage 30 and more."""
_MOST_IN_A_BLOCK: Final = 64.0
"""Difference of one block: a network changes up to five, NaN around one pixel 100 and more."""
_MOST_ROUGHER: Final = 24.0
"""Codes by which neighbours differ more than in the input: a network makes that less, noise
which averages to the input's grey 50 and more."""


@dataclass(frozen=True)
class Way:
    """One way to compute the same."""

    name: str
    """In words, such as `tensorrt in fp16`."""
    make: Callable[[], Engine]


class CheckedEngine:
    """See `vsr.inference.backend.Engine`; the first of several ways whose pictures are right."""

    def __init__(self, ways: Sequence[Way], scale: int, bits: int = 8) -> None:
        self._way, *self._others = ways
        self._scale, self._bits = scale, bits
        self._engine = self._way.make()
        self.given_up = 0
        """Ways that were found out not to do."""
        self._left = PICTURES
        self._under_way = 0
        self._to_redo = 0
        """Pictures that an engine given up still works on."""

    @property
    def way(self) -> str:
        """The name of the way in use."""
        return self._way.name

    @property
    def slots(self) -> int:
        """As `Engine.slots`; one is kept free while frames may have to be done again."""
        return max(1, self._engine.slots - (1 if self._to_redo else 0))

    def submit(self, planes: Planes) -> Ticket:
        """See `vsr.inference.backend.Engine.submit`."""
        ticket = self._engine.submit(planes)
        if not self._left:
            return ticket
        self._under_way += 1
        y, u, v = (np.array(plane) for plane in planes)
        return _CheckedTicket(self, (y, u, v), ticket, self._engine)

    def collected(self, made_by: Engine) -> None:
        """Note that a picture has left its engine, which is that of now or one given up."""
        if made_by is self._engine:
            self._under_way -= 1
        else:
            self._to_redo -= 1

    def judge(self, lr: Planes, sr: Planes, made_by: Engine) -> Planes:
        """The result, or that of the next way when it is wrong. Raises BackendError at the last."""
        if made_by is not self._engine:  # given up since, and so is what it was still working on
            return self._again(lr)
        if not self._left:
            return sr
        before, after = (_eight_bits(planes[0], self._bits) for planes in (lr, sr))
        if float(before.std()) < _CONTRAST:
            return sr
        wrong = what_is_wrong(before, after, self._scale)
        if wrong is None:
            self._left -= 1
            return sr
        self._take_next(wrong)
        return self._again(lr)

    def _again(self, lr: Planes) -> Planes:
        return self.judge(lr, self._engine.submit(lr).result(), self._engine)

    def _take_next(self, wrong: str) -> None:
        """The next way that can be made. Raises BackendError when there is none."""
        engine = None
        while engine is None:
            if not self._others:
                raise BackendError(
                    f"{self._way.name} yields no picture: {wrong}; try another --model or --backend"
                )
            before, self._way = self._way, self._others.pop(0)
            self.given_up += 1
            log.warning("%s yields no picture (%s): using %s", before.name, wrong, self._way.name)
            try:
                engine = self._way.make()
            except BackendError as exc:
                wrong = str(exc)
        self._engine = engine
        self._left = PICTURES
        self._to_redo += self._under_way
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
        planes = self._owner.judge(self._lr, first, self._engine)
        self.finished = self._ticket.finished if planes is first else now()
        return planes


def _eight_bits(plane: Plane, bits: int) -> npt.NDArray[np.uint8]:
    """A plane's codes in 8 bits, as the limits above are."""
    return (plane >> (bits - 8)).astype(np.uint8) if bits > 8 else cast(_Codes, plane)


def what_is_wrong(lr: _Codes, sr: _Codes, scale: int) -> str | None:
    """Why an enlarged luma plane cannot be that of `lr`, both in 8 bits; None when it can."""
    if sr.min() == sr.max():
        return f"every pixel is {sr.min()}"
    height, width = lr.shape
    block = min(_BLOCK, height, width)
    large = _averaged(sr[: height * scale, : width * scale], block * scale)
    off = np.abs(large - _averaged(lr, block))
    if off.mean() > _MOST:
        return f"it differs by {off.mean():.0f} of 255 from its input"
    if off.max() > _MOST_IN_A_BLOCK:
        return f"a part of it differs by {off.max():.0f} of 255 from its input"
    rougher = _roughness(sr) - _roughness(lr)
    return f"it is noise, {rougher:.0f} of 255 strong" if rougher > _MOST_ROUGHER else None


def _roughness(plane: _Codes) -> float:
    """Mean difference of neighbours in a row."""
    if plane.shape[1] < 2:
        return 0.0
    return float(np.abs(np.diff(plane.astype(np.int16), axis=1)).mean())


def _averaged(plane: _Codes, block: int) -> npt.NDArray[np.float32]:
    """Means of whole blocks: what denoising and sharpening leave alone."""
    rows, columns = plane.shape[0] // block, plane.shape[1] // block
    whole = plane[: rows * block, : columns * block]
    return whole.reshape(rows, block, columns, block).mean((1, 3), dtype=np.float32)
