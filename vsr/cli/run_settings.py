"""Creates the settings of a run from the options of `vsr run`."""

from collections.abc import Mapping
from typing import Any, Final

from vsr.files.batch import Selection
from vsr.files.settings import RunSettings
from vsr.media.encoder import EncoderSettings

SELECTION: Final = ("recursive", "pattern", "skip_existing", "watch")
"""Command parameters that select files and are not settings."""
_ENCODER: Final = (
    "codec", "pixel_format", "crf", "preset", "options", "bitrate", "maxrate", "bufsize", "passes",
)  # fmt: skip


def settings_of(options: Mapping[str, Any]) -> RunSettings:
    """Return the settings from the command's parameters. Raises UsageError."""
    encoder = EncoderSettings(**{name: options[name] for name in _ENCODER})
    others = {name: value for name, value in options.items() if name not in (*_ENCODER, *SELECTION)}
    return RunSettings(encoder=encoder, **others)


def selection_of(options: Mapping[str, Any]) -> Selection:
    """Return the file selection from the command's parameters."""
    return Selection(**{name: options[name] for name in SELECTION})
