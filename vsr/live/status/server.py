"""Serves the pages of `vsr relay --status HOST:PORT`: status, JSON, metrics, health, images.

The server only reads from the relay and computes responses on request; `http` limits requests.
"""

import json
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

from vsr.errors import OutputError, UsageError, reason
from vsr.live.status.board import StatusBoard
from vsr.live.status.health import RUNNING, health, warnings_of
from vsr.live.status.http import Response, WebServer
from vsr.live.status.jpeg import JpegCache, Which
from vsr.live.status.metrics import Metrics
from vsr.live.status.page import POLICY, page
from vsr.report.report import versions

log = logging.getLogger(__name__)

_LOOPBACK: Final = "127.0.0.1"
_POLL_S: Final = 0.1
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Address:
    """Host and port to listen on."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Parse `HOST:PORT`, `[IPv6]:PORT`, or a port on loopback. Raises UsageError."""
        try:
            parts = urlsplit(f"//{text}" if ":" in text else f"//:{text}")
            host, port = parts.hostname or _LOOPBACK, parts.port
        except ValueError:
            port = None
        if port is None or parts.netloc != parts.geturl()[2:] or "@" in text:
            raise UsageError(f"--status is HOST:PORT, such as {_LOOPBACK}:8090, not '{text}'")
        return cls(host, port)

    def resolve(self) -> tuple[socket.AddressFamily, Any]:
        """Return address family and address for a socket. Raises UsageError."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise UsageError(f"--status: no such host: {self.host} ({reason(exc)})") from exc
        return found[0][0], found[0][4]


class StatusServer:
    """Listens from construction on and answers between `start` and `close`, or as a context
    manager. Not thread-safe.
    """

    def __init__(self, address: str, board: StatusBoard) -> None:
        """Raises UsageError for an invalid address, OutputError for one that cannot be bound."""
        parsed = Address.parse(address)
        family, socket_address = parsed.resolve()
        try:
            self._server = WebServer(
                family, socket_address, parsed.host, _Routes(board).respond, _HEADERS
            )
        except OSError as exc:
            raise OutputError(
                f"cannot serve the status page at {address}: {reason(exc)}; choose another --status"
            ) from exc
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="status", daemon=True
        )

    @property
    def url(self) -> str:
        """URL of the status page."""
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}/" if ":" in str(host) else f"http://{host!s}:{port}/"

    def start(self) -> None:
        """Begin to answer requests; return immediately."""
        self._thread.start()
        log.info("status page: %s", self.url)

    def close(self) -> None:
        """Stop answering and free the port, within about a tenth of a second."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()
        self._server.cut_older_than(0.0)

    def __enter__(self) -> "StatusServer":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Routes:
    """Maps paths to responses. Thread-safe."""

    def __init__(self, board: StatusBoard) -> None:
        self._board = board
        self._metrics, self._jpegs = Metrics(board), JpegCache(board)
        self._versions = versions()
        self._routes: dict[str, Callable[[str], Response]] = {
            "/": self._page,
            "/status.json": self._json,
            "/metrics": self._metrics_text,
            "/healthz": self._health,
            "/before.jpg": lambda _accept: self._image("before"),
            "/after.jpg": lambda _accept: self._image("after"),
        }

    def respond(self, path: str, accept: str) -> Response:
        """Return the response for a path (without query) and an `Accept` header."""
        route = self._routes.get(path)
        if route is None:
            known = " ".join(self._routes)
            return Response(
                f"not found; available: {known}\n".encode(), status=HTTPStatus.NOT_FOUND
            )
        return route(accept)

    def _page(self, _accept: str) -> Response:
        text = page(self._board.snapshot(), self._versions)
        return Response(text.encode("utf-8", "replace"), "text/html; charset=utf-8")

    def _json(self, _accept: str) -> Response:
        snapshot = self._board.snapshot()
        rated = {"level": health(snapshot).level, "warnings": warnings_of(snapshot)}
        facts = snapshot.facts() | {"health": rated, "versions": self._versions}
        return Response(json.dumps(facts, allow_nan=False).encode() + b"\n", "application/json")

    def _metrics_text(self, accept: str) -> Response:
        return Response(*self._metrics.text(accept))

    def _health(self, _accept: str) -> Response:
        snapshot = self._board.snapshot()
        if snapshot.trouble:
            return Response(f"{snapshot.trouble}\n".encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)
        words = "; ".join(warnings_of(snapshot))
        text = RUNNING + f"; warnings: {words}" * bool(words) + "\n"
        return Response(text.encode("utf-8", "replace"))

    def _image(self, which: Which) -> Response:
        data = self._jpegs.jpeg(which)
        if data is None:
            return Response(b"no frame yet\n", status=HTTPStatus.SERVICE_UNAVAILABLE)
        return Response(data, "image/jpeg")
