"""Plans a run: measures decoding, networks and encoding on this machine, and chooses a network."""

import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Final

from vsr.inference import models
from vsr.inference.backend import Backend
from vsr.inference.default import DEFAULT
from vsr.inference.depth import for_bit_depth
from vsr.media.copying import is_cover
from vsr.media.encoder import EncoderSettings, VideoFormat, encoder_name
from vsr.media.info import VideoInfo
from vsr.media.limits import processor_count
from vsr.media.opening import READ_ERRORS, open_input
from vsr.plan import choice, measure
from vsr.plan.content import is_clean
from vsr.plan.cost import Cost, Forecast
from vsr.plan.cost_cache import CostCache, network_key
from vsr.plan.trial import MAX_FRAMES, MIN_FRAMES, Trial, trial

log = logging.getLogger(__name__)
_CONTAINER: Final = "mp4"
_SHARE_PACKETS: Final = 2000
_SHARE_BYTES: Final = 32 * 2**20
"""Limits of what is read of a file to find the share of its video."""
_TRIAL_RATIO: Final = 1.5
"""Ratio of the duration of a trial of all stages to the measuring time of one stage. Encoders
delay the first frames and flush the last ones at once; a longer trial reduces that effect."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The video to upscale, and the settings."""

    video: measure.Video
    scale: int = 2
    precision: str = "auto"
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    container: str = _CONTAINER
    url: str | None = None
    """Path or URL of the input; None without an input."""
    decode: Cost | None = None
    """Cost of decoding; None without an input."""
    info: VideoInfo | None = None
    frames: int = 0
    """Number of the input's frames; 0 if unknown."""
    clean: bool = False
    """Whether the video has no visible compression losses; see `vsr.plan.content`."""
    look: str | None = None
    """A key of `vsr.inference.models.LOOKS`: plan only networks with its weights."""

    @property
    def out(self) -> VideoFormat:
        """Format of the upscaled video."""
        size = self.video.planes.output(*self.video.size, self.scale)
        if self.info is not None:
            return self.info.output_for(size)
        rate = self.video.rate
        return VideoFormat(
            size=size, rate=rate, time_base=1 / rate, colour=self.video.colour,
            planes=self.video.planes,
        )  # fmt: skip


def task_of(url: str, task: Task, seconds: float = measure.SECONDS) -> Task:
    """Return the task with a file's size, rate, frames, decoding cost and whether it is clean.

    Raises InputError.
    """
    source, cost, frames = measure.decoding_cost(url, seconds)
    info = source.info
    video = measure.Video(
        size=(info.width, info.height), rate=info.rate, colour=info.colour, planes=info.planes,
        frames=frames,
    )  # fmt: skip
    clean = is_clean(info.codec, bits_per_pixel(url, info), frames)
    return replace(
        task, url=url, video=video, decode=cost, info=info, frames=info.frames, clean=clean,
    )  # fmt: skip


def bits_per_pixel(url: str, info: VideoInfo) -> float | None:
    """Return the bits per pixel of a file's video; None if its length is unknown."""
    path = Path(url)
    if not path.is_file() or not info.frames:
        return None
    size = path.stat().st_size * _video_share(url)
    return 8 * size / (info.frames * info.width * info.height)


def _video_share(url: str) -> float:
    """Return the share of the video in a file's first packets, in bytes: sound may be larger."""
    video = total = 0
    with open_input(url, url) as container, suppress(*READ_ERRORS, IndexError):  # the run tells
        for packet in islice(container.demux(), _SHARE_PACKETS):
            total += packet.size
            is_video = packet.stream.type == "video" and not is_cover(packet.stream)
            video += packet.size * is_video
            if total > _SHARE_BYTES:
                break
    return video / total if total else 1.0


@dataclass(frozen=True)
class Line:
    """The forecast for one network of a plan."""

    model: str
    precision: str
    forecast: Forecast


class Planner:
    """Forecasts the speed of networks for one task. Not thread-safe."""

    def __init__(
        self, task: Task, backend: Backend, costs: CostCache | None = None,
        seconds: float = measure.SECONDS, startup_s: float = 0.0,
    ) -> None:  # fmt: skip
        """`seconds`: approximate measuring time per stage; `startup_s`: start-up time of a program
        before it can load a network, in seconds."""
        self.task, self._backend, self._seconds = task, backend, seconds
        self._startup_ms = 1000 * startup_s
        self._costs = costs or CostCache()
        self._encode: Cost | None = None
        self._lines: dict[str, Line] = {}

    @property
    def encoder(self) -> str:
        """FFmpeg's name of the encoder."""
        return encoder_name(self.task.encoder, self.task.container, self.task.out)

    def line(self, name: str) -> Line:
        """Return the forecast for a network; measure unknown costs. Raises VsrError."""
        if name not in self._lines:
            self._lines[name] = self._measure(name)
        return self._lines[name]

    def _measure(self, name: str) -> Line:
        task = self.task
        model = models.find(name, task.scale, self._backend, task.precision)
        model = for_bit_depth(model, task.video.planes)
        stages = {"network": self._network_cost(model), "encode": self._encoding_cost()}
        if task.decode is not None:
            stages["decode"] = task.decode
        parts = Forecast(stages, processor_count())
        return Line(name, model.precision, self._with_trial(model, parts))

    def times_real_time(self, name: str) -> float:
        """Return the expected speed of a run with that network, as a multiple of real time."""
        return self.line(name).forecast.fps / float(self.task.video.rate)

    def choose(self, speed: str) -> tuple[str, float]:
        """Return the network that `vsr run` would choose, and its speed as a multiple of real time.

        `speed`: a key of `choice.SPEEDS`.
        """
        return choice.choose(self._candidates(), self.times_real_time, choice.SPEEDS[speed])

    def of_relay(self) -> list[Line]:
        """Return the forecasts for the networks that `vsr relay` chooses from, best first."""
        return [self.line(candidate.name) for candidate in choice.faithful(self.task.scale)]

    def _candidates(self) -> list[choice.Candidate]:
        return choice.candidates(self.task.clean, self.task.scale, self.task.look)

    def _network_cost(self, model: models.Model) -> Cost:
        return self._costs.get(
            self._network_key(model),
            lambda: measure.network_cost(model, self._backend, self.task.video, self._seconds),
        )

    def _network_key(self, model: models.Model) -> str:
        return network_key(model, self._backend, self.task.video.size, self.task.video.planes)

    def _with_trial(self, model: models.Model, parts: Forecast) -> Forecast:
        """Return the forecast with the costs of a trial, if enough frames fit into its time."""
        count = round(_TRIAL_RATIO * 1000 * self._seconds / parts.frame_ms)
        if count < MIN_FRAMES:
            return parts
        task, found = self.task, list[Trial]()

        def run() -> Trial:
            if not found:
                found.append(
                    trial(
                        model, self._backend, task.video, task.url, task.encoder, task.out,
                        task.container, min(count, MAX_FRAMES),
                    )
                )  # fmt: skip
            return found[0]

        key = f"{self._network_key(model)} {self._encoding_key()}"
        trial_cost = self._costs.get(f"run {key}", lambda: run().frame)
        start = self._costs.get(f"start {key}", lambda: run().start)
        return replace(parts, trial_cost=trial_cost, start_ms=self._startup_ms + start.wall_ms)

    def _encoding_cost(self) -> Cost:
        if self._encode is None:
            task = self.task
            self._encode = self._costs.get(
                f"encode {self._encoding_key()}",
                lambda: measure.encoding_cost(
                    self.encoder, task.encoder, task.out, task.video.frames, self._seconds
                ),
            )
        return self._encode

    def _encoding_key(self) -> str:
        frames, out = self.task.video.frames, self.task.out
        # encoding time depends on the content: without an input, it is a texture
        what = hash_of(frames) if frames else "texture"
        return f"{self.encoder} {self.task.encoder} {out.size} {out.planes} {what}"


def hash_of(frames: Sequence[Any]) -> str:
    """Return a short hash of the luma of some of the frames, for a key."""
    digest = hashlib.sha256()
    for frame in frames[:: max(1, len(frames) // 4)]:
        digest.update(frame.planes[0].tobytes())
    return digest.hexdigest()[:12]


def models_for_scale(task: Task) -> list[str]:
    """Return bicubic, the default network, then the others by ascending work, for the task's scale.

    For int8, only networks that have an int8 form.
    """
    known = [name for name in models.names() if task.scale in models.scales(name)]
    if task.precision == "int8":
        forms = models.manifest()
        known = [n for n in known if "int8" in forms.get(n, {}).get(f"x{task.scale}", {})]
    first = [name for name in (models.BICUBIC, DEFAULT) if name in known]
    return [*first, *(name for name in known if name not in first)]


def task_without_input(
    size: tuple[int, int] = (2, 2), rate: Fraction = Fraction(30), **others: Any
) -> Task:
    """Return a task without an input: 8-bit 4:2:0 video; `others`: more fields of `Task`."""
    return Task(video=measure.Video(size=size, rate=rate), **others)
