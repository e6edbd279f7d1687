"""Settings of a relay: one `RelaySettings`, from options, TOML or Python."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Final, Unpack

from vsr.errors import UsageError
from vsr.media.bitrate import SERVICES
from vsr.media.encoder import EncoderSettings
from vsr.media.given import check_given, check_settings
from vsr.media.keywords import ENCODER, EncoderOptions, with_keywords
from vsr.media.variants import BEST
from vsr.report.rolling import RollingSettings


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """How the source is read and reconnected; times in seconds."""

    stream_timeout: float = 5.0
    """Silence after which a connected source counts as lost."""
    retry_delay: float = 0.5
    retry_max: int = 0
    """Failed attempts in a row after which it is given up; 0: never."""
    realtime: bool = False
    """Whether a URL is read at its own pace too; files and HLS always are."""
    tls_verify: bool = True
    """Whether an rtmps:// server's certificate and name must be right."""
    listen: bool = False
    """Whether the URL is where a publisher is waited for, however long it takes."""
    tls_cert: Path | None = None
    """Certificate (PEM) for publishers of rtmps://."""
    tls_key: Path | None = None
    """Its key (PEM); None: it is in the same file."""
    deinterlace: str = "auto"
    """One of `vsr.media.filters.DEINTERLACE`; `auto` treats pictures that have combs."""
    variant: str = BEST
    """Which variant of a playlist is read: `best`, `WxH`, or a number from 1."""
    loop: bool = False
    """Whether a file is read again from its start at its end."""

    def __post_init__(self) -> None:
        check_settings(self, {"stream_timeout": 0.1, "retry_delay": 0.01, "retry_max": 0})

    @property
    def next(self) -> str:
        """Describes what happens after a source is lost."""
        return "waiting for a publisher" if self.listen else "trying again"


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """Limits of an output's queue, and its timeouts."""

    queue_s: float = 4.0
    """Stream time that may wait for a slow server."""
    queue_bytes: int = 16 << 20
    fresh_s: float = 1.0
    """Stream time, from a key frame on, that a session may begin with; later ones see all later."""
    stall_s: float = 5.0
    """For an answer, or for a packet to be taken."""
    retry_s: float = 0.5
    """Before the first new try; doubled each time."""
    retry_max_s: float = 3.0
    """A server that returns is found within that and a connection's time."""
    container: str | None = None
    """Of stdout, by its usual ending; None: MPEG-TS."""
    enhanced_rtmp: bool = False
    """Whether RTMP servers are sent HEVC, AV1 or VP9 without being asked if they take it."""
    tls_verify: bool = True
    """Whether a server's certificate and name must be right before anything is sent to it."""
    options: Mapping[str, str] = field(default_factory=dict)
    """More options of FFmpeg's muxer, passed as they are."""


@dataclass(frozen=True, kw_only=True)
class RelaySettings:
    """Settings of `vsr relay`; every field is one of its options. Times are seconds.

    Raises UsageError for values of another type and numbers that are out of range.
    """

    model: str | None = None
    """None: the best shipped network that is fast enough here."""
    scale: int | None = None
    precision: str = "auto"
    backend: str = "auto"
    device: str | None = None
    ladder: tuple[str, ...] = ()
    """Lighter networks to go down to, best first; none: what is built in."""
    max_latency: float = 0.5
    """From the arrival of a picture's packet to that of its own."""
    slate_after: float = 5.0
    """Without a source for so long, the slate is shown."""
    slate: Path | None = None
    """A picture; None: the last one darkened."""
    name: str = ""
    """Prefix of its lines in the log; empty where there is one relay."""
    status: str | None = None
    """HOST:PORT of its status page; None: it has none."""
    health_after: float = 5.0
    """Seconds without a picture or sound of the source after which its health check fails."""
    ingest: IngestSettings = field(default_factory=IngestSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    stream_preset: str | None = None
    """A key of `vsr.media.bitrate.SERVICES`; None: a bitrate that all of them take."""
    rolling: RollingSettings = field(default_factory=RollingSettings)
    """`rolling.report` is where the ledger goes at the end."""

    def __post_init__(self) -> None:
        check_settings(
            self, {"scale": 2, "max_latency": 0.05, "slate_after": 0, "health_after": 0.5}
        )
        if self.stream_preset not in (None, *SERVICES):
            known = ", ".join(SERVICES)
            raise UsageError(f"stream_preset is '{self.stream_preset}': it must be one of {known}")


class RelayOptions(EncoderOptions, total=False):
    """The settings as flat keywords; those of source, encoder and outputs among them."""

    model: str | None
    scale: int | None
    precision: str
    backend: str
    device: str | None
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


_INNER: Final[Mapping[str, Mapping[str, str]]] = {
    "ingest": {one.name: one.name for one in fields(IngestSettings)},
    "output": {name: name for name in ("container", "enhanced_rtmp", "tls_verify")},
    "encoder": ENCODER,
    "rolling": {"report": "report"},
}
"""Field of `RelaySettings` -> keyword -> field there."""


def with_options(settings: RelaySettings, **options: Unpack[RelayOptions]) -> RelaySettings:
    """The settings with some options changed.

    Raises UsageError for unknown options, values of another type and numbers out of range.
    """
    check_given("settings", settings, RelaySettings)
    return with_keywords(settings, options, _INNER)
