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

TEXTURE: Final = (160, 96)
"""(width, height) of the test picture, if the network accepts any size."""
_NEAR_DB: Final = 50.0
"""Minimum PSNR against full precision, in dB; above it no difference is visible."""
_GAIN: Final = 1.2
"""Minimum speed-up over full precision; smaller ones may be noise."""
_ROUNDS: Final = 5
_SLOW: Final = 1.0
"""Run time in seconds above which one round is enough: disturbances are short in comparison."""
_FILE: Final = "precisions.json"


def textured(channels: int, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return a test picture [1, C, H, W] in 0..1 with edges, waves and grain; deterministic."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    scene = 0.5 + 0.25 * np.sin(x / 7) * np.cos(y / 9) + 0.15 * np.sign(np.sin((x + 2 * y) / 11))
    grain = np.random.default_rng(1).normal(0, 0.02, (1, channels, height, width))
    return np.clip(scene + grain, 0, 1)


def fastest_of(
    precisions: Sequence[str], run_in: Callable[[str], Callable[[], object]], key: str, top: float
) -> str:
    """Return the fastest of several precisions, the first of which is full precision.

    `run_in` compiles the network in a precision and returns a function that runs it once on a
    picture; `key` names network and machine; `top` is the maximum of its values. A saved result is
    reused. Raises BackendError if full precision does not compile, or if a run fails.
    """
    known = _known()
    if known.get(key) in precisions:
        return known[key]
    full, *others = precisions
    runs = {full: run_in(full)}
    for precision in others:
        try:
            runs[precision] = run_in(precision)
        except BackendError as exc:
            log.debug("%s: %s", precision, exc)
    results, times = _measured(runs)
    best, words = full, f"{full} {times[full] * 1e3:.1f} ms"
    for precision in list(runs)[1:]:
        near = _psnr(results[precision], results[full], top)
        words += f", {precision} {times[precision] * 1e3:.1f} ms at {near:.0f} dB"
        quicker = times[precision] < (times[best] / _GAIN if best == full else times[best])
        if quicker and near >= _NEAR_DB:
            best = precision
    log.info("precision: %s (%s)", best, words)
    _remember({**known, key: best})
    return best


def _measured(
    runs: dict[str, Callable[[], object]],
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, float]]:
    """Return each precision's output and shortest run time in seconds; runs are interleaved."""
    try:
        results = {name: np.array(run(), np.float64) for name, run in runs.items()}
        times = dict.fromkeys(runs, math.inf)
        for _ in range(_ROUNDS):
            for name, run in runs.items():
                began = now()
                run()
                times[name] = min(times[name], now() - began)
            if max(times.values()) >= _SLOW:
                break
    except (RuntimeError, ValueError) as exc:
        raise BackendError(f"the network does not run: {reason(exc)}") from exc
    return results, times


def _psnr(some: npt.NDArray[np.float64], exact: npt.NDArray[np.float64], top: float) -> float:
    """Return the PSNR in dB; minus infinity if a value is not finite."""
    error = float(np.square((some - exact) / top).mean())
    if not math.isfinite(error):
        return -math.inf
    return math.inf if error == 0 else -10 * math.log10(error)


def _known() -> dict[str, str]:
    """Return the saved results; empty if the file is missing or damaged."""
    try:
        found = json.loads((default_folder() / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {str(key): str(value) for key, value in pairs}


def _remember(known: dict[str, str]) -> None:
    """Save the results atomically; if that fails, they are measured again next time."""
    path: Path = default_folder() / _FILE
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(known, indent=1), encoding="utf-8")
        part.replace(path)
    except OSError as exc:
        log.debug("%s cannot be written: %s", path, reason(exc))
