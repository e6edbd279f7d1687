"""Loads the certificate that `--listen` presents to publishers of rtmps://."""

import logging
import ssl
from pathlib import Path
from typing import Final

from vsr.errors import UsageError, reason

log = logging.getLogger(__name__)

_PROTECTED: Final = "the key has a password: remove it (openssl pkey -in ...)"


class Certificate:
    """A certificate and its key (PEM), reloaded when the files change: certificates are renewed.

    Not thread-safe.
    """

    def __init__(self, certificate: Path, key: Path | None = None) -> None:
        """Without `key`, the certificate's file must contain it. Raises UsageError."""
        self._files = [path for path in (certificate, key) if path is not None]
        self._changed: list[int] = []
        self._changed = self._times()
        try:
            self._context = self._read()
        except (OSError, ValueError) as exc:
            names = " and ".join(map(str, self._files))
            raise UsageError(f"cannot use {names} for TLS: {_explain(exc)}") from exc

    def context(self) -> ssl.SSLContext:
        """Return the context for the next connection."""
        times = self._times()
        if times != self._changed:
            self._changed = times
            try:
                self._context = self._read()
                log.info("reloaded the certificate %s", self._files[0])
            except (OSError, ValueError) as exc:
                log.warning(
                    "%s has changed and cannot be used (%s): the previous certificate stays in use",
                    self._files[0], _explain(exc),
                )  # fmt: skip
        return self._context

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        key = self._files[1] if len(self._files) > 1 else None
        context.load_cert_chain(self._files[0], key, _no_password)
        return context

    def _times(self) -> list[int]:
        try:
            return [path.stat().st_mtime_ns for path in self._files]
        except OSError:  # being replaced, or deleted: keep the one in use
            return self._changed


def _no_password() -> str:
    """Raise ValueError, because OpenSSL would prompt for a password on the terminal."""
    raise ValueError(_PROTECTED)


def _explain(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLError):
        if exc.reason == "KEY_VALUES_MISMATCH":
            return "the key does not match the certificate"
        if exc.reason in (None, "NO_START_LINE", "PEM_LIB", "BAD_BASE64_DECODE"):
            return "no certificate and key in PEM format (--tls-key names the key)"
        return exc.reason.lower().replace("_", " ")
    return str(exc) if isinstance(exc, ValueError) else reason(exc)
