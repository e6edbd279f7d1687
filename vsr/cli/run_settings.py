"""Makes the settings of a run of the options of `vsr run`."""

from collections.abc import Mapping
from typing import Any, Final

from vsr.files.batch import Selection
from vsr.files.settings import RunSettings
from vsr.media.encoder import EncoderSettings

SELECTION: Final = ("recursive", "pattern", "skip_existing", "watch")
"""Parameters of the command that choose files, and are no settings."""
_ENCODER: Final = (
    "codec", "pixel_format", "crf", "preset", "options", "bitrate", "maxrate", "bufsize", "passes",
)  # fmt: skip


def settings_of(options: Mapping[str, Any]) -> RunSettings:
    """The settings that the command's parameters say. Raises UsageError."""
    encoder = EncoderSettings(**{name: options[name] for name in _ENCODER})
    others = {name: value for name, value in options.items() if name not in (*_ENCODER, *SELECTION)}
    return RunSettings(encoder=encoder, **others)


def selection_of(options: Mapping[str, Any]) -> Selection:
    """Which files of folders the command's parameters choose."""
    return Selection(**{name: options[name] for name in SELECTION})
