"""An embeddable HTTP server with limits on hosts, clients, sizes and time.

It answers GET and HEAD on daemon threads. On a loopback address it accepts only requests for a
loopback host name, so that no web site can access it through a browser (DNS rebinding). It writes
nothing to stderr.

http.server parses the requests and refuses lines above 64 KiB and more than 100 headers. waitress
(3.0.2) was tried instead but has no limit on total time: its `channel_timeout` restarts with every
byte. With a timeout of 1 s, a client that sent a header byte by byte was still connected after
12 s, and one that did not read its response after 6 s. Clients above `connection_limit` wait
(3.8 s), while this server responds 503 immediately. Changing that requires its internals.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any, Final
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

_MAX_REQUESTS: Final = 16
"""Maximum number of concurrent requests; more are refused."""
_IDLE_S: Final = 5.0
_MAX_REQUEST_S: Final = 10.0
"""Time limit of a request, in seconds, even if data is still transferred."""
_REFUSAL_S: Final = 0.1
_PLAIN_TEXT: Final = "text/plain; charset=utf-8"
_BUSY: Final = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n"


@dataclass(frozen=True)
class Response:
    """Response to a client."""

    body: bytes
    content_type: str = _PLAIN_TEXT
    status: HTTPStatus = HTTPStatus.OK


Responder = Callable[[str, str], Response]
"""(path without query, `Accept` header) -> response; must be thread-safe."""


class WebServer(ThreadingHTTPServer):
    """HTTP server that listens from construction on. Raises OSError if it cannot."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_port = False  # a second relay on the same port must fail
    request_queue_size = _MAX_REQUESTS

    def __init__(
        self,
        family: socket.AddressFamily,
        socket_address: Any,
        host: str,
        respond: Responder,
        headers: Mapping[str, str],
    ) -> None:
        """`socket_address` is of `family`, `host` its name; all responses have `headers`."""
        self.address_family, self.respond, self.headers = family, respond, headers
        self._slots = threading.Semaphore(_MAX_REQUESTS)
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}
        super().__init__(socket_address, _Handler)
        self.local_only = ip_address(str(self.server_address[0]).partition("%")[0]).is_loopback
        self._allowed_names = {host.lower(), "localhost"}

    def server_bind(self) -> None:
        """Bind without HTTPServer's lookup of the FQDN, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def allows_host(self, host: str) -> bool:
        """Return whether a request's Host is allowed: on loopback, only names of loopback."""
        if not self.local_only:
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self._allowed_names or ip_address(name).is_loopback
        except ValueError:
            return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a new thread, or send 503 if there are too many requests."""
        if not self._slots.acquire(blocking=False):
            request.settimeout(_REFUSAL_S)
            try:
                request.sendall(_BUSY)
            finally:
                self.shutdown_request(request)
            return
        with self._lock:
            self._open[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system cannot create a thread
            self._release_slot(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Process one request, then release its slot even after an error."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._release_slot(request)

    def _release_slot(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)
        self._slots.release()

    def service_actions(self) -> None:
        """Cut overdue requests; called after each request and at every poll."""
        self.cut_older_than(_MAX_REQUEST_S)

    def cut_older_than(self, age: float) -> None:
        """Shut down connections that have been open for at least `age` seconds."""
        with self._lock:
            old = [s for s, since in self._open.items() if time.monotonic() - since >= age]
        for request in old:
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the connection has already ended

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log at debug level, e.g. for a client that disconnects; print nothing to stderr."""
        log.debug("a request to the status page failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = _IDLE_S
    server_version = "vsr"
    sys_version = ""
    server: WebServer

    def do_GET(self) -> None:
        server = self.server
        if not all(server.allows_host(host) for host in self.headers.get_all("Host", [])):
            body = b"use a loopback host name, such as localhost, for this address\n"
            self._send(Response(body, status=HTTPStatus.FORBIDDEN))
            return
        try:
            path = self.path.partition("?")[0]
            response = server.respond(path, self.headers.get("Accept", ""))
        except Exception as exc:  # a bug: respond 500, and the relay continues
            log.debug("cannot create the response for %r", self.path, exc_info=True)
            body = f"internal error: {type(exc).__name__}\n".encode()
            response = Response(body, status=HTTPStatus.INTERNAL_SERVER_ERROR)
        self._send(response)

    do_HEAD = do_GET  # noqa: N815 - http.server finds methods by these names

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        if response.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send an error of http.server in plain text; for an unknown method, 405."""
        status = HTTPStatus(code)
        if status == HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._send(Response(f"{status.phrase}\n".encode(), status=status))

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing for requests."""
