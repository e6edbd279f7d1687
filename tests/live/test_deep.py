"""A 10-bit source stays 10-bit in HEVC, on every kind of output; in H.264 it becomes 8-bit SDR."""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import vsr
from tests.media.test_side_data import captioned, captions
from tests.rtmp import free_port, wait_for
from vsr.live.input.fit import Canvas, OutputCapabilities
from vsr.live.input.source import LiveSource
from vsr.live.ladder.rungs import Rungs
from vsr.live.ladder.warm_up import trial_frame
from vsr.live.output.encoding import live_bit_depth
from vsr.live.settings import OutputSettings
from vsr.live.slate import Slate, darkened
from vsr.live.status.jpeg import encode_jpeg
from vsr.media.colour import SDR
from vsr.media.encoder import EncoderSettings
from vsr.media.frame import Frame
from vsr.media.hdr import Hdr10
from vsr.media.info import side_data_of
from vsr.media.plane_format import PlaneFormat

SIZE = (160, 90)
FRAMES, RATE = 12, 6
DEEP = PlaneFormat(bits=10)
PQ, HLG, BT709 = 16, 18, 1
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
HEVC = EncoderSettings(
    codec="hevc", preset="ultrafast", crf=6, options={"x265-params": "log-level=none"}
)


def ramp(number: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    """Return a ramp of more than 600 luma levels, one level brighter with each frame."""
    width, height = SIZE
    return (100 + np.add.outer(np.arange(height), 3.8 * np.arange(width)) + number).astype("u2")


def clip(path: Path, transfer: int, codec: str = "libx265", pixels: str = "yuv420p10le") -> Path:
    """Write grey ramps with these tags; HEVC also has mastering display and light level."""
    primaries = 1 if transfer == BT709 else 9
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=RATE)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pixels
        context = stream.codec_context
        context.colorspace, context.color_range = primaries, 1
        context.color_trc, context.color_primaries = transfer, primaries
        if codec == "libx265":
            params = f"log-level=none:master-display={DISPLAY}:max-cll=1000,400"
            stream.options = {"preset": "ultrafast", "crf": "4", "x265-params": params}
        for number in range(FRAMES):
            chroma = np.full((SIZE[1] // 2, SIZE[0] // 2), 512, np.uint16)
            planes = (ramp(number), chroma, chroma.copy())
            picture = av.VideoFrame.from_dlpack(planes, format="yuv420p10le")
            if pixels != "yuv420p10le":
                picture = picture.reformat(format=pixels)
            picture.colorspace, picture.color_range = primaries, 1
            picture.color_trc, picture.color_primaries = transfer, primaries
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("deep") / "pq.mkv", PQ)


class FfmpegServer:
    """FFmpeg's own RTMP server, for one publisher; keeps the decoded frames."""

    def __init__(self) -> None:
        self.url = f"rtmp://127.0.0.1:{free_port()}/live/key"
        self.pictures: list[av.VideoFrame] = []
        self.ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with av.open(self.url, options={"listen": "1", "timeout": "20"}) as stream:
                self.pictures += stream.decode(video=0)
        except av.error.FFmpegError:  # the publisher disconnected
            pass
        self.ended = True


def check(pictures: list[av.VideoFrame]) -> None:
    """Check for the source's 10 bits, HDR10 and times, and for a ramp half as steep."""
    first = pictures[0]
    assert (first.width, first.height, first.format.name) == (320, 180, "yuv420p10le")
    assert (first.colorspace, first.color_primaries, first.color_trc) == (9, 9, PQ)
    assert first.color_range == 1
    hdr = Hdr10.of(side_data_of(first))
    assert hdr is not None and hdr.display is not None
    assert hdr.light == (1000, 400)
    assert (hdr.display.max_luminance, hdr.display.white) == (
        1000, (Fraction(15635, 50000), Fraction(16450, 50000)),
    )  # fmt: skip
    assert len(pictures) > FRAMES // 2  # a slow machine drops some
    times = [p.time for p in pictures]
    steps = np.diff(times) * RATE
    np.testing.assert_allclose(steps, np.rint(steps), atol=0.02)
    luma = np.asarray(np.from_dlpack(pictures[-1].planes[0]), np.float64)
    assert len(np.unique(luma)) > 500  # 8 bits: about 150
    inner = luma[20:-20, 20:-20]
    across, down = np.diff(inner, axis=1).mean(), np.diff(inner, axis=0).mean()
    assert (across, down) == pytest.approx((1.9, 0.5), abs=0.02)
    plane = across * np.arange(inner.shape[1]) + down * np.arange(inner.shape[0])[:, None]
    assert np.std(inner - plane) < 1.5


def test_every_output_gets_the_ten_bits_of_its_source(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Recordings, a playlist, and enhanced RTMP into FFmpeg's own server."""
    server = FfmpegServer()
    files = [tmp_path / name for name in ("a.mkv", "a.mp4", "a.ts", "a.m3u8")]
    settings = vsr.RelaySettings(
        model="bicubic", max_latency=5.0, encoder=HEVC, output=OutputSettings(enhanced_rtmp=True)
    )
    vsr.relay(str(source), [*map(str, files), server.url], settings=settings)
    wait_for(lambda: server.ended, 20, "the publisher's end was not seen")
    check(server.pictures)
    for path in files:
        with av.open(str(path)) as made:
            check(list(made.decode(video=0)))
    assert "8 bits" not in caplog.text and "8-bit" not in caplog.text


def test_h264_of_it_is_8_bit_sdr_and_says_so_once(source: Path, tmp_path: Path) -> None:
    settings = vsr.RelaySettings(model="bicubic", max_latency=5.0)
    report = vsr.relay(str(source), str(tmp_path / "a.mkv"), settings=settings)
    with av.open(str(tmp_path / "a.mkv")) as made:
        first = next(made.decode(video=0))
    assert (first.format.name, first.color_trc, first.colorspace) == ("yuv420p", 1, 1)
    assert sum("converted to SDR (BT.709)" in note for note in report.notes) == 1


def test_captions_come_through(tmp_path: Path) -> None:
    source, made = captioned(tmp_path / "in.ts"), tmp_path / "out.mkv"
    settings = vsr.RelaySettings(model="bicubic", max_latency=5.0)
    report = vsr.relay(str(source), str(made), settings=settings)
    before, after = captions(source), captions(made)
    assert all(after) and set(after) <= set(before)
    assert "captions" not in " ".join(report.notes)


@pytest.mark.parametrize(
    ("codec", "pixels", "bits"),
    [
        (None, None, 8), ("h264", None, 8), ("h264", "yuv420p10le", 10), ("hevc", None, 10),
        ("hevc", "yuv420p", 8), ("hevc", "yuv420p10le", 10), ("av1", None, 10),
    ],
)  # fmt: skip
def test_how_many_bits_outputs_carry(codec: str | None, pixels: str | None, bits: int) -> None:
    assert live_bit_depth(EncoderSettings(codec=codec, pixel_format=pixels)) == bits


@pytest.fixture
def canvas(source: Path) -> Canvas:
    with closing(LiveSource(str(source), 5.0, capabilities=OutputCapabilities(bits=10))) as first:
        assert first.notes == []
        assert first.info.hdr is not None
        return first.canvas


def frames_of(source: LiveSource) -> Iterator[Frame]:
    return (item for item in source if isinstance(item, Frame))


@pytest.mark.parametrize(
    ("transfer", "pixels", "words", "white"),
    [
        (BT709, "yuv420p", "its SDR is converted to HDR (PQ)", (504, 429)),
        (HLG, "yuv420p10le", "that of the first session (PQ)", (721, 573)),
    ],
)
def test_a_later_session_keeps_the_bits_and_the_hdr(
    tmp_path: Path, canvas: Canvas, transfer: int, pixels: str, words: str, white: tuple[int, int]
) -> None:
    """White of SDR and HLG is 203 cd/m2 (ITU-R BT.2408), mid-range SDR 39 cd/m2 (BT.1886)."""
    path = clip(tmp_path / "then.mkv", transfer, "ffv1", pixels)
    with closing(
        LiveSource(str(path), 5.0, canvas, capabilities=OutputCapabilities(bits=10))
    ) as then:
        assert words in then.notes[0]
        frame = next(frames_of(then))
        assert (frame.format, frame.colour, then.info.hdr) == (DEEP, canvas.colour, canvas.hdr)
    code, expected = white
    column = int((code - 100 - 45) / 3.8)  # in row 45
    assert int(frame.planes[0][45, column]) == pytest.approx(expected, abs=5)


def test_a_smaller_session_is_centred_on_black_of_ten_bits(tmp_path: Path, canvas: Canvas) -> None:
    narrow = replace(canvas, size=(320, 90))
    with closing(LiveSource(str(clip(tmp_path / "a.mkv", PQ)), 5.0, narrow)) as source:
        y, u, v = next(frames_of(source)).planes
    assert (y.dtype, y.shape, u.shape) == (np.uint16, (90, 320), (45, 160))
    assert y[45, 10] == 64 and u[20, 10] == v[20, 10] == 512
    assert y[45, 160] > 64


def test_slate_and_status_picture_of_ten_bits(tmp_path: Path) -> None:
    av.VideoFrame.from_ndarray(np.full((48, 64, 3), 255, np.uint8), "rgb24").save(
        str(tmp_path / "white.png")
    )
    pq = replace(SDR, matrix=9, primaries=9, transfer=PQ)
    slate = Slate(0.0, tmp_path / "white.png")
    slate.fit((128, 96), pq, DEEP)
    last = (np.full((96, 128), 940, np.uint16), *(np.full((48, 64), 512, np.uint16),) * 2)
    slate.show(last, 0.0)
    y, u, v = slate.show(last, 1.0)
    assert y.dtype == np.uint16
    assert int(y[48, 64]) == pytest.approx(574, abs=3) and u[20, 20] == v[20, 20] == 512
    dark = darkened(last)
    assert (dark[0][0, 0], dark[1][0, 0]) == (64 + (940 - 64) // 4, 512)
    assert encode_jpeg((y, u, v), pq, 64).startswith(b"\xff\xd8")


def test_rungs_enlarge_ten_bits(backend: vsr.inference.backend.Backend) -> None:
    found = [vsr.inference.models.find("bicubic", 2, backend)]
    rungs = Rungs(found, backend, (64, 48), SDR, planes=DEEP)
    done = rungs.upscale(trial_frame((64, 48), DEEP), 0)
    assert (done.format, done.planes[0].dtype, done.planes[0].shape) == (DEEP, np.uint16, (96, 128))
    assert done.planes[0].max() > 255
