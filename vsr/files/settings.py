"""The settings of `vsr run`: one frozen dataclass, from options or from Python."""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Final, Unpack

from vsr.errors import UsageError
from vsr.media.carriage import AUDIO
from vsr.media.encoder import EncoderSettings
from vsr.media.filters import Filtering
from vsr.media.given import check_given, check_settings
from vsr.media.keywords import ENCODER, EncoderOptions, with_keywords
from vsr.media.variants import BEST, Wanted
from vsr.plan.choice import SPEEDS

_LEAST: Final = {"scale": 1, "batch": 1, "start_frame": 0, "max_frames": 1, "memory": 1, "jobs": 1}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of one run; every field is an option of `vsr run`.

    Raises UsageError for values of another type and numbers that are out of range.
    """

    model: str | None = None
    """None: the best for the file that is fast enough here; see `speed`."""
    speed: str = "balanced"
    """A key of `vsr.plan.choice.SPEEDS`: how fast the network is to be that is taken without
    `model`."""
    look: str | None = None
    """A key of `vsr.inference.models.LOOKS`: weights for that look, of `model` if it is named."""
    scale: int | None = None
    """None: 2, or the scale of the .onnx file."""
    precision: str = "auto"
    """A key of `vsr.network.precision.PRECISIONS`, or what is best on the device."""
    backend: str = "auto"
    device: str | None = None
    """What the backend calls it: a name, or a GPU's number; several with commas between them."""
    batch: int = 1
    """Frames per inference on a GPU; more than one pays for small frames."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    sdr: bool = False
    """Convert HDR (PQ, HLG) to 8-bit SDR before it is enlarged."""
    audio: str = "copy"
    """`copy`: sound as it is, encoded only where the output cannot hold that; `encode`; `none`."""
    start_frame: int = 0
    """Number of the input's first frame to process."""
    max_frames: int | None = None
    """None: to the end."""
    overwrite: bool = False
    fps: Fraction | None = None
    """Pictures a second of numbered pictures or a folder that become a video; None: 25."""
    container: str | None = None
    """Of an output that is a pipe: mkv (None), nut, y4m, ts, webm or flv."""
    deinterlace: str = "auto"
    """One of `vsr.media.filters.DEINTERLACE`."""
    detelecine: bool = False
    """Whether film of 24 pictures a second is taken out of 30."""
    filters: str | None = None
    """Filters of FFmpeg before the network, as in `ffmpeg -vf`."""
    memory: int | None = None
    """Bytes that pictures may take; None: all memory that is free."""
    variant: str = BEST
    """Which variant of an HLS playlist is read: `best` (the largest), `WxH`, or a number from 1."""
    segment: float | None = None
    """Seconds of video after which what is done is kept for a run that goes on; 0: never; None: 20,
    for a minute and more."""
    jobs: int | None = 1
    """Processes that make segments at a time, on each device; None: as many as are quickest."""
    cluster: str | None = None
    """`auto` or `ray://HOST:PORT`: a Ray cluster whose computers make the segments."""
    restart: bool = False
    """Forget what an earlier run has done."""
    report: Path | None = None
    """Where to write the latency ledger: .json, .csv or .html."""
    receipt: Path | None = None
    """Where to write what the output can be checked by; None: beside the report, if there is one.
    """

    def __post_init__(self) -> None:
        check_settings(self, _LEAST)
        if self.segment is not None and not 0 <= self.segment < math.inf:
            raise UsageError(f"segment is {self.segment}: it must be 0 (none) or some seconds")
        if self.fps is not None and self.fps <= 0:
            raise UsageError(f"fps is {self.fps}: it must be more than 0")
        if self.audio not in AUDIO:
            raise UsageError(f"audio is '{self.audio}': it must be one of {', '.join(AUDIO)}")
        if self.speed not in SPEEDS:
            raise UsageError(f"speed is '{self.speed}': it must be one of {', '.join(SPEEDS)}")
        Wanted.parse(self.variant)
        _ = self.filtering  # raises UsageError

    @property
    def filtering(self) -> Filtering:
        """What is done with pictures before the network."""
        return Filtering(
            deinterlace=self.deinterlace, detelecine=self.detelecine, filters=self.filters
        )


class RunOptions(EncoderOptions, total=False):
    """The settings as flat keywords; those of the encoder among them."""

    model: str | None
    look: str | None
    speed: str
    scale: int | None
    precision: str
    backend: str
    device: str | None
    batch: int
    passes: int
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
    """The settings with some options changed.

    Raises UsageError for unknown options, values of another type and numbers out of range.
    """
    check_given("settings", settings, RunSettings)
    return with_keywords(settings, options, {"encoder": {**ENCODER, "passes": "passes"}})
