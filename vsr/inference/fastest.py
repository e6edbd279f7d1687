"""Measures which precision of a network is fastest on this machine, and saves the result."""

import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from vsr.errors import BackendError, reason
from vsr.inference.tensorrt.cache import default_folder
from vsr.media.frame import now

log = logging.getLogger(__name__)

TEST_SIZE: Final = (160, 96)
"""(width, height) of the test picture, if the network accepts any size."""
_MIN_PSNR_DB: Final = 50.0
"""Minimum PSNR against full precision, in dB; above it no difference is visible."""
_MIN_SPEEDUP: Final = 1.2
"""Minimum speed-up over full precision; smaller ones may be noise."""
_MAX_ROUNDS: Final = 5
_SLOW_S: Final = 1.0
"""Run time in seconds above which one round is enough: disturbances are short in comparison."""
_FILE: Final = "precisions.json"


def textured_picture(channels: int, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return a test picture [1, C, H, W] in 0..1 with edges, waves and grain; deterministic."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    scene = 0.5 + 0.25 * np.sin(x / 7) * np.cos(y / 9) + 0.15 * np.sign(np.sin((x + 2 * y) / 11))
    grain = np.random.default_rng(1).normal(0, 0.02, (1, channels, height, width))
    return np.clip(scene + grain, 0, 1)


def measure_fastest(
    precisions: Sequence[str],
    compile_in: Callable[[str], Callable[[], object]],
    key: str,
    value_max: float,
) -> str:
    """Return the fastest of several precisions, the first of which is full precision.

    `compile_in` compiles the network in a precision and returns a function that runs it once on a
    picture; `key` names network and machine; `value_max` is the maximum of the picture's values. A
    saved result is reused. Raises BackendError if full precision does not compile or run; other
    precisions that do not are left out.
    """
    saved = _load_results()
    if saved.get(key) in precisions:
        return saved[key]
    full, *others = precisions
    runs = {full: compile_in(full)}
    for precision in others:
        try:
            runs[precision] = compile_in(precision)
        except BackendError as exc:
            log.debug("%s: %s", precision, exc)
    results, times = _measure(runs)
    best, summary = full, f"{full} {times[full] * 1e3:.1f} ms"
    for precision in list(times)[1:]:
        psnr_db = _psnr(results[precision], results[full], value_max)
        summary += f", {precision} {times[precision] * 1e3:.1f} ms at {psnr_db:.0f} dB"
        is_faster = times[precision] < (times[best] / _MIN_SPEEDUP if best == full else times[best])
        if is_faster and psnr_db >= _MIN_PSNR_DB:
            best = precision
    log.info("precision: %s (%s)", best, summary)
    _save_results({**saved, key: best})
    return best


def _measure(
    runs: dict[str, Callable[[], object]],
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, float]]:
    """Return each precision's output and shortest run time in seconds; runs are interleaved.

    A precision that fails is logged and left out. Raises BackendError if the first, full precision
    fails.
    """
    full = next(iter(runs))
    results: dict[str, npt.NDArray[np.float64]] = {}
    times = dict.fromkeys(runs, math.inf)
    for k in range(1 + _MAX_ROUNDS):  # the first round warms up
        for name in list(times):
            start = now()
            try:
                output = runs[name]()
                seconds = now() - start
                if not k:
                    results[name] = np.array(output, np.float64)
            except (RuntimeError, ValueError) as exc:
                if name == full:
                    raise BackendError(f"the network does not run: {reason(exc)}") from exc
                log.info("precision %s failed (%s): leaving it out", name, reason(exc))
                del times[name]
                continue
            if k:
                times[name] = min(times[name], seconds)
        if k and max(times.values()) >= _SLOW_S:
            break
    return results, times


def _psnr(
    result: npt.NDArray[np.float64], reference: npt.NDArray[np.float64], value_max: float
) -> float:
    """Return the PSNR in dB; minus infinity if a value is not finite."""
    error = float(np.square((result - reference) / value_max).mean())
    if not math.isfinite(error):
        return -math.inf
    return math.inf if error == 0 else -10 * math.log10(error)


def _load_results() -> dict[str, str]:
    """Return the saved results; empty if the file is missing or damaged."""
    try:
        found = json.loads((default_folder() / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {str(key): str(value) for key, value in pairs}


def _save_results(saved: dict[str, str]) -> None:
    """Save the results atomically; if that fails, they are measured again next time."""
    path: Path = default_folder() / _FILE
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(saved, indent=1), encoding="utf-8")
        part.replace(path)
    except OSError as exc:
        log.debug("%s cannot be written: %s", path, reason(exc))
