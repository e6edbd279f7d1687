"""Settings of a relay: one `RelaySettings`, from options, TOML or Python."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Final, Unpack

from vsr.errors import UsageError
from vsr.media.bitrate import SERVICES
from vsr.media.encoder import EncoderSettings
from vsr.media.keywords import ENCODER, EncoderOptions, with_keywords
from vsr.media.validation import check_settings, check_type
from vsr.media.variants import BEST
from vsr.report.rolling import RollingSettings


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """Settings for reading and reconnecting the source; times in seconds."""

    stream_timeout: float = 5.0
    """Time without data after which a connected source counts as lost."""
    retry_delay: float = 0.5
    retry_max: int = 0
    """Number of consecutive failed attempts to read the source after which retrying stops; 0: no
    limit. It does not apply to outputs."""
    realtime: bool = False
    """Whether a URL is paced in real time by its timestamps; files and HLS always are."""
    tls_verify: bool = True
    """Whether an rtmps:// server's certificate and host name are verified."""
    listen: bool = False
    """Whether to listen at the URL for a publisher, without a time limit."""
    tls_cert: Path | None = None
    """Certificate (PEM) for publishers of rtmps://."""
    tls_key: Path | None = None
    """Private key (PEM) of `tls_cert`; None: it is in the same file."""
    deinterlace: str = "auto"
    """One of `vsr.media.filters.DEINTERLACE`; `auto` processes only frames with combing."""
    variant: str = BEST
    """Variant of a playlist to read: `best`, `WxH`, or a number from 1."""
    loop: bool = False
    """Whether a file restarts from the beginning when it ends."""

    def __post_init__(self) -> None:
        check_settings(self, {"stream_timeout": 0.1, "retry_delay": 0.01, "retry_max": 0})

    @property
    def after_loss(self) -> str:
        """What the relay does after it loses the source, for messages."""
        return "waiting for a publisher" if self.listen else "retrying"


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """Queue limits and timeouts of an output; times in seconds."""

    queue_s: float = 4.0
    """Longest stream time that is queued for a slow server."""
    queue_bytes: int = 16 << 20
    start_backlog_s: float = 1.0
    """Longest stream time, from a key frame, that a session may begin with; it adds latency."""
    io_timeout_s: float = 5.0
    """Timeout for a server's answer, or for sending a packet."""
    retry_s: float = 0.5
    """Pause before the first retry; doubled each time."""
    retry_max_s: float = 3.0
    """Longest pause between retries, and so the delay until a returning server is found."""
    refused_max_s: float = 60.0
    """Longest pause between retries while the server ends every session at once; a sixth of it if
    the server accepted the stream before."""
    container: str | None = None
    """Container for stdout, by its usual file extension; None: MPEG-TS."""
    enhanced_rtmp: bool = False
    """Whether HEVC, AV1 or VP9 is sent to RTMP servers without first asking if they support it."""
    tls_verify: bool = True
    """Whether a server's certificate and host name are verified before anything is sent to it."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Additional options for FFmpeg's muxer, passed unchanged."""


@dataclass(frozen=True, kw_only=True)
class RelaySettings:
    """Settings of `vsr relay`; every field is one of its options. Times are seconds.

    Raises UsageError for values of the wrong type and numbers out of range.
    """

    model: str | None = None
    """Network; None: the best shipped one that is fast enough on this machine."""
    look: str | None = None
    """A key of `vsr.inference.models.LOOKS`: with `model`, that model if it has the look, else its
    network's weights of that look. None: that of `model`, else faithful."""
    scale: int | None = None
    precision: str = "auto"
    backend: str = "auto"
    device: str | None = None
    flicker_filter: bool | None = None
    """Whether the luma is averaged over time where the picture stands still; see
    `vsr.inference.flicker`. None: for networks with a sharp look."""
    ladder: tuple[str, ...] = ()
    """Lighter networks to fall back to, best first, each no heavier than the one before it; empty:
    the built-in ladder."""
    max_latency: float = 0.5
    """Longest time from the arrival of a frame's packet to the output of its upscaled packet."""
    slate_after: float = 5.0
    """Time without a source after which the slate is shown."""
    slate: Path | None = None
    """Image file; None: the darkened last frame."""
    name: str = ""
    """Prefix of the relay's log lines; empty if it is the only relay."""
    status: str | None = None
    """HOST:PORT of the status page; None: no status page."""
    health_after: float = 5.0
    """Time without new video, or without new audio, after which the health check fails."""
    ingest: IngestSettings = field(default_factory=IngestSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    stream_preset: str | None = None
    """A key of `vsr.media.bitrate.SERVICES`; None: a bitrate that all of them accept."""
    rolling: RollingSettings = field(default_factory=RollingSettings)
    """`rolling.report` is the path of the report, with the ledger, that is written at the end."""

    def __post_init__(self) -> None:
        check_settings(
            self, {"scale": 2, "max_latency": 0.05, "slate_after": 0, "health_after": 0.5}
        )
        if self.stream_preset not in (None, *SERVICES):
            known = ", ".join(SERVICES)
            raise UsageError(f"stream_preset is '{self.stream_preset}': it must be one of {known}")


class RelayOptions(EncoderOptions, total=False):
    """The settings as flat keywords, including those of source, encoder and outputs."""

    model: str | None
    look: str | None
    scale: int | None
    precision: str
    backend: str
    device: str | None
    flicker_filter: bool | None
    ladder: tuple[str, ...]
    max_latency: float
    slate_after: float
    slate: str | PathLike[str] | None
    status: str | None
    health_after: float
    stream_timeout: float
    retry_delay: float
    retry_max: int
    realtime: bool
    listen: bool
    loop: bool
    deinterlace: str
    variant: str
    tls_verify: bool
    tls_cert: str | PathLike[str] | None
    tls_key: str | PathLike[str] | None
    stream_preset: str | None
    container: str | None
    enhanced_rtmp: bool
    report: str | PathLike[str] | None


_NESTED: Final[Mapping[str, Mapping[str, str]]] = {
    "ingest": {one.name: one.name for one in fields(IngestSettings)},
    "output": {name: name for name in ("container", "enhanced_rtmp", "tls_verify")},
    "encoder": ENCODER,
    "rolling": {"report": "report"},
}
"""Maps a field of `RelaySettings` to a map from keyword to the nested field."""


def with_options(settings: RelaySettings, **options: Unpack[RelayOptions]) -> RelaySettings:
    """Return the settings with some options changed.

    Raises UsageError for unknown options, values of the wrong type and numbers out of range.
    """
    check_type("settings", settings, RelaySettings)
    return with_keywords(settings, options, _NESTED)
