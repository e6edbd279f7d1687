"""Loads and runs the networks of a ladder, and replaces those that fail."""

import logging
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from vsr.errors import BackendError, InterruptedRunError
from vsr.inference import models
from vsr.inference.backend import Backend, load_backend
from vsr.inference.upscaler import Upscaler, is_built
from vsr.live.ladder.engine_queue import EngineQueue
from vsr.live.ladder.prepare import Preparation
from vsr.live.ladder.rung import Rung, disable_slower
from vsr.live.ladder.speed_check import SpeedCheck
from vsr.live.ladder.warm_up import STOPPED, time_per_frame, trial_frame, upscale_one
from vsr.live.settings import RelaySettings
from vsr.media.colour import Colour
from vsr.media.frame import Frame
from vsr.media.plane_format import YUV420, PlaneFormat

log = logging.getLogger(__name__)

_LOADERS: Final = 2
"""Number of engines that OpenVINO compiles in parallel: each mostly uses one processor."""
_MAX_FAILURES: Final = 3
"""Number of failures of one rung after which it is not loaded again."""
_FORGIVE_AFTER: Final = 1000
"""Number of successive good frames after which earlier failures no longer count."""
FALLBACK: Final = "fallback"
"""Event of a frame that bicubic upscaled because its rung failed."""


class Rungs:
    """Engines of a ladder, best first, bicubic last. Thread-safe: relays may share them."""

    def __init__(
        self,
        found: Sequence[models.Model],
        backend: Backend,
        size: tuple[int, int],
        colour: Colour,
        is_stopped: Callable[[], bool] = lambda: False,
        settings: RelaySettings | None = None,
        bicubic_first: bool = False,
        speed_check: SpeedCheck | None = None,
        planes: PlaneFormat = YUV420,
    ) -> None:
        """Load and warm up the models from `find_models`; load the optional first ones only if
        `speed_check` accepts their speed. Raises BackendError.

        If `settings` is passed and engines are missing, OpenVINO runs instead while they are
        built. `bicubic_first`: load only bicubic here and the others on a thread; their costs are
        infinite until then. Raises InterruptedRunError if `is_stopped` returns true in between.
        """
        self._backend, self.size, self._colour, self._is_stopped = (
            backend,
            size,
            colour,
            is_stopped,
        )
        self.planes = planes
        self._preparation: Preparation | None = None
        self._queue = EngineQueue(self._upscale)
        self._closed = False
        self.broken = False
        """Whether new relays must not use these rungs: loading failed, or bicubic fails."""
        self.version = 0
        """Number of times an engine was loaded later or replaced, which changes `costs`."""
        self.failure: Exception | None = None
        """Error of loading networks on the thread; None if there was none."""
        missing = settings is not None and not all(
            is_built(model, backend, colour, size, planes) for model in found
        )
        first_backend = load_backend("openvino", live=True) if missing else backend
        is_final = first_backend is backend
        chosen = [m if is_final else _for_cpu(m, first_backend) for m in found]
        self._rungs = [Rung(model, first_backend) for model in chosen]
        self._speed_check = speed_check or SpeedCheck(
            found=found, optional_count=0, interval_s=math.inf, size=size
        )
        self._load_all(self._rungs[-1 if bicubic_first else self._speed_check.optional_count :])
        self.scale = found[0].scale
        self.out_size = planes.output(*size, self.scale)
        if missing and settings is not None:
            log.info("engines are being built; using OpenVINO until they are ready")
            self._built_rungs = [Rung(model, backend) for model in found]
            self._preparation = Preparation(settings, size, colour, planes, self._install_built)
            self._preparation.start()
        if (
            bicubic_first and len(found) > 1
        ):  # no daemon: Python must not exit while a compiler runs
            threading.Thread(target=self._load_rest, name="load").start()
        elif not bicubic_first:
            self._load_optional()

    @property
    def names(self) -> list[str]:
        """Names of the networks, best first."""
        return [rung.model.name for rung in self._rungs]

    @property
    def costs(self) -> list[float]:
        """Seconds per frame of each rung, measured when it was loaded; infinite: not in use."""
        return [rung.cost for rung in self._rungs]

    def is_disabled(self, rung: int) -> bool:
        """Return whether a rung failed permanently, or was measured as slower than a better one."""
        return self._rungs[rung].disabled

    def close(self) -> None:
        """Stop loading and building engines."""
        self._closed = True
        if self._preparation is not None:
            self._preparation.close()

    def upscale(self, frame: Frame, rung: int) -> Frame:
        """Upscale a frame on a rung; if that fails, by bicubic, with the event `FALLBACK`.

        A failed engine is reloaded on another thread, up to `_MAX_FAILURES` failures. Raises
        BackendError if bicubic fails on the CPU too.
        """
        return self._queue.upscale(frame, rung)

    def _upscale(self, frames: Sequence[Frame], rung: int) -> list[Frame]:
        at, lightest = self._rungs[rung], self._rungs[-1]
        upscaler = at.upscaler
        if at is not lightest and upscaler is not None:
            try:
                done = list(upscaler.process(frames))
            except Exception as exc:  # frames must be sent despite any driver error
                self._handle_failure(at, exc)
            else:
                at.good_frames += len(done)
                at.failures = at.failures if at.good_frames < _FORGIVE_AFTER else 0
                return done
        for frame in frames:
            frame.stamps.infer_start = 0.0
            if at is not lightest:
                frame.event = frame.event or FALLBACK
        assert lightest.upscaler is not None
        try:
            return list(lightest.upscaler.process(frames))
        except Exception as exc:
            lightest.upscaler = self._bicubic_on_cpu(exc)
            return list(lightest.upscaler.process(frames))

    def _bicubic_on_cpu(self, exc: Exception) -> Upscaler:
        """Load bicubic on the CPU in place of a failed GPU."""
        lightest = self._rungs[-1]
        lightest.failures += 1
        if lightest.failures > 1 or lightest.backend.name == "openvino":
            self.broken = True
            raise BackendError(f"bicubic failed too: {exc}") from exc
        log.error("bicubic failed; using OpenVINO for it from now on: %s", exc)
        cpu = load_backend("openvino", live=True)
        return self._new_upscaler(_for_cpu(lightest.model, cpu), cpu)

    def _handle_failure(self, rung: Rung, exc: Exception) -> None:
        name = rung.model.name
        rung.upscaler, rung.good_frames = None, 0
        rung.failures += 1
        if rung.failures >= _MAX_FAILURES:
            rung.disabled = True
            log.error("%s failed %d times and is disabled: %s", name, rung.failures, exc)
            return
        log.warning("%s failed; reloading it, using bicubic meanwhile: %s", name, exc)
        threading.Thread(target=self._reload, args=(rung,), name="reload", daemon=True).start()

    def _reload(self, rung: Rung) -> None:
        try:
            upscaler = self._new_upscaler(rung.model, rung.backend)
            upscale_one(trial_frame(self.size, self.planes), upscaler)
            rung.upscaler = upscaler
        except Exception as exc:
            rung.disabled = True
            log.error("%s cannot be reloaded and is disabled: %s", rung.model.name, exc)

    def _install_built(self, index: int) -> None:
        """Replace a rung's OpenVINO engine with the one that was built."""
        built = self._built_rungs[index]
        name = built.model.name
        form = (self._colour, self.size, self.planes)
        if not is_built(built.model, built.backend, *form):
            log.warning(
                "%s: the built engine does not match this stream; OpenVINO remains in use until the"
                " next start", name,
            )  # fmt: skip
            return
        try:
            self._load(built)
            self._warm_up(built)
        except InterruptedRunError:
            return
        except Exception as exc:  # OpenVINO stays in use
            log.error("%s does not run on %s: %s", name, built.backend.name, exc)
            return
        self._rungs[index] = built
        log.info(
            "%s now runs on %s: %.1f ms per frame", name, built.backend.device, 1000 * built.cost
        )
        self._publish_costs()

    def _load_all(self, rungs: Sequence[Rung]) -> None:
        """Load engines, in parallel if that is faster; then time them one after the other."""
        workers = _LOADERS if rungs[0].backend.name == "openvino" else 1
        with ThreadPoolExecutor(workers) as loaders:
            for _ in loaders.map(self._load, rungs):
                pass
        for rung in rungs:
            self._warm_up(rung)
            log.debug("%s: %.1f ms per frame", rung.model.name, 1000 * rung.cost)
        disable_slower(self._rungs[:-1])

    def _load_rest(self) -> None:
        """Load all but bicubic, best first, while frames are sent; then the optional networks."""
        try:
            for index in range(self._speed_check.optional_count, len(self._rungs) - 1):
                self._load_at(index)
            self._load_optional()
        except InterruptedRunError:
            return
        except Exception as exc:  # raised again on the relay's thread
            self.failure, self.broken = exc, True
            self.version += 1

    def _load_optional(self) -> None:
        """Load the optional networks, lightest first, until one is too slow."""
        default_cost_s = self._rungs[self._speed_check.optional_count].cost
        for index in reversed(range(self._speed_check.optional_count)):
            at = self._rungs[index]
            try:
                worth = self._speed_check.is_worth_loading(index, default_cost_s, at.backend)
                if worth and self._load_at(index):
                    continue
            except InterruptedRunError:
                raise
            except Exception as exc:  # keep the default network despite any driver error
                log.warning("%s cannot be used: %s", at.model.name, exc)
            for rung in self._rungs[: index + 1]:
                rung.disabled = True
            return

    def _load_at(self, index: int) -> bool:
        """Load a rung and install it; return False if it is an optional one and too slow."""
        placeholder = self._rungs[index]
        rung = Rung(placeholder.model, placeholder.backend)
        self._load(rung)
        check = self._speed_check
        is_optional = index < check.optional_count
        # all but the default one, which is awaited, are lost if they seem too slow
        self._warm_up(rung, beside_stream=index != check.optional_count)
        if is_optional and not check.is_fast_enough(index, rung.cost):
            return False
        if self._rungs[index] is placeholder:  # else the built engine is already there
            self._rungs[index] = rung
            log.info("%s is loaded: %.1f ms per frame", rung.model.name, 1000 * rung.cost)
            self._publish_costs()
        return True

    def _publish_costs(self) -> None:
        """Let relays read the costs again, after an engine was loaded or replaced."""
        disable_slower(self._rungs[:-1])
        self.version += 1

    def _load(self, rung: Rung) -> None:
        if self._should_stop():
            raise InterruptedRunError(STOPPED)
        rung.upscaler = self._new_upscaler(rung.model, rung.backend)

    def _should_stop(self) -> bool:
        return self._closed or self._is_stopped()

    def _warm_up(self, rung: Rung, beside_stream: bool = False) -> None:
        assert rung.upscaler is not None
        picture = trial_frame(self.size, self.planes)
        rung.cost = time_per_frame(rung.upscaler, picture, self._should_stop, beside_stream)

    def _new_upscaler(self, model: models.Model, backend: Backend) -> Upscaler:
        return Upscaler(model, backend, self._colour, self.size, planes=self.planes)


def _for_cpu(model: models.Model, cpu: Backend) -> models.Model:
    """Return the same network in the form that OpenVINO computes fastest."""
    if model.built_in or model.name == models.BICUBIC:
        return models.find(model.name, model.scale, cpu)
    return models.in_fp32(model) or model
