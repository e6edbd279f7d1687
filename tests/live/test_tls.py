"""rtmps:// outputs: nothing is sent to a server whose certificate or name is wrong."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import vsr
from tests.programs import needs_openssl
from tests.streams import Marked, make_marked
from vsr.live.settings import OutputSettings
from vsr.media.location import url_for_messages
from vsr.media.opening import open_live

SERVER = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
got = b""
try:
    connection, _ = listener.accept()
    connection.settimeout(20)
    got = context.wrap_socket(connection, server_side=True).recv(1)
except OSError:
    pass
print(got, flush=True)
"""
KEY = "s3cretk3y"


def certificate_for(folder: Path, host: str) -> tuple[Path, Path]:
    """Make a certificate for a host and its key."""
    certificate, key = folder / f"{host}.pem", folder / f"{host}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout",
         str(key), "-out", str(certificate), "-subj", f"/CN={host}", "-addext",
         f"subjectAltName=DNS:{host}"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@contextmanager
def _server(certificate: Path, key: Path) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    command = [sys.executable, "-c", SERVER, str(certificate), str(key)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process
        process.kill()


@needs_openssl
@pytest.mark.parametrize(
    ("host", "trusted", "verify", "sent"),
    [
        ("localhost", False, True, False),
        ("elsewhere.example", True, True, False),
        ("localhost", True, True, True),
        ("elsewhere.example", False, False, True),
    ],
    ids=["unknown authority", "other name", "right", "not verified"],
)
def test_a_stream_goes_only_to_a_server_that_is_who_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool, verify: bool,
    sent: bool, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder = tmp_path / "it's [a:place]"
    folder.mkdir()
    certificate, key = certificate_for(folder, host)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=1, size=(64, 36), sound=None))
    with _server(certificate, key) as (port, server):
        settings = vsr.RelaySettings(
            model="bicubic", max_latency=5.0, output=OutputSettings(tls_verify=verify)
        )
        with pytest.raises(vsr.OutputError, match="nothing was published") as caught:
            vsr.relay(str(clip), f"rtmps://localhost:{port}/live/{KEY}", settings=settings)
        assert server.stdout is not None
        got = server.stdout.readline().strip()
    assert got == (str(b"\x03") if sent else str(b""))  # the handshake begins with the RTMP version
    assert KEY not in str(caught.value) + caplog.text
    if not sent:
        assert "certificate" in caplog.text
        assert "--tls-no-verify accepts any" in caplog.text


@needs_openssl
@pytest.mark.parametrize("verify", [True, False])
def test_a_stream_is_taken_only_from_a_server_that_is_who_it_says(
    tmp_path: Path, verify: bool
) -> None:
    with _server(*certificate_for(tmp_path, "localhost")) as (port, server):
        url = f"rtmps://localhost:{port}/live/{KEY}"
        with pytest.raises(vsr.InputError, match=r"rtmps://localhost") as caught:
            open_live(url, url_for_messages(url), 5.0, verify=verify).close()
        assert server.stdout is not None
        got = server.stdout.readline().strip()
    assert got == str(b"" if verify else b"\x03")
    assert ("certificate" in str(caught.value)) == verify
    assert KEY not in str(caught.value)
