"""Runs decoder, network and encoder together for a short time, as a run does.

Together they take more than the sum of their costs: they wait for one another, and share
processors, caches and memory.
"""

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from vsr.inference.backend import Backend
from vsr.inference.flicker import FlickerFilter
from vsr.inference.models import Model
from vsr.inference.upscaler import Upscaler
from vsr.media.encoder import EncoderSettings, VideoFormat
from vsr.media.filters import Filtering
from vsr.media.frame import Frame, Stamps
from vsr.media.prefetch import prefetch
from vsr.media.reading import Reading
from vsr.media.sink import Sink
from vsr.media.source import Source
from vsr.plan.cost import Cost
from vsr.plan.measure import Video, grey_frames, moving_texture

MIN_FRAMES: Final = 8
"""Minimum number of frames in a trial."""
MAX_FRAMES: Final = 1000
"""Maximum number of frames in a trial."""


@dataclass(frozen=True)
class Trial:
    """Measured costs of a trial with one network."""

    start: Cost
    """Time to open network, input and output and make the first frames; not per frame."""
    frame: Cost
    """Mean cost per frame, from the first frame read to the last one written."""


def trial(
    model: Model, backend: Backend, video: Video, url: str | None,
    encoder: EncoderSettings, out: VideoFormat, container: str, count: int,
) -> Trial:  # fmt: skip
    """Upscale `count` frames from the beginning of a file, or of a texture if `url` is None.

    A shorter file is upscaled completely. Raises InputError, BackendError, UsageError and
    OutputError.
    """
    with ExitStack() as stack:
        started = _now()
        upscaler = Upscaler(
            model, backend, video.colour, video.size, planes=video.planes, reuse=True
        )  # fmt: skip
        for _ in upscaler.process(itertools.islice(grey_frames(video), 2)):
            pass
        frames = _texture(video) if url is None else _read(url, stack)
        target = Path(stack.enter_context(TemporaryDirectory(prefix="vsr-")), "trial")
        sink = stack.enter_context(Sink(target, out, encoder, container=container))
        start = _since(started, 1)
        decoded = stack.enter_context(closing(prefetch(itertools.islice(frames, count))))
        started = _now()
        steady = FlickerFilter(None)
        with closing(prefetch(steady.process(decoded, upscaler.process))) as enlarged:
            for frame in enlarged:
                sink.write(frame)
        sink.drain()
        return Trial(start, _since(started, max(1, sink.frames_in)))


def _read(url: str, stack: ExitStack) -> Iterator[Frame]:
    """Return the frames of a file, opened as in a run, which detects interlaced pictures."""
    reading = Reading(filtering=Filtering(deinterlace="auto", quiet=True))
    source = stack.enter_context(closing(Source(url, reading)))
    return (item for item in source if isinstance(item, Frame))


def _texture(video: Video) -> Iterator[Frame]:
    pictures = moving_texture(video)
    for k in itertools.count():
        yield replace(pictures[k % len(pictures)], index=k, pts=k, stamps=Stamps())


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(started: tuple[float, float], frames: int) -> Cost:
    wall, cpu = ((now - then) * 1000 / frames for then, now in zip(started, _now(), strict=True))
    return Cost(wall, cpu)
