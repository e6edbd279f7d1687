"""The networks of a ladder, loaded and warm, and what becomes of one that fails."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from vsr import models
from vsr.backends import Backend, load_backend
from vsr.colour import Colour
from vsr.errors import BackendError, InterruptedRunError, UsageError
from vsr.frame import Frame, Planes, now
from vsr.graph import PlaneFormat
from vsr.upscaler import Upscaler

log = logging.getLogger(__name__)

_WARM_UPS: Final = 4
"""Pictures at least before a rung is timed: kernels are chosen and memory is touched in them."""
_TIMED_S: Final = 0.4
"""Seconds over which the quickest is looked for: other work comes and goes."""
_FAILURES: Final = 3
"""Failures of one rung after which it is not loaded again."""
_FORGIVEN: Final = 1000
"""Good pictures in a row after which failures of before count no more."""
FALLBACK: Final = "fallback"
"""The event of a picture that bicubic enlarged because its rung could not."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What every rung has in common: the picture that goes in, and its colour."""

    size: tuple[int, int]
    colour: Colour


@dataclass
class _Rung:
    model: models.Model
    upscaler: Upscaler | None = None
    """None: it is being loaded again, or is lost."""
    cost: float = 0.0
    """Seconds a picture took when it was warm."""
    failures: int = 0
    good: int = 0
    """Pictures since the last failure."""
    lost: bool = False


class Rungs:
    """The engines of a ladder, best first, bicubic last. For one thread."""

    def __init__(
        self,
        found: Sequence[models.Model],
        backend: Backend,
        stage: Stage,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Load and warm what `find_models` found. Raises BackendError for one that cannot be.

        Raises InterruptedRunError when `stopped` says so in between.
        """
        self._backend, self._stage, self._stopped = backend, stage, stopped
        self._rungs = [self._load(model) for model in found]
        self.scale = found[0].scale
        self.out_size = PlaneFormat().output(*stage.size, self.scale)

    @property
    def names(self) -> list[str]:
        """Best first."""
        return [rung.model.name for rung in self._rungs]

    @property
    def costs(self) -> list[float]:
        """Seconds a picture, measured when they were loaded."""
        return [rung.cost for rung in self._rungs]

    def is_lost(self, rung: int) -> bool:
        """Whether it failed for good."""
        return self._rungs[rung].lost

    def enlarge(self, frame: Frame, rung: int) -> Frame:
        """The frame by that rung; by bicubic, with the event `FALLBACK`, where that fails.

        A failing engine is loaded again, on another thread, but not for ever. Raises BackendError
        when bicubic fails on the CPU too.
        """
        at, lightest = self._rungs[rung], self._rungs[-1]
        if at is not lightest and at.upscaler is not None:
            try:
                done = _enlarged(frame, at.upscaler)
            except Exception as exc:  # whatever a driver does, the next picture must go out
                self._failed(at, exc)
            else:
                at.good += 1
                at.failures = at.failures if at.good < _FORGIVEN else 0
                return done
        frame.stamps.infer_start = 0.0
        if at is not lightest:
            frame.event = frame.event or FALLBACK
        assert lightest.upscaler is not None
        try:
            return _enlarged(frame, lightest.upscaler)
        except Exception as exc:
            lightest.upscaler = self._last_resort(exc)
            return _enlarged(frame, lightest.upscaler)

    def _last_resort(self, exc: Exception) -> Upscaler:
        """Bicubic on the CPU, for a GPU that is gone."""
        lightest = self._rungs[-1]
        lightest.failures += 1
        if lightest.failures > 1 or self._backend.name == "openvino":
            raise BackendError(f"bicubic failed too: {exc}") from exc
        log.error("bicubic failed and is computed by OpenVINO from now on: %s", exc)
        model = models.in_fp32(lightest.model) or lightest.model
        cpu = load_backend("openvino", live=True)
        return Upscaler(model, cpu, self._stage.colour, self._stage.size)

    def _failed(self, rung: _Rung, exc: Exception) -> None:
        name = rung.model.name
        rung.upscaler, rung.good = None, 0
        rung.failures += 1
        if rung.failures >= _FAILURES:
            rung.lost = True
            log.error("%s failed %d times and is given up: %s", name, rung.failures, exc)
            return
        log.warning("%s failed and is loaded again; bicubic stands in: %s", name, exc)
        threading.Thread(target=self._reload, args=(rung,), name="reload", daemon=True).start()

    def _reload(self, rung: _Rung) -> None:
        try:
            upscaler = self._new_upscaler(rung.model)
            _enlarged(self._grey(), upscaler)
            rung.upscaler = upscaler
        except Exception as exc:
            rung.lost = True
            log.error("%s cannot be loaded again and is given up: %s", rung.model.name, exc)

    def _load(self, model: models.Model) -> _Rung:
        if self._stopped():
            raise InterruptedRunError("stopped while the networks were loaded")
        upscaler = self._new_upscaler(model)
        times: list[float] = []
        while len(times) < _WARM_UPS or sum(times) < _TIMED_S:
            began = now()
            _enlarged(self._grey(), upscaler)
            times.append(now() - began)
        log.debug("%s: %.1f ms a picture", model.name, 1000 * min(times))
        return _Rung(model, upscaler, min(times))

    def _new_upscaler(self, model: models.Model) -> Upscaler:
        return Upscaler(model, self._backend, self._stage.colour, self._stage.size)

    def _grey(self) -> Frame:
        return Frame(
            planes=grey(*self._stage.size), index=0, pts=0, time_base=Fraction(1), duration=0
        )


def _enlarged(frame: Frame, upscaler: Upscaler) -> Frame:
    return next(iter(upscaler.process([frame])))


def grey(width: int, height: int) -> Planes:
    """A picture of one colour."""
    chroma = PlaneFormat().chroma(width, height)[::-1]
    return (
        np.full((height, width), 128, np.uint8),
        np.full(chroma, 128, np.uint8),
        np.full(chroma, 128, np.uint8),
    )


def find_models(
    names: Sequence[str], scale: int | None, backend: Backend, precision: str
) -> list[models.Model]:
    """The models of a ladder's rungs, and bicubic behind them.

    Without a scale, the first model's least decides for all. Raises UsageError or ModelError.
    """
    found: list[models.Model] = []
    for name in dict.fromkeys([*names, models.BICUBIC]):
        wanted = "fp32" if name == models.BICUBIC and precision == "int8" else precision
        found.append(models.find(name, scale, backend, wanted))
        scale = found[0].scale
    return found


def default_ladder(model: str, scale: int | None) -> list[str]:
    """The model asked for, then every lighter built-in one of its scale, by MultAdds.

    Weights for compressed video stand in for those for clean pictures where both are there.
    """
    entries = models.manifest()
    if model not in entries:
        return [model]
    wanted = f"x{scale or min(models.scales(model))}"
    own = entries[model].get(wanted)
    if own is None:
        raise UsageError(f"model '{model}' has no scale {wanted.removeprefix('x')}")
    lighter = {
        name: entry[wanted]["multadds_720p"]
        for name, entry in entries.items()
        if wanted in entry and entry[wanted]["multadds_720p"] < own["multadds_720p"]
        if f"{name}-stream" not in entries or wanted not in entries[f"{name}-stream"]
    }
    return [model, *sorted(lighter, key=lighter.__getitem__, reverse=True)]
