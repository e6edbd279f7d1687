"""What a relay is asked to do, and what can be seen to be wrong with it at once."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vsr.encoder import EncoderSettings
from vsr.errors import UsageError
from vsr.live.ingest import IngestSettings
from vsr.live.push import FORMATS
from vsr.live.rolling import RollingSettings
from vsr.location import is_url
from vsr.models import DEFAULT
from vsr.sink import container_format


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


class Named(logging.LoggerAdapter[logging.Logger]):
    """Lines that say which relay of several they are about."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        """Put the name before a line."""
        name = (self.extra or {}).get("name")
        return (f"{name}: {msg}" if name else msg), kwargs


def check_output(url: str) -> None:
    """Raises UsageError for what cannot be published to."""
    scheme = url.partition("://")[0].lower()
    if not is_url(url):
        container_format(Path(url))
    elif scheme not in FORMATS:
        known = ", ".join(f"{name}://" for name in FORMATS)
        raise UsageError(f"cannot publish to {scheme}://; use one of {known} or a file")
