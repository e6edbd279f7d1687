"""Address at which `--listen` waits for a publisher, and the publisher that it accepts."""

import hmac
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from vsr.errors import UsageError
from vsr.live.rtmp.chunks import PORTS
from vsr.media.location import url_for_messages

_LOOPBACK: Final = "127.0.0.1"
_EXAMPLE: Final = "rtmp://127.0.0.1:1935/live/KEY"


@dataclass(frozen=True)
class ListenAddress:
    """Address to listen at, with the application and key to expect."""

    host: str
    port: int
    path: str
    """Application and key, as in the URL."""
    name: str
    """The URL without its key, for messages."""
    secure: bool
    """Whether publishers speak TLS (rtmps://)."""

    @classmethod
    def parse(cls, url: str) -> "ListenAddress":
        """Parse a URL. Raises UsageError."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or _LOOPBACK, parts.port or PORTS.get(parts.scheme, 0)
        except ValueError:
            raise UsageError(
                f"{url_for_messages(url)} is not a valid address to listen at, such as {_EXAMPLE}"
            ) from None
        if parts.scheme not in PORTS:
            raise UsageError(f"--listen supports rtmp:// and rtmps:// only, such as {_EXAMPLE}")
        path = parts.path.strip("/") + (f"?{parts.query}" if parts.query else "")
        application, _, key = path.partition("?")[0].rpartition("/")
        if not application or not key:
            raise UsageError(f"--listen needs an address with an application and a key: {_EXAMPLE}")
        if "@" in parts.netloc:
            raise UsageError(
                "--listen does not support user and password: the stream key is the secret"
            )
        return cls(host, port, path, url_for_messages(url), parts.scheme == "rtmps")

    def may_match(self, application: str) -> bool:
        """Return whether an application name may match; the rest of `path` is then the key."""
        return self.path.startswith(application.strip("/") + "/")

    def matches(self, application: str, key: str) -> bool:
        """Return whether application and key match, compared in constant time."""
        given = f"{application.strip('/')}/{key}"
        here, there = (text.encode("utf-8", "surrogateescape") for text in (self.path, given))
        return hmac.compare_digest(here, there)
