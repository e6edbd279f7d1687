"""Real-time super-resolution for video.

`upscale` does what `vsr run` does, `relay` what `vsr relay` does; `frames`, `upscale_frames`,
`Writer` and `load_engine` are their building blocks. Names are imported on first use.
"""

from typing import TYPE_CHECKING

from vsr.version import __version__ as __version__

if TYPE_CHECKING:
    from vsr.errors import (
        BackendError,
        InputError,
        ModelError,
        OutputError,
        UsageError,
        VsrError,
    )
    from vsr.files.frames import Reader, Writer, frames, upscale_frames
    from vsr.files.progress import Progress
    from vsr.files.settings import RunSettings
    from vsr.files.upscale import upscale
    from vsr.inference.pictures import PictureEngine, load_engine
    from vsr.live.python import relay
    from vsr.live.settings import IngestSettings, RelaySettings
    from vsr.live.status.snapshot import Snapshot
    from vsr.media.colour import Colour
    from vsr.media.encoder import EncoderSettings
    from vsr.media.frame import Frame
    from vsr.media.plane_format import PlaneFormat
    from vsr.report.report import Report

__all__ = [
    "BackendError",
    "Colour",
    "EncoderSettings",
    "Frame",
    "IngestSettings",
    "InputError",
    "ModelError",
    "OutputError",
    "PictureEngine",
    "PlaneFormat",
    "Progress",
    "Reader",
    "RelaySettings",
    "Report",
    "RunSettings",
    "Snapshot",
    "UsageError",
    "VsrError",
    "Writer",
    "frames",
    "load_engine",
    "relay",
    "upscale",
    "upscale_frames",
]

_HOME = {
    "vsr.errors": (
        "BackendError", "InputError", "ModelError", "OutputError", "UsageError", "VsrError",
    ),
    "vsr.files.frames": ("Reader", "Writer", "frames", "upscale_frames"),
    "vsr.files.progress": ("Progress",),
    "vsr.files.settings": ("RunSettings",),
    "vsr.files.upscale": ("upscale",),
    "vsr.inference.pictures": ("PictureEngine", "load_engine"),
    "vsr.live.python": ("relay",),
    "vsr.live.settings": ("IngestSettings", "RelaySettings"),
    "vsr.live.status.snapshot": ("Snapshot",),
    "vsr.media.colour": ("Colour",),
    "vsr.media.encoder": ("EncoderSettings",),
    "vsr.media.frame": ("Frame",),
    "vsr.media.plane_format": ("PlaneFormat",),
    "vsr.report.report": ("Report",),
}  # fmt: skip
"""Module -> public names that it defines."""


def __getattr__(name: str) -> object:
    """Import a public name's module when the name is first used."""
    from importlib import import_module

    for module, names in _HOME.items():
        if name in names:
            value: object = getattr(import_module(module), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'vsr' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
