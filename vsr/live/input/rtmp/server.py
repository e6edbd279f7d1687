"""RTMP listener for `vsr relay --listen`.

It accepts one publisher at a time, with one application and key. Other peers receive the reason and
are disconnected; they can neither disturb the publisher nor exhaust the machine's resources.
"""

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections import Counter
from typing import Final

from vsr.errors import InputError, UsageError, reason
from vsr.live.common import RelayLog
from vsr.live.input.rtmp.address import ListenAddress
from vsr.live.input.rtmp.connection import Connection
from vsr.live.input.rtmp.session import PublishedStream, RefusedError, negotiate
from vsr.live.input.rtmp.tls import Certificate
from vsr.live.rtmp.amf import MAX_BYTES, ProtocolError

log = logging.getLogger(__name__)

_MAX_PENDING: Final = 32
"""Limit of connections that do not publish yet or are being refused; a further one replaces one."""
_PUBLISH_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.5
_ACCEPT_RETRY_S: Final = 0.1


class RtmpListener:
    """Accepts publishers between `open` and `close`. Thread-safe; one thread calls `accept`."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        publish_timeout_s: float = _PUBLISH_TIMEOUT_S,
        certificate: Certificate | None = None,
    ) -> None:
        """Publishers are lost after `timeout_s` seconds without data.

        They must begin within `publish_timeout_s` after connecting. `certificate` is for rtmps://.
        Raises UsageError for a URL that cannot be listened at.
        """
        self.address = ListenAddress.parse(url)
        if self.address.secure and certificate is None:
            raise UsageError(
                "to listen at rtmps://, give --tls-cert FILE.pem and --tls-key FILE.pem, or "
                "listen at an rtmp:// address of loopback behind a TLS proxy"
            )
        if certificate is not None and not self.address.secure:
            raise UsageError("--tls-cert is for --listen at an rtmps:// address")
        self._certificate = certificate
        self._timeout_s, self._publish_timeout_s = timeout_s, publish_timeout_s
        self._changed = threading.Condition()
        self._socket: socket.socket | None = None
        self._has_publisher = self._closed = False
        self._accepted: PublishedStream | None = None
        """Stream of a publisher that `accept` has not returned yet."""
        self._stream: PublishedStream | None = None
        """Stream that `accept` returned last."""
        self._connections: dict[Connection, str] = {}
        """Connections that do not publish, oldest first, with the peers' addresses."""
        self._log = RelayLog(log, self.address.name)
        self._thread = threading.Thread(target=self._run, name="rtmp", daemon=True)

    def open(self) -> None:
        """Begin to listen. Raises InputError if the address cannot be used."""
        host, port = self.address.host, self.address.port
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            family, _, _, _, address = found[0]
            self._socket = socket.create_server(address, family=family, backlog=_MAX_PENDING)
        except (OSError, UnicodeError) as exc:
            at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            why = reason(exc).partition(" (while")[0]  # the rest repeats the address
            raise InputError(
                f"cannot listen at {at}: {why}; choose another address or port"
            ) from exc
        self._socket.settimeout(_POLL_S)  # on some systems, closing does not end `accept`
        log.info("waiting for a publisher at %s", self.address.name)
        self._thread.start()

    def accept(self) -> PublishedStream:
        """Wait for a publisher; the previous stream must be closed, else none is accepted.

        Raises InputError once the listener is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._accepted is not None or self._closed)
            stream, self._accepted = self._accepted, None
            self._stream = stream
        if stream is None:
            raise InputError(f"the listener at {self.address.name} is closed")
        return stream

    def close(self) -> None:
        """Stop listening and cut every connection; takes at most half a second."""
        with self._changed:
            self._closed = True
            stream, accepted = self._stream, self._accepted
            connections, self._accepted = list(self._connections), None
            self._changed.notify_all()
        if stream is not None:
            stream.abort()
        if accepted is not None:
            accepted.close()
        for connection in connections:
            connection.abort()
        if self._socket is not None:
            with contextlib.suppress(OSError):  # wakes the thread if closing does not
                self._socket.shutdown(socket.SHUT_RDWR)
            if self._thread.is_alive():
                self._thread.join(_POLL_S)
            self._socket.close()

    def _run(self) -> None:
        assert self._socket is not None
        while not self._closed:
            try:
                accepted, peer = self._socket.accept()
            except TimeoutError:
                continue
            except OSError as exc:
                if not self._closed:  # out of file descriptors, or the peer has closed
                    self._log.warn_rarely(f"cannot accept a connection: {reason(exc)}", "accept")
                    time.sleep(_ACCEPT_RETRY_S)
                continue
            tls = self._certificate.context() if self._certificate else None
            try:
                connection = Connection(accepted, MAX_BYTES, tls)
            except OSError:  # the peer has closed already
                continue
            self._start_peer(connection, str(peer[0]))

    def _start_peer(self, connection: Connection, peer: str) -> None:
        """Negotiate with a peer on a new thread; if too many do, cut the idlest one."""
        with self._changed:
            closed = self._closed
            idle = self._most_idle() if len(self._connections) >= _MAX_PENDING else None
            if not closed:
                self._connections[connection] = peer
        if closed:
            connection.close()
            return
        if idle is not None:  # idle peers must not block the publisher
            idle.abort()
            self._forget(idle)
            self._log.warn_rarely(
                "too many connections without a publisher: closed the least active one"
            )
        try:
            threading.Thread(
                target=self._serve_peer, args=(connection, peer), name="rtmp-peer", daemon=True
            ).start()
        except RuntimeError:  # no more threads are available
            self._close_connection(connection, claimed=False)

    def _most_idle(self) -> Connection:
        """Return the connection to cut: the one that has sent least from the address with the most
        connections, and the oldest of these."""
        share = Counter(self._connections.values())
        return min(
            self._connections, key=lambda one: (-share[self._connections[one]], one.handshake_bytes)
        )

    def _forget(self, connection: Connection) -> None:
        """Remove a connection that was cut from the list."""
        with self._changed:
            self._connections.pop(connection, None)

    def _serve_peer(self, connection: Connection, peer: str) -> None:
        """Negotiate with a peer until it publishes or is refused."""
        claimed = False

        def claim() -> bool:
            nonlocal claimed
            with self._changed:
                if not self._has_publisher and not self._closed:
                    claimed = self._has_publisher = True
            return claimed

        try:
            negotiate(connection, self.address, claim, time.monotonic() + self._publish_timeout_s)
            self._hand_over(connection, peer)
            return
        except RefusedError as exc:
            self._log.warn_rarely(f"{peer} refused: {exc}", str(exc))
            connection.close_gracefully()
        except ProtocolError as exc:
            self._log.warn_rarely(f"{peer} refused: not an RTMP client ({exc})", "protocol")
        except ssl.SSLError as exc:
            why = _tls_reason(exc)
            self._log.warn_rarely(f"{peer} refused: TLS handshake failed ({why})", why)
        except TimeoutError:
            message = f"{peer} refused: did not publish within {self._publish_timeout_s:g} s"
            self._log.warn_rarely(message, "slow")
        except OSError as exc:
            self._log.debug("%s disconnected: %s", peer, reason(exc))
        except Exception:  # a bug must not block the publisher's place
            log.debug("serving %s failed", peer, exc_info=True)
        self._close_connection(connection, claimed)

    def _hand_over(self, connection: Connection, peer: str) -> None:
        stream = PublishedStream(
            connection, self.address.name, self._timeout_s, self._release_publisher
        )
        log.info("%s publishes to %s", peer, self.address.name)
        with self._changed:
            self._connections.pop(connection, None)
            closed = self._closed
            if not closed:
                self._accepted = stream
            self._changed.notify_all()
        if closed:
            stream.close()

    def _release_publisher(self) -> None:
        """Allow the next publisher, because the last one's stream has ended."""
        with self._changed:
            self._has_publisher = False

    def _close_connection(self, connection: Connection, claimed: bool) -> None:
        connection.close()
        with self._changed:
            self._connections.pop(connection, None)
            self._has_publisher = self._has_publisher and not claimed


def _tls_reason(exc: ssl.SSLError) -> str:
    """Describe why the TLS session with a peer failed."""
    why = (exc.reason or "connection closed").lower().replace("_", " ")
    if exc.reason in ("HTTP_REQUEST", "WRONG_VERSION_NUMBER"):
        return "the client does not use TLS: its server URL must begin with rtmps://"
    if "alert" in why and ("certificate" in why or "unknown ca" in why):
        return f"the client does not trust the certificate: {why}"
    return why
