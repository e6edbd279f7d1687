"""`--listen` at rtmps://: the certificate and its key, publishers with TLS and without."""

import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.live.test_listen import KEY, Ear, _ffmpeg
from tests.live.test_tls import certificate_for
from tests.programs import needs_ffmpeg, needs_openssl
from tests.rtmp import wait_for
from tests.streams import Marked, Publisher, make_marked
from vsr.errors import InputError, UsageError
from vsr.live.input.ingest import Ingest, check_input
from vsr.live.input.mailbox import Mailbox
from vsr.live.input.rtmp.address import ListenAddress
from vsr.live.input.rtmp.tls import Certificate
from vsr.live.settings import IngestSettings

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    return certificate_for(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_marked(tmp_path_factory.mktemp("clips") / "a.mp4", Marked(seconds=8))


@pytest.fixture
def ear(pair: tuple[Path, Path]) -> Iterator[Ear]:
    with Ear(certificate=Certificate(*pair)) as ear:
        yield ear


@needs_ffmpeg
def test_ffmpeg_publishes_by_tls(ear: Ear, clip: Path, tmp_path: Path) -> None:
    watch = ear.watch()
    process = _ffmpeg(ear.url, clip, tmp_path / "log")
    watch.join()
    assert process.wait(10) == 0, (tmp_path / "log").read_text()
    assert watch.numbers == list(range(200))
    assert watch.end == f"the publisher of rtmps://127.0.0.1:{ear.port}/live/*** disconnected"


def test_pyav_publishes_by_tls_and_a_second_one_is_refused(
    ear: Ear, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = ear.watch()
    with Publisher(ear.url, clip) as first:
        wait_for(lambda: watch.frames, 20, "no picture came")
        with Publisher(ear.url, clip):
            wait_for(lambda: "another publisher is connected" in caplog.text, 60, "it was taken")
        watch.join()
        assert first.process.wait(30) == 0
    assert watch.numbers == list(range(200))
    assert KEY not in caplog.text


def test_those_who_speak_no_tls_or_hang_are_let_go(
    ear: Ear, caplog: pytest.LogCaptureFixture
) -> None:
    silent = socket.create_connection(("127.0.0.1", ear.port))  # would block a sequential server
    with socket.create_connection(("127.0.0.1", ear.port)) as plain:
        plain.sendall(b"\x03" + bytes(1536))  # start of an RTMP handshake
        plain.settimeout(20)
        with suppress(OSError):
            while plain.recv(1000):
                pass
    assert "the client does not use TLS: its server URL must begin with rtmps://" in caplog.text
    trusting = ssl.create_default_context()
    with socket.create_connection(("127.0.0.1", ear.port)) as other, suppress(OSError):  # noqa: SIM117
        with trusting.wrap_socket(other, server_hostname="localhost") as secured:
            secured.recv(1)
    wait_for(lambda: "does not trust the certificate" in caplog.text, 10, caplog.text)
    began = time.monotonic()
    ear.listener.close()
    assert time.monotonic() - began < 1.5
    assert silent.recv(1) == b""
    silent.close()


def test_tls_where_there_is_none_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with Ear() as ear, socket.create_connection(("127.0.0.1", ear.port)) as peer:
        with suppress(OSError):
            ssl.create_default_context().wrap_socket(peer, server_hostname="localhost").close()
        wait_for(lambda: "listen at rtmps:// with --tls-cert" in caplog.text, 10, caplog.text)


def test_closing_ends_a_read_that_waits(ear: Ear, clip: Path) -> None:
    ended: list[str] = []

    def take() -> None:
        with closing(ear.listener.accept()) as stream:
            try:
                while stream.read(1 << 16):
                    pass
            except InputError as exc:
                ended.append(str(exc))

    thread = threading.Thread(target=take)
    thread.start()
    with Publisher(ear.url, clip) as publisher:
        wait_for(lambda: ear.listener._stream, 20, "nobody published")
        os.kill(publisher.process.pid, 19)  # SIGSTOP: connected, but sends nothing
        time.sleep(0.2)
        ear.listener.close()
        thread.join(5)
        assert not thread.is_alive()
    assert ended
    assert KEY not in "".join(ended)


def test_a_renewed_certificate_is_taken_up_and_a_bad_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = certificate_for(tmp_path, "localhost")
    certificate = Certificate(*files)
    first = certificate.context()
    assert certificate.context() is first
    files[0].write_text("half of a fi")
    assert certificate.context() is first
    assert "the previous certificate stays in use" in caplog.text
    certificate_for(tmp_path, "localhost")
    assert certificate.context() is not first


def test_wrong_files_are_told_before_anything_listens(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", pair[1], "-aes128", "-passout", "pass:secret", "-out", locked],
        check=True, capture_output=True,
    )  # fmt: skip
    url = f"rtmps://127.0.0.1/live/{KEY}"
    for cert, key, words in (
        (pair[0], certificate_for(other, "localhost")[1], "does not match the certificate"),
        (pair[0], None, "no certificate and key in PEM format"),
        (pair[1], pair[1], "no certificate and key in PEM format"),
        (tmp_path / "missing.pem", None, "No such file"),
        (pair[0], locked, "the key has a password"),
    ):
        settings = IngestSettings(listen=True, tls_cert=cert, tls_key=key)
        with pytest.raises(UsageError, match=words) as caught:
            Ingest(url, settings, Mailbox(frames=1))
        assert "\n" not in str(caught.value)
        assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "settings", "words"),
    [
        ("rtmps://127.0.0.1/live/k", {"listen": True}, "give --tls-cert FILE.pem"),
        (
            "rtmp://127.0.0.1/live/k",
            {"listen": True, "tls_cert": True, "tls_key": True},
            "for --listen at an rtmps:// address",
        ),
        ("rtmp://127.0.0.1/live/k", {"tls_cert": True}, "works only with --listen"),
        ("rtmps://127.0.0.1/live/k", {"listen": True, "tls_key": True}, "needs --tls-cert"),
    ],
)
def test_options_that_would_do_nothing(
    url: str, settings: dict[str, bool], words: str, pair: tuple[Path, Path]
) -> None:
    files = dict(zip(("tls_cert", "tls_key"), pair, strict=True))
    given = IngestSettings(
        **{name: files.get(name, value) for name, value in settings.items()}  # type: ignore[arg-type]
    )
    with pytest.raises(UsageError, match=words):
        check_input(url, given)
        Ingest(url, given, Mailbox(frames=1))


def test_the_usual_ports_are_those_of_obs_and_ffmpeg() -> None:
    assert ListenAddress.parse("rtmp://127.0.0.1/live/k").port == 1935
    assert ListenAddress.parse("rtmps://127.0.0.1/live/k").port == 443
