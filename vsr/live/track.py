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

from vsr.live.aac import FORMAT, Samples, no_samples
from vsr.media.transcode import limit_samples

_LEAP: Final = 0.1
"""Largest time error of a single frame before audio is placed at its time again, in seconds."""
_OFF: Final = 0.008
"""Largest time error of `_ROW` consecutive frames, in seconds; a single one may jitter more."""
_ROW: Final = 12
"""Number of frames of that window: about a quarter of a second."""
_TIMES: Final = 1_000_000
"""Ticks per second of the resampler's timestamps (microseconds)."""
_DRIFT: Final = "min_comp=0.001:comp_duration=1:max_soft_comp=0.0009:min_hard_comp=1000000"
"""Options of swresample: remove drift above 1 ms, by 0.09 % at most, and never by a hard step."""
_KEPT: Final = 256
"""Number of stretches that are kept: more than the encoder buffers."""


@dataclass(frozen=True)
class _Stretch:
    """Position of a source frame on the line, in samples."""

    begin: int
    end: int
    origin: float
    """Source time of its beginning (s)."""


class SampleLine:
    """Converts frames to one rate and layout and places them on the line. Not thread-safe."""

    def __init__(self, like: av.AudioCodecContext) -> None:
        self._like, self._rate = like, like.rate
        self._graph: av.filter.Graph | None = None
        self._kind: tuple[str, str, int] | None = None
        self._off: deque[float] = deque(maxlen=_ROW)
        self._laid: deque[_Stretch] = deque(maxlen=_KEPT)

    def interrupt(self) -> None:
        """Place the next frame by its time: other samples were put after the last one."""
        self._graph = None
        self._off.clear()

    def lay(self, frame: AudioFrame, time: float, origin: float, end: int) -> Samples | None:
        """Return the samples to append at place `end` for a frame at `time` (s); None if too late.

        They include the silence before the frame. `origin` is its source time (s).
        """
        off = time - end / self._rate
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._graph is not None and kind == self._kind and not self._leaps(off):
            samples = self._resampled(self._graph, frame, time)
            self._note(end, samples, origin)
            return samples
        return self._begun(frame, kind, time, origin, end)

    def origin(self, place: int) -> float | None:
        """Return the source time (s) of the sample at `place`; None for silence."""
        for part in reversed(self._laid):
            if part.begin <= place < part.end:
                return part.origin + (place - part.begin) / self._rate
        return None

    def _leaps(self, off: float) -> bool:
        self._off.append(off)
        row = len(self._off) == _ROW
        steady = row and (min(self._off) > _OFF or max(self._off) < -_OFF)
        return abs(off) > _LEAP or steady

    def _begun(
        self, frame: AudioFrame, kind: tuple[str, str, int], time: float, origin: float, end: int
    ) -> Samples | None:
        self.interrupt()
        place = round(time * self._rate)
        if place + frame.samples * self._rate / frame.sample_rate <= end:
            return None
        self._graph, self._kind = _resampler(kind, self._like), kind
        samples = self._resampled(self._graph, frame, time)
        before = no_samples(self._like, max(0, place - end))
        cut = min(max(0, end - place), samples.shape[1])
        samples = samples[:, cut:]
        self._note(end + before.shape[1], samples, origin + cut / self._rate)
        return np.concatenate([before, samples], axis=1)

    def _note(self, place: int, samples: Samples, origin: float) -> None:
        self._laid.append(_Stretch(place, place + samples.shape[1], origin))

    def _resampled(self, graph: av.filter.Graph, frame: AudioFrame, time: float) -> Samples:
        frame.pts, frame.time_base = round(time * _TIMES), Fraction(1, _TIMES)
        graph.push(frame)
        parts = [no_samples(self._like)]
        while True:
            try:
                made = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return np.concatenate(parts, axis=1)
            sound = cast(AudioFrame, made)
            limit_samples(sound)
            parts.append(cast(Samples, sound.to_ndarray()))


def _resampler(kind: tuple[str, str, int], like: av.AudioCodecContext) -> av.filter.Graph:
    """Create a resampler from a kind of frame to the format, layout and rate of an encoder."""
    form, layout, rate = kind
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_abuffer(
            format=AudioFormat(form), layout=layout, sample_rate=rate,
            time_base=Fraction(1, _TIMES),
        ),
        graph.add("aresample", f"{like.rate}:flags=res:{_DRIFT}"),
        graph.add(
            "aformat",
            f"sample_fmts={FORMAT}:channel_layouts={like.layout.name}:sample_rates={like.rate}",
        ),
        graph.add("abuffersink"),
    ).configure()  # fmt: skip
    return graph
