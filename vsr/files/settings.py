"""The settings of `vsr run`: a frozen dataclass, created from options or in Python."""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Final, Unpack

from vsr.errors import UsageError
from vsr.media.encoder import EncoderSettings
from vsr.media.filters import Filtering
from vsr.media.keywords import ENCODER, EncoderOptions, with_keywords
from vsr.media.other_streams import AUDIO_MODES
from vsr.media.validation import check_settings, check_type
from vsr.media.variants import BEST, VariantChoice
from vsr.plan.choice import SPEEDS

_MINIMUM: Final = {
    "scale": 1,
    "batch": 1,
    "start_frame": 0,
    "max_frames": 1,
    "memory": 1,
    "jobs": 1,
}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of one run; every field is an option of `vsr run`.

    Raises UsageError for values of a wrong type and numbers out of range.
    """

    model: str | None = None
    """Name or .onnx file; None: the best for the file that is fast enough here; see `speed`."""
    speed: str = "balanced"
    """A key of `vsr.plan.choice.SPEEDS`: required speed of the network, if `model` is None."""
    look: str | None = None
    """A key of `vsr.inference.models.LOOKS`: with `model`, that model if it has the look, else its
    network's weights of that look; see `vsr.inference.look`."""
    scale: int | None = None
    """Scale factor; None: 2, or the scale of the .onnx file."""
    precision: str = "auto"
    """A key of `vsr.network.precision.PRECISIONS`; `auto`: the best on the device."""
    backend: str = "auto"
    device: str | None = None
    """The backend's name of the device, or a GPU's number; several separated by commas."""
    batch: int = 1
    """Frames per inference on a GPU; more than one is faster for small frames."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    flicker_filter: bool | None = None
    """Whether the luma is averaged over time where the picture stands still; see
    `vsr.inference.flicker`. None: for networks with a sharp look."""
    sdr: bool = False
    """Convert HDR (PQ, HLG) to 8-bit SDR before upscaling."""
    audio: str = "copy"
    """`copy`: copy the audio, encode only what the output cannot hold; `encode`; `none`."""
    start_frame: int = 0
    """Number of the input's first frame to process."""
    max_frames: int | None = None
    """Number of frames to process; None: to the end."""
    overwrite: bool = False
    fps: Fraction | None = None
    """Frame rate of numbered pictures or a folder of pictures, for a video; None: 25."""
    container: str | None = None
    """Container of an output that is a pipe: mkv (None), nut, y4m, ts, webm or flv."""
    deinterlace: str = "auto"
    """One of `vsr.media.filters.DEINTERLACE`."""
    detelecine: bool = False
    """Remove hard telecine: restore film of 24 frames per second from video of 30."""
    filters: str | None = None
    """FFmpeg filters applied before the network, as in `ffmpeg -vf`."""
    memory: int | None = None
    """Memory limit for pictures, in bytes; None: all free memory."""
    variant: str = BEST
    """Variant of an HLS playlist to read: `best` (the largest), `WxH`, or a number from 1."""
    segment: float | None = None
    """Duration of a segment, in seconds of video; a resumed run keeps finished segments. 0: no
    segments; None: 20, for a minute of video or more."""
    jobs: int | None = 1
    """Number of parallel worker processes on each device; None: the fastest number."""
    cluster: str | None = None
    """`auto` or `ray://HOST:PORT`: a Ray cluster whose nodes make the segments."""
    restart: bool = False
    """Discard the work saved by an earlier run."""
    report: Path | None = None
    """Path of the latency ledger: .json, .csv or .html."""
    receipt: Path | None = None
    """Path of the receipt for `vsr verify`; None: next to the report, if there is one."""

    def __post_init__(self) -> None:
        check_settings(self, _MINIMUM)
        if self.segment is not None and not 0 <= self.segment < math.inf:
            raise UsageError(
                f"segment is {self.segment}: it must be 0 (no segments) or a number of seconds"
            )
        if self.fps is not None and self.fps <= 0:
            raise UsageError(f"fps is {self.fps}: it must be more than 0")
        if self.audio not in AUDIO_MODES:
            raise UsageError(f"audio is '{self.audio}': it must be one of {', '.join(AUDIO_MODES)}")
        if self.speed not in SPEEDS:
            raise UsageError(f"speed is '{self.speed}': it must be one of {', '.join(SPEEDS)}")
        VariantChoice.parse(self.variant)
        _ = self.filtering  # raises UsageError

    @property
    def filtering(self) -> Filtering:
        """Filters that are applied to pictures before the network."""
        return Filtering(
            deinterlace=self.deinterlace, detelecine=self.detelecine, filters=self.filters
        )


class RunOptions(EncoderOptions, total=False):
    """The settings as flat keywords, including those of the encoder."""

    model: str | None
    look: str | None
    speed: str
    scale: int | None
    precision: str
    backend: str
    device: str | None
    batch: int
    passes: int
    flicker_filter: bool | None
    sdr: bool
    audio: str
    start_frame: int
    max_frames: int | None
    overwrite: bool
    fps: Fraction | None
    container: str | None
    deinterlace: str
    detelecine: bool
    filters: str | None
    memory: int | None
    variant: str
    segment: float | None
    jobs: int | None
    cluster: str | None
    restart: bool
    report: str | PathLike[str] | None
    receipt: str | PathLike[str] | None


def with_options(settings: RunSettings, **options: Unpack[RunOptions]) -> RunSettings:
    """Return the settings with some options changed.

    Raises UsageError for unknown options, values of a wrong type and numbers out of range.
    """
    check_type("settings", settings, RunSettings)
    return with_keywords(settings, options, {"encoder": {**ENCODER, "passes": "passes"}})
