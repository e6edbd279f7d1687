"""Real-time super-resolution for video: `upscale()` is `vsr run`, `relay()` `vsr relay`."""

from vsr.colour import Colour
from vsr.errors import (
    BackendError,
    InputError,
    ModelError,
    OutputError,
    UsageError,
    VsrError,
)
from vsr.frame import Frame
from vsr.job import Progress, upscale
from vsr.live.fleet import relay
from vsr.live.ingest import IngestSettings
from vsr.live.settings import RelaySettings
from vsr.report import Report
from vsr.version import __version__ as __version__

__all__ = [
    "BackendError",
    "Colour",
    "Frame",
    "IngestSettings",
    "InputError",
    "ModelError",
    "OutputError",
    "Progress",
    "RelaySettings",
    "Report",
    "UsageError",
    "VsrError",
    "relay",
    "upscale",
]
