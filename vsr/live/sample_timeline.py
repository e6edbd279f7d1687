"""Places decoded audio on one continuous line of samples, according to its timestamps.

Audio begins exactly at its time, whatever precedes it. After that it continues without gaps, and
drift between its sample clock and its timestamps is removed by resampling, by less than 0.1 %. If
its timestamps jump (lost packets, a cut), it is placed at its time again.
"""

from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, cast

import av
import numpy as np
from av.audio.format import AudioFormat
from av.audio.frame import AudioFrame

from vsr.live.aac import PACKED, Samples, silent_samples
from vsr.media.transcode import limit_samples

_MAX_ERROR_S: Final = 0.1
"""Largest time error of a single frame before audio is placed at its time again, in seconds."""
_MAX_STEADY_ERROR_S: Final = 0.008
"""Largest time error of `_ERROR_WINDOW` consecutive frames, in seconds; one may jitter more."""
_ERROR_WINDOW: Final = 12
"""Number of frames of that window: about a quarter of a second."""
_TICKS_PER_S: Final = 1_000_000
"""Ticks per second of the resampler's timestamps (microseconds)."""
_DRIFT_OPTIONS: Final = "min_comp=0.001:comp_duration=1:max_soft_comp=0.0009:min_hard_comp=1000000"
"""Options of swresample: remove drift above 1 ms, by 0.09 % at most, and never by a hard step."""
_MAX_SPANS: Final = 256
"""Number of stretches that are kept: more than the encoder buffers."""


@dataclass(frozen=True)
class _Span:
    """Position of a source frame on the line, in samples."""

    begin: int
    end: int
    source_time: float
    """Source time of its beginning (s)."""


class SampleTimeline:
    """Converts frames to one rate and layout and places them on the line. Not thread-safe."""

    def __init__(self, like: av.AudioCodecContext) -> None:
        self._like, self._rate = like, like.rate
        self._graph: av.filter.Graph | None = None
        self._kind: tuple[str, str, int] | None = None
        self._errors_s: deque[float] = deque(maxlen=_ERROR_WINDOW)
        self._spans: deque[_Span] = deque(maxlen=_MAX_SPANS)

    def reset(self) -> None:
        """Place the next frame by its time: other samples were put after the last one."""
        self._graph = None
        self._errors_s.clear()

    def place(self, frame: AudioFrame, time: float, source_time: float, end: int) -> Samples | None:
        """Return the samples to append at `end` for a frame at output time `time`.

        They include the silence before the frame. None if it is too late. `source_time` is the
        frame's time in the source; times are in seconds, `end` in samples.
        """
        error_s = time - end / self._rate
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._graph is not None and kind == self._kind and not self._has_jumped(error_s):
            samples = self._resample(self._graph, frame, time)
            self._add_span(end, samples, source_time)
            return samples
        return self._restart(frame, kind, time, source_time, end)

    def source_time(self, position: int) -> float | None:
        """Return the source time (s) of the sample at `position`; None for silence."""
        for part in reversed(self._spans):
            if part.begin <= position < part.end:
                return part.source_time + (position - part.begin) / self._rate
        return None

    def _has_jumped(self, error_s: float) -> bool:
        self._errors_s.append(error_s)
        errors = self._errors_s
        is_full, limit = len(errors) == _ERROR_WINDOW, _MAX_STEADY_ERROR_S
        return abs(error_s) > _MAX_ERROR_S or (
            is_full and (min(errors) > limit or max(errors) < -limit)
        )

    def _restart(
        self,
        frame: AudioFrame,
        kind: tuple[str, str, int],
        time: float,
        source_time: float,
        end: int,
    ) -> Samples | None:
        self.reset()
        position = round(time * self._rate)
        if position + frame.samples * self._rate / frame.sample_rate <= end:
            return None
        self._graph, self._kind = _resampler(kind, self._like), kind
        samples = self._resample(self._graph, frame, time)
        before = silent_samples(self._like, max(0, position - end))
        cut = min(max(0, end - position), samples.shape[1])
        samples = samples[:, cut:]
        self._add_span(end + before.shape[1], samples, source_time + cut / self._rate)
        return np.concatenate([before, samples], axis=1)

    def _add_span(self, position: int, samples: Samples, source_time: float) -> None:
        self._spans.append(_Span(position, position + samples.shape[1], source_time))

    def _resample(self, graph: av.filter.Graph, frame: AudioFrame, time: float) -> Samples:
        frame.pts, frame.time_base = round(time * _TICKS_PER_S), Fraction(1, _TICKS_PER_S)
        graph.push(frame)
        parts = [silent_samples(self._like)]
        while True:
            try:
                made = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return np.concatenate(parts, axis=1)
            sound = cast(AudioFrame, made)
            limit_samples(sound)
            packed = cast(Samples, sound.to_ndarray())
            parts.append(packed.reshape(-1, sound.layout.nb_channels).T)


def _resampler(kind: tuple[str, str, int], like: av.AudioCodecContext) -> av.filter.Graph:
    """Create a resampler from a kind of frame to the layout and rate of an encoder."""
    form, layout, rate = kind
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_abuffer(
            format=AudioFormat(form), layout=layout, sample_rate=rate,
            time_base=Fraction(1, _TICKS_PER_S),
        ),
        graph.add("aresample", f"{like.rate}:flags=res:{_DRIFT_OPTIONS}"),
        graph.add(
            "aformat",
            f"sample_fmts={PACKED}:channel_layouts={like.layout.name}:sample_rates={like.rate}",
        ),
        graph.add("abuffersink"),
    ).configure()  # fmt: skip
    return graph
