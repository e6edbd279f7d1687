"""Real-time super-resolution for video: `upscale()` does what `vsr run` does."""

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
from vsr.report import Report
from vsr.version import __version__ as __version__

__all__ = [
    "BackendError",
    "Colour",
    "Frame",
    "InputError",
    "ModelError",
    "OutputError",
    "Progress",
    "Report",
    "UsageError",
    "VsrError",
    "upscale",
]
