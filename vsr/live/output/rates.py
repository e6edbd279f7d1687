"""Chooses the bitrate of a live stream: as configured, or the default for size and frame rate."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Final

from vsr.errors import UsageError
from vsr.media.bitrate import SERVICES, Service, format_bitrate, live_bitrate
from vsr.media.encoder import EncoderSettings
from vsr.media.location import is_url

log = logging.getLogger(__name__)

_BUFFER_S: Final = 1.0
"""Size of a live encoder's rate buffer, in seconds: a larger one adds delay on a slow link."""


def service_of(preset: str | None) -> Service | None:
    """Return the bitrates published by a streaming service. Raises UsageError if unknown."""
    if preset is None:
        return None
    if preset not in SERVICES:
        raise UsageError(f"unknown --stream-preset '{preset}'; known: {', '.join(SERVICES)}")
    return SERVICES[preset]


def check_rate(settings: EncoderSettings, preset: str | None) -> None:
    """Raise UsageError for an unknown service, or a quality in place of the service's bitrate.

    A quality with `maxrate` is allowed: the service's maximum is checked against that.
    """
    is_limited = settings.bitrate is not None or settings.maxrate is not None
    if service_of(preset) is None or is_limited:
        return
    if settings.crf is not None or settings.has_rate:
        how = "--crf" if settings.crf is not None else "the rate option of -e"
        raise UsageError(
            f"{how} and --stream-preset exclude each other, as {preset} requires a bitrate: "
            f"leave out {how}, or limit it by --maxrate"
        )


def live_settings(
    settings: EncoderSettings,
    outputs: Iterable[str],
    size: tuple[int, int],
    rate: Fraction,
    preset: str | None = None,
) -> EncoderSettings:
    """Return the settings with the bitrate and limits of a live stream.

    Keep constant quality if it is configured, or if all outputs are recordings. Raises UsageError.
    """
    service = service_of(preset)
    is_sent = service is not None or any(map(is_url, outputs))
    if is_sent and settings.crf is None and not settings.has_rate:
        settings = replace(settings, bitrate=live_bitrate(size, rate, service))
    if settings.bitrate is not None and settings.maxrate is None:
        settings = replace(settings, maxrate=settings.bitrate)
        if settings.bufsize is None:
            settings = replace(settings, bufsize=round(_BUFFER_S * (settings.bitrate or 0)))
    peak = max(settings.bitrate or 0, settings.maxrate or 0)
    if service is not None and peak > service.max_bitrate:
        log.warning(
            "%s exceeds the maximum bitrate of %s (%s)",
            format_bitrate(peak),
            preset,
            format_bitrate(service.max_bitrate),
        )
    return settings
