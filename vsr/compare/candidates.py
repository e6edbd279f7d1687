"""Upscales an excerpt of a video with several networks, for a visual comparison."""

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import Final

from vsr.compare.compare import compare
from vsr.compare.result import Comparison
from vsr.errors import InputError, InterruptedRunError, UsageError
from vsr.files.input_output import open_source
from vsr.files.settings import RunSettings
from vsr.files.upscale import upscale
from vsr.inference.backend import load_backend
from vsr.inference.default import DEFAULT
from vsr.inference.models import BICUBIC, find
from vsr.media.limits import processor_count
from vsr.media.opening import open_input
from vsr.media.stream_choice import choose_streams
from vsr.plan.measure import Video, network_cost_at_size

_MEASURE_S: Final = 0.3
"""Duration of the measurement of each network alone, in seconds."""
ModelCallback = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class CandidateSettings:
    """Settings of `compare_models`: an excerpt of a video, and the models that upscale it."""

    models: Sequence[str]
    at: float = 0.0
    """Start of the excerpt, in seconds from the video's first frame."""
    seconds: float = 1.0
    run: RunSettings = field(default_factory=RunSettings)
    """Other settings, as for `vsr run`. `model`, the frame range, `segment`, `audio`, `report` and
    `container` are overridden for each candidate."""

    def __post_init__(self) -> None:
        if not set(self.models) - {BICUBIC}:
            raise UsageError(
                f"no model to compare: name at least one besides {BICUBIC}, the baseline"
            )
        if not 0 <= self.at < math.inf or not 0 < self.seconds < math.inf:
            raise UsageError(
                f"invalid excerpt: start {self.at} s, duration {self.seconds} s; "
                "the start must be 0 or more, the duration above 0"
            )


def compare_models(
    source: str | os.PathLike[str],
    settings: CandidateSettings,
    *,
    on_model: ModelCallback | None = None,
    stop: Event | None = None,
) -> Comparison:
    """Upscale an excerpt of `source` with each model, and compare the results with bicubic.

    The excerpts are encoded as by `vsr run`, into a temporary folder. `on_model` receives each
    model's name before its run starts. Raises the errors of `vsr.upscale` and `compare`.
    """
    path = os.fspath(source)
    names = list(dict.fromkeys((BICUBIC, *settings.models)))
    backend = load_backend(settings.run.backend, settings.run.device)
    for name in names:  # before the first one is run, which takes long
        find(name, settings.run.scale, backend, settings.run.precision)
    start, frames = _frame_range(path, settings.at, settings.seconds)
    with tempfile.TemporaryDirectory(prefix="vsr-compare-") as folder:
        outputs: list[Path] = []
        times: list[float] = []
        for name in names:
            if on_model:
                on_model(name)
            # a model may be a path with any characters, so it does not name the file
            target = Path(folder) / f"{len(outputs)}.mkv"
            run = replace(
                settings.run, model=name, start_frame=start, max_frames=frames, segment=0,
                audio="none", report=None, container=None,
            )  # fmt: skip
            report = upscale(path, target, run, stop=stop)
            if report.interrupted:
                raise InterruptedRunError("stopped: nothing was written")
            outputs.append(target)
            times.append(_measure_ms_per_frame(path, target, run))
        comparison = compare(outputs, stop=stop)
    labels = [Path(name).name for name in names]
    videos = [
        replace(video, name=label, ms_per_frame=round(ms, 1))
        for video, label, ms in zip(
            (comparison.reference, *comparison.videos), labels, times, strict=True
        )
    ]
    comparison.reference, comparison.videos = videos[0], videos[1:]
    comparison.notes = [note for note in comparison.notes if not note.startswith("VMAF")]
    comparison.notes.append(
        f"no original to compare with: the figures show each model's difference from {BICUBIC}"
    )
    return comparison


def _measure_ms_per_frame(path: str, target: Path, run: RunSettings) -> float:
    """Measure the time that a run's network takes for one frame when nothing else runs, in ms.

    It differs from a report's `infer` time: in a run, several frames share the network at a time.
    """
    with closing(open_source(path, target, run, Event())) as source:
        info = source.info
    backend = load_backend(run.backend, run.device)
    model = find(run.model or DEFAULT, run.scale, backend, run.precision)
    size = (info.width, info.height)
    video = Video(size=size, rate=info.rate, colour=info.colour, planes=info.planes)
    return network_cost_at_size(model, backend, video, _MEASURE_S).alone_ms(processor_count())


def _frame_range(path: str, at: float, seconds: float) -> tuple[int, int]:
    """Return (index of the first frame, number of frames) of an excerpt, from the packets' pts."""
    with closing(open_input(path, path)) as container:
        stream, _ = choose_streams(container, path, path)
        base = stream.time_base or Fraction(1, 1000)
        times = sorted(p.pts * base for p in container.demux(stream) if p.pts is not None)
    if not times:
        raise InputError(f"{path} has no timestamps: cannot find the excerpt to compare")
    times = [time - times[0] for time in times]
    first = sum(time < Fraction(at) for time in times)
    number = sum(Fraction(at) <= time < Fraction(at) + Fraction(seconds) for time in times)
    if not number:
        raise UsageError(
            f"{path} has no frames at {at:g} s: its last frame is at {float(times[-1]):.3f} s"
        )
    return first, number
