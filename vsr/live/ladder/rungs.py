"""Loads and runs the networks of a ladder, and replaces those that fail."""

import logging
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from vsr.errors import BackendError, InterruptedRunError
from vsr.inference import models
from vsr.inference.backend import Backend, load_backend
from vsr.inference.upscaler import Upscaler, is_built
from vsr.live.ladder.best import Best
from vsr.live.ladder.engine_queue import EngineQueue
from vsr.live.ladder.prepare import Preparation
from vsr.live.ladder.warm_up import STOPPED, enlarged, timed, trial
from vsr.live.settings import RelaySettings
from vsr.media.colour import Colour
from vsr.media.frame import Frame
from vsr.media.plane_format import YUV420, PlaneFormat

log = logging.getLogger(__name__)

_LOADERS: Final = 2
"""Number of engines that OpenVINO compiles in parallel: each mostly uses one processor."""
_FAILURES: Final = 3
"""Number of failures of one rung after which it is not loaded again."""
_FORGIVEN: Final = 1000
"""Number of successive good frames after which earlier failures no longer count."""
FALLBACK: Final = "fallback"
"""Event of a frame that bicubic upscaled because its rung failed."""


@dataclass
class _Rung:
    model: models.Model
    backend: Backend
    """Current backend: OpenVINO while the engine is being built."""
    upscaler: Upscaler | None = None
    """None: not loaded yet, being loaded again, or lost."""
    cost: float = math.inf
    """Seconds per frame after warm-up; infinite until measured."""
    failures: int = 0
    good: int = 0
    """Number of frames since the last failure."""
    lost: bool = False


class Rungs:
    """Engines of a ladder, best first, bicubic last. Thread-safe: relays may share them."""

    def __init__(
        self,
        found: Sequence[models.Model],
        backend: Backend,
        size: tuple[int, int],
        colour: Colour,
        stopped: Callable[[], bool] = lambda: False,
        settings: RelaySettings | None = None,
        early: bool = False,
        best: Best | None = None,
        planes: PlaneFormat = YUV420,
    ) -> None:
        """Load and warm up the models from `find_models`; load the optional first ones only if
        `best` accepts their speed. Raises BackendError.

        If `settings` is passed and engines are missing, OpenVINO runs instead while they are
        built. `early`: load only bicubic here and the others on a thread; their costs are infinite
        until then. Raises InterruptedRunError if `stopped` returns true in between.
        """
        self._backend, self._size, self._colour, self._stopped = backend, size, colour, stopped
        self._planes = planes
        self._preparation: Preparation | None = None
        self._queue = EngineQueue(self._enlarge)
        self._closed = False
        self.broken = False
        """Whether new relays must not use these rungs: loading failed, or bicubic fails."""
        self.renewed = 0
        """Number of times an engine was loaded later or replaced, which changes `costs`."""
        self.failure: Exception | None = None
        """Error of loading networks on the thread; None if there was none."""
        missing = settings is not None and not all(
            is_built(model, backend, colour, size, planes) for model in found
        )
        now_on = load_backend("openvino", live=True) if missing else backend
        known = now_on is backend
        self._rungs = [_Rung(m if known else _for_cpu(m, now_on), now_on) for m in found]
        self._best = best or Best(found=found, better=0, interval=math.inf, size=size)
        self._load_all(self._rungs[-1 if early else self._best.better :])
        self.scale = found[0].scale
        self.out_size = planes.output(*size, self.scale)
        if missing and settings is not None:
            log.info("engines are being built; OpenVINO begins without them")
            self._ready = [_Rung(model, backend) for model in found]
            self._preparation = Preparation(settings, size, colour, planes, self._renew)
            self._preparation.start()
        if early and len(found) > 1:  # no daemon: Python must not exit while a compiler runs
            threading.Thread(target=self._load_rest, name="load").start()
        elif not early:
            self._load_better()

    @property
    def names(self) -> list[str]:
        """Names of the networks, best first."""
        return [rung.model.name for rung in self._rungs]

    @property
    def costs(self) -> list[float]:
        """Seconds per frame of each rung, measured when it was loaded."""
        return [rung.cost for rung in self._rungs]

    def is_lost(self, rung: int) -> bool:
        """Return whether a rung failed permanently."""
        return self._rungs[rung].lost

    def close(self) -> None:
        """Stop loading and building engines."""
        self._closed = True
        if self._preparation is not None:
            self._preparation.close()

    def enlarge(self, frame: Frame, rung: int) -> Frame:
        """Upscale a frame on a rung; if that fails, by bicubic, with the event `FALLBACK`.

        A failed engine is reloaded on another thread, up to `_FAILURES` failures. Raises
        BackendError if bicubic fails on the CPU too.
        """
        return self._queue.enlarge(frame, rung)

    def _enlarge(self, frames: Sequence[Frame], rung: int) -> list[Frame]:
        at, lightest = self._rungs[rung], self._rungs[-1]
        upscaler = at.upscaler
        if at is not lightest and upscaler is not None:
            try:
                done = list(upscaler.process(frames))
            except Exception as exc:  # frames must be sent despite any driver error
                self._failed(at, exc)
            else:
                at.good += len(done)
                at.failures = at.failures if at.good < _FORGIVEN else 0
                return done
        for frame in frames:
            frame.stamps.infer_start = 0.0
            if at is not lightest:
                frame.event = frame.event or FALLBACK
        assert lightest.upscaler is not None
        try:
            return list(lightest.upscaler.process(frames))
        except Exception as exc:
            lightest.upscaler = self._last_resort(exc)
            return list(lightest.upscaler.process(frames))

    def _last_resort(self, exc: Exception) -> Upscaler:
        """Load bicubic on the CPU in place of a failed GPU."""
        lightest = self._rungs[-1]
        lightest.failures += 1
        if lightest.failures > 1 or lightest.backend.name == "openvino":
            self.broken = True
            raise BackendError(f"bicubic failed too: {exc}") from exc
        log.error("bicubic failed and is computed by OpenVINO from now on: %s", exc)
        cpu = load_backend("openvino", live=True)
        return self._new_upscaler(_for_cpu(lightest.model, cpu), cpu)

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
            upscaler = self._new_upscaler(rung.model, rung.backend)
            enlarged(trial(self._size, self._planes), upscaler)
            rung.upscaler = upscaler
        except Exception as exc:
            rung.lost = True
            log.error("%s cannot be loaded again and is given up: %s", rung.model.name, exc)

    def _renew(self, place: int) -> None:
        """Replace a rung's OpenVINO engine with the one that was built."""
        ready = self._ready[place]
        name = ready.model.name
        form = (self._colour, self._size, self._planes)
        if not is_built(ready.model, ready.backend, *form):
            log.warning("%s is built in another form; OpenVINO goes on until the next start", name)
            return
        try:
            self._load(ready)
            self._warm_up(ready)
        except InterruptedRunError:
            return
        except Exception as exc:  # OpenVINO stays in use
            log.error("%s does not run on %s: %s", name, ready.backend.name, exc)
            return
        self._rungs[place] = ready
        self.renewed += 1
        log.info("%s runs on %s now: %.1f ms", name, ready.backend.device, 1000 * ready.cost)

    def _load_all(self, rungs: Sequence[_Rung]) -> None:
        """Load engines, in parallel if that is faster; then time them one after the other."""
        workers = _LOADERS if rungs[0].backend.name == "openvino" else 1
        with ThreadPoolExecutor(workers) as loaders:
            for _ in loaders.map(self._load, rungs):
                pass
        for rung in rungs:
            self._warm_up(rung)
            log.debug("%s: %.1f ms a picture", rung.model.name, 1000 * rung.cost)

    def _load_rest(self) -> None:
        """Load all but bicubic, best first, while frames are sent; then the optional networks."""
        try:
            for place in range(self._best.better, len(self._rungs) - 1):
                self._load_at(place)
            self._load_better()
        except InterruptedRunError:
            return
        except Exception as exc:  # raised again on the relay's thread
            self.failure, self.broken = exc, True
            self.renewed += 1

    def _load_better(self) -> None:
        """Load the optional networks, lightest first, until one is too slow."""
        usual = self._rungs[self._best.better].cost
        for place in reversed(range(self._best.better)):
            at = self._rungs[place]
            try:
                if self._best.may_hold(place, usual, at.backend) and self._load_at(place):
                    continue
            except InterruptedRunError:
                raise
            except Exception as exc:  # keep the default network despite any driver error
                log.warning("%s cannot be used: %s", at.model.name, exc)
            for refused in self._rungs[: place + 1]:
                refused.lost = True
            return

    def _load_at(self, place: int) -> bool:
        """Load a rung and install it; return False if it is an optional one and too slow."""
        waiting = self._rungs[place]
        rung = _Rung(waiting.model, waiting.backend)
        self._load(rung)
        self._warm_up(rung)
        if place < self._best.better and not self._best.holds(place, rung.cost):
            return False
        if self._rungs[place] is waiting:  # else the built engine is already there
            self._rungs[place] = rung
            self.renewed += 1
            log.info("%s is loaded: %.1f ms a picture", rung.model.name, 1000 * rung.cost)
        return True

    def _load(self, rung: _Rung) -> None:
        if self._ends():
            raise InterruptedRunError(STOPPED)
        rung.upscaler = self._new_upscaler(rung.model, rung.backend)

    def _ends(self) -> bool:
        return self._closed or self._stopped()

    def _warm_up(self, rung: _Rung) -> None:
        assert rung.upscaler is not None
        rung.cost = timed(rung.upscaler, trial(self._size, self._planes), self._ends)

    def _new_upscaler(self, model: models.Model, backend: Backend) -> Upscaler:
        return Upscaler(model, backend, self._colour, self._size, planes=self._planes)


def _for_cpu(model: models.Model, cpu: Backend) -> models.Model:
    """Return the same network in the form that OpenVINO computes fastest."""
    if model.built_in or model.name == models.BICUBIC:
        return models.find(model.name, model.scale, cpu)
    return models.in_fp32(model) or model
