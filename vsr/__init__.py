"""Real-time super-resolution for video: `upscale()` is `vsr run`, `relay()` `vsr relay`."""

from vsr.errors import (
    BackendError,
    InputError,
    ModelError,
    OutputError,
    UsageError,
    VsrError,
)
from vsr.files.job import Progress, upscale
from vsr.live.input.ingest import IngestSettings
from vsr.live.settings import RelaySettings
from vsr.live.supervisor import relay
from vsr.media.colour import Colour
from vsr.media.frame import Frame
from vsr.report.report import Report
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
