"""What a relay is asked to do, and what can be seen to be wrong with it at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av

from vsr.errors import OutputError, UsageError
from vsr.inference.models import DEFAULT
from vsr.live.input.ingest import IngestSettings
from vsr.live.output.plan import muxer_for
from vsr.media.encoder import EncoderSettings
from vsr.media.location import is_url, local
from vsr.report.rolling import RollingSettings


@dataclass(frozen=True, kw_only=True)
class RelaySettings:
    """What to do; every field is an option of `vsr relay`. Times are seconds."""

    model: str = DEFAULT
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
    """What its lines in the log begin with; empty where there is one relay."""
    ingest: IngestSettings = field(default_factory=IngestSettings)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    rolling: RollingSettings = field(default_factory=RollingSettings)


def check_urls(input_: str, outputs: Sequence[str]) -> None:
    """Raises UsageError or OutputError for what cannot be relayed or published to."""
    if not outputs:
        raise UsageError("give at least one OUTPUT_URL")
    if len({input_, *outputs}) <= len(outputs):
        raise UsageError("input and outputs must all differ: a relay would feed on itself")
    for url in outputs:
        muxer_for(url)
        _check_protocol(url)
        folder = Path(local(url)).parent
        if not is_url(url) and not folder.is_dir():
            raise OutputError(f"the output folder does not exist: {folder} (create it first)")


def check_ingest(input_: str, settings: IngestSettings) -> None:
    """Raises UsageError for what cannot be read, and for settings that would do nothing."""
    if not settings.listen:
        _check_protocol(input_)
    if settings.loop and (is_url(input_) or settings.listen):
        raise UsageError("--loop reads a file again; a stream is always taken up again")
    if settings.listen and settings.retry_max:
        raise UsageError("--listen waits for publishers without end: leave out --retry-max")


def _check_protocol(url: str) -> None:
    """Raises UsageError where FFmpeg was built without what a URL needs.

    Otherwise it would be tried again for ever. FFmpeg looks for the protocol before it asks whether
    it may use it; that it may not keeps the network out of this.
    """
    if not is_url(url):
        return
    try:
        av.open(url, "r", options={"protocol_whitelist": "none"}).close()
    except av.error.ProtocolNotFoundError:
        scheme = url.partition("://")[0]
        raise UsageError(
            f"this FFmpeg has no {scheme}: use another protocol, or a PyAV built on an FFmpeg "
            f"that has it"
        ) from None  # FFmpeg's words hold the whole URL
    except (av.error.FFmpegError, OSError, ValueError):
        return
