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
from vsr.live.rtmp.amf import MOST_BYTES, ProtocolError

log = logging.getLogger(__name__)

_MOST: Final = 32
"""Limit of connections that do not publish yet or are being refused; a further one replaces one."""
_DEADLINE_S: Final = 10.0
_POLL_S: Final = 0.5
_PAUSE_S: Final = 0.1


class RtmpListener:
    """Accepts publishers between `open` and `close`. Thread-safe; one thread calls `accept`."""

    def __init__(
        self,
        url: str,
        silence: float,
        deadline: float = _DEADLINE_S,
        certificate: Certificate | None = None,
    ) -> None:
        """Publishers are lost after `silence` s without data, and must begin within `deadline` s.

        `certificate` is for rtmps://. Raises UsageError for a URL that cannot be listened at.
        """
        self.place = ListenAddress.parse(url)
        if self.place.secure and certificate is None:
            raise UsageError(
                "to listen at rtmps://, give --tls-cert FILE.pem and --tls-key FILE.pem, or "
                "listen at an rtmp:// address of loopback behind a TLS proxy"
            )
        if certificate is not None and not self.place.secure:
            raise UsageError("--tls-cert is for --listen at an rtmps:// address")
        self._certificate = certificate
        self._silence, self._patience = silence, deadline
        self._changed = threading.Condition()
        self._socket: socket.socket | None = None
        self._taken = self._closed = False
        self._waiting: PublishedStream | None = None
        """Stream of a publisher that `accept` has not returned yet."""
        self._stream: PublishedStream | None = None
        """Stream that `accept` returned last."""
        self._connections: dict[Connection, str] = {}
        """Connections that do not publish, oldest first, with the peers' addresses."""
        self._log = RelayLog(log, self.place.name)
        self._thread = threading.Thread(target=self._run, name="rtmp", daemon=True)

    def open(self) -> None:
        """Begin to listen. Raises InputError if the address cannot be used."""
        host, port = self.place.host, self.place.port
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            family, _, _, _, address = found[0]
            self._socket = socket.create_server(address, family=family, backlog=_MOST)
        except (OSError, UnicodeError) as exc:
            at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            why = reason(exc).partition(" (while")[0]  # the rest repeats the address
            raise InputError(
                f"cannot listen at {at}: {why}; choose another address or port"
            ) from exc
        self._socket.settimeout(_POLL_S)  # on some systems, closing does not end `accept`
        log.info("waiting for a publisher at %s", self.place.name)
        self._thread.start()

    def accept(self) -> PublishedStream:
        """Wait for a publisher; the previous stream must be closed, else none is accepted.

        Raises InputError once the listener is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._closed)
            stream, self._waiting = self._waiting, None
            self._stream = stream
        if stream is None:
            raise InputError(f"{self.place.name} is closed")
        return stream

    def close(self) -> None:
        """Stop listening and cut every connection; takes at most half a second."""
        with self._changed:
            self._closed = True
            stream, waiting = self._stream, self._waiting
            connections, self._waiting = list(self._connections), None
            self._changed.notify_all()
        if stream is not None:
            stream.cut()
        if waiting is not None:
            waiting.close()
        for connection in connections:
            connection.cut()
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
                    self._log.warn_rarely(f"cannot take a connection: {reason(exc)}", "accept")
                    time.sleep(_PAUSE_S)
                continue
            tls = self._certificate.context() if self._certificate else None
            try:
                connection = Connection(accepted, MOST_BYTES, tls)
            except OSError:  # the peer has closed already
                continue
            self._begin(connection, str(peer[0]))

    def _begin(self, connection: Connection, peer: str) -> None:
        """Negotiate with a peer on a new thread; if too many do, cut the idlest one."""
        with self._changed:
            closed = self._closed
            idle = self._idlest() if len(self._connections) >= _MOST else None
            if not closed:
                self._connections[connection] = peer
        if closed:
            connection.close()
            return
        if idle is not None:  # idle peers must not block the publisher
            idle.cut()
            self._drop_place(idle)
            self._log.warn_rarely("too many are connected that do not publish: the idlest is cut")
        try:
            threading.Thread(
                target=self._talk, args=(connection, peer), name="rtmp-peer", daemon=True
            ).start()
        except RuntimeError:  # no more threads are available
            self._drop(connection, claimed=False)

    def _idlest(self) -> Connection:
        """Return the connection to cut: the one that has sent least from the address with the most
        connections, and the oldest of these."""
        share = Counter(self._connections.values())
        return min(
            self._connections, key=lambda one: (-share[self._connections[one]], one.progress)
        )

    def _drop_place(self, connection: Connection) -> None:
        """Remove a connection that was cut from the list."""
        with self._changed:
            self._connections.pop(connection, None)

    def _talk(self, connection: Connection, peer: str) -> None:
        """Negotiate with a peer until it publishes or is refused."""
        claimed = False

        def claim() -> bool:
            nonlocal claimed
            with self._changed:
                if not self._taken and not self._closed:
                    claimed = self._taken = True
            return claimed

        try:
            negotiate(connection, self.place, claim, time.monotonic() + self._patience)
            self._hand_over(connection, peer)
            return
        except RefusedError as exc:
            self._log.warn_rarely(f"{peer} refused: {exc}", str(exc))
            connection.part()
        except ProtocolError as exc:
            self._log.warn_rarely(f"{peer} refused: it does not speak RTMP ({exc})", "protocol")
        except ssl.SSLError as exc:
            why = _tls_words(exc)
            self._log.warn_rarely(f"{peer} refused: no TLS session ({why})", why)
        except TimeoutError:
            words = f"{peer} refused: did not publish within {self._patience:g} s"
            self._log.warn_rarely(words, "slow")
        except OSError as exc:
            self._log.debug("%s went away: %s", peer, reason(exc))
        except Exception:  # a bug must not block the publisher's place
            log.debug("talking to %s failed", peer, exc_info=True)
        self._drop(connection, claimed)

    def _hand_over(self, connection: Connection, peer: str) -> None:
        stream = PublishedStream(connection, self.place.name, self._silence, self._free)
        log.info("%s publishes to %s", peer, self.place.name)
        with self._changed:
            self._connections.pop(connection, None)
            closed = self._closed
            if not closed:
                self._waiting = stream
            self._changed.notify_all()
        if closed:
            stream.close()

    def _free(self) -> None:
        """Allow the next publisher, because the last one's stream has ended."""
        with self._changed:
            self._taken = False

    def _drop(self, connection: Connection, claimed: bool) -> None:
        connection.close()
        with self._changed:
            self._connections.pop(connection, None)
            self._taken = self._taken and not claimed


def _tls_words(exc: ssl.SSLError) -> str:
    """Describe why the TLS session with a peer failed."""
    why = (exc.reason or "it closed").lower().replace("_", " ")
    if exc.reason in ("HTTP_REQUEST", "WRONG_VERSION_NUMBER"):
        return "it does not speak TLS: its server must begin with rtmps://"
    if "alert" in why and ("certificate" in why or "unknown ca" in why):
        return f"it does not trust the certificate: {why}"
    return why
