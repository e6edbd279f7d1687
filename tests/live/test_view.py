"""The output of a relay at a viewer: flashes, beeps and frame numbers in the received stream."""

import contextlib
import re
import socket
import statistics
import threading
import time
from pathlib import Path

import av
import pytest

from tests.flash_beep import Clip, Process, View, make_clip
from tests.programs import needs_nginx
from tests.rtmp import Server, free_port
from tests.streams import RelayProcess

SECONDS = 8
"""Time that a viewer watches, in seconds."""
PATIENCE = 60


def _assert_together(view: View, sound_from: float = 0.0) -> None:
    flashes = [f for f in view.flashes if f >= sound_from]
    assert view.error == ""
    assert len(flashes) > 4
    assert view.missing == 0, view
    # the median: a busy machine may drop the first frame of a flash
    assert statistics.median(map(abs, view.offsets)) < 15, view.offsets
    assert view.steps_back == 0


@needs_nginx
@pytest.mark.parametrize(("late", "sound"), [(0.3, "aac"), (0.9, "libmp3lame")])
def test_sound_that_comes_late_is_heard_with_its_picture(
    tmp_path: Path, late: float, sound: str
) -> None:
    clip = make_clip(tmp_path / "in.flv", Clip(seconds=40, sound=sound))
    with (
        Server(tmp_path / "nginx") as server,
        RelayProcess(tmp_path, server.url("in"), server.url("out")) as relay,
        Process("publish", server.url("in"), clip, late, 40),
        Process("view", server.url("out"), SECONDS) as viewer,
    ):
        view = viewer.view(PATIENCE)
        relay.stop()
    _assert_together(view)
    live = relay.report["live"]
    assert abs(live["av_offset_ms"]) < 15
    assert live["sound_dropped"] == 0
    assert not re.search("audio.* dropped", relay.said)  # frames may be, on a busy machine


def test_sound_of_a_transport_stream_is_heard_with_its_picture(tmp_path: Path) -> None:
    """Its AAC is copied, and the A/V offset is measured at the output."""
    clip = make_clip(tmp_path / "in.mp4", Clip(seconds=40))
    into, out = (f"udp://127.0.0.1:{free_port()}" for _ in range(2))
    with (
        Process("publish", into, clip, 0.0, 40),
        RelayProcess(tmp_path, into, out) as relay,
        Process("view", out, SECONDS) as viewer,
    ):
        view = viewer.view(PATIENCE)
        relay.stop()
    _assert_together(view)
    assert abs(relay.report["live"]["av_offset_ms"]) < 15


def _camera(server: socket.socket, pictures: list[bytes]) -> None:
    """Serve JPEG images to one client, five per second, as HTTP cameras do."""
    peer, _ = server.accept()
    with peer, contextlib.suppress(OSError):
        peer.recv(2000)
        peer.sendall(
            b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n"
        )
        for k in range(150):
            data = pictures[k % len(pictures)]
            head = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
            peer.sendall(head + data + b"\r\n")
            time.sleep(0.2)


def test_a_camera_without_a_clock_is_shown_at_its_own_pace(tmp_path: Path) -> None:
    """FFmpeg assumes 25 frames per second for its MJPEG; viewers would run out of frames."""
    clip = make_clip(tmp_path / "in.avi", Clip(seconds=2, codec="mjpeg", sound=None))
    with av.open(str(clip)) as source:
        pictures = [bytes(p) for p in source.demux(video=0) if p.size]
    target = tmp_path / "out.flv"
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_camera, args=(server, pictures), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with RelayProcess(tmp_path, url, str(target)) as relay:
            relay.await_words("connected")
            time.sleep(6)
            relay.stop()
    with av.open(str(target)) as made:
        times = [float(p.pts * p.time_base) for p in made.demux(video=0) if p.size]
    assert len(times) > 10
    assert (times[-1] - times[0]) / (len(times) - 1) == pytest.approx(0.2, abs=0.03)
