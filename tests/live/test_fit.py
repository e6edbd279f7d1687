"""Frames of every session keep their shape and colour on a canvas, and HDR becomes SDR.

Y'CbCr codes follow H.273: 8-bit limited-range red is (63, 102, 240) in BT.709, (81, 90, 240) in
BT.601 (equations 36 to 46 with the weights of table 4).
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import vsr
from vsr.live.input.fit import SDR, Canvas
from vsr.live.input.ingest import Ingest
from vsr.live.input.mailbox import Connected, Mailbox
from vsr.live.input.source import LiveSource
from vsr.live.settings import IngestSettings
from vsr.media.frame import Frame

RED = {1: (63, 102, 240), 5: (81, 90, 240)}
BLACK = (16, 128, 128)
FULL_RED_601 = (76, 85, 255)


def _clip(
    path: Path, codes: tuple[int, int, int], *, size: tuple[int, int] = (160, 90),
    matrix: int = 1, range_: int = 1, transfer: int = 1, primaries: int = 1,
    aspect: Fraction = Fraction(1), rate: int = 25, pix_fmt: str = "yuv420p", frames: int = 5,
    interlaced: bool = False, luma: Sequence[int] = (),
) -> Path:  # fmt: skip
    """Write a clip of one colour, given as codes in its own bit depth, with all its tags.

    With `luma`, write one frame for each of these Y codes instead.
    """
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264" if interlaced or aspect != 1 else "ffv1", rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.sample_aspect_ratio = aspect
        context.colorspace, context.color_range = matrix, range_
        context.color_trc, context.color_primaries = transfer, primaries
        if interlaced:
            context.flags |= av.codec.context.Flags.interlaced_dct
        for k, y in enumerate(luma or [codes[0]] * frames):
            picture = av.VideoFrame(*size, pix_fmt)
            picture.color_trc, picture.color_primaries = transfer, primaries
            picture.colorspace, picture.color_range = matrix, range_
            for plane, code in zip(picture.planes, (y, *codes[1:]), strict=True):
                deep = "10" in pix_fmt
                count = plane.line_size * plane.height // (2 if deep else 1)
                plane.update(np.full(count, code, np.uint16 if deep else np.uint8).tobytes())
            picture.pts, picture.time_base = k, Fraction(1, rate)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def _first(source: LiveSource) -> Frame:
    return next(item for item in source if isinstance(item, Frame))


def _at(frame: Frame, x: float, y: float) -> tuple[int, ...]:
    """Return the codes at a position given as fractions of width and height."""
    return tuple(int(p[int(y * p.shape[0]), int(x * p.shape[1])]) for p in frame.planes)


@pytest.fixture
def canvas(tmp_path: Path) -> Canvas:
    """Canvas of a first session in BT.709, 160x90 with square pixels."""
    with closing(LiveSource(str(_clip(tmp_path / "first.mkv", RED[1])), 5.0)) as source:
        assert source.notes == []
        return source.canvas


@pytest.mark.parametrize(
    ("codes", "changes"),
    [
        (RED[5], {"matrix": 5}),
        (RED[5], {"matrix": 5, "size": (320, 180)}),
        (FULL_RED_601, {"matrix": 5, "range_": 2}),
        (RED[1], {"size": (80, 90), "aspect": Fraction(2)}),
    ],
)
def test_a_later_session_keeps_its_colour_and_shape(
    tmp_path: Path, canvas: Canvas, codes: tuple[int, int, int], changes: dict[str, int]
) -> None:
    clip = _clip(tmp_path / "then.mkv", codes, **changes)  # type: ignore[arg-type]
    with closing(LiveSource(str(clip), 5.0, canvas)) as source:
        frame = _first(source)
        assert (source.info.width, source.info.height) == (160, 90)
        assert source.info.colour == frame.colour == canvas.colour
    assert [plane.shape for plane in frame.planes] == [(90, 160), (45, 80), (45, 80)]
    for x, y in ((0.5, 0.5), (0.01, 0.5), (0.99, 0.99)):  # without bars
        assert _at(frame, x, y) == pytest.approx(RED[1], abs=2)


def test_a_session_of_another_size_is_resized_and_a_note_says_so(
    tmp_path: Path, canvas: Canvas
) -> None:
    clip = _clip(tmp_path / "then.mkv", RED[1], size=(320, 180))
    with closing(LiveSource(str(clip), 5.0, canvas)) as source:
        assert _first(source).event == "resized"
        assert source.notes == [
            "its 320x180 pixels are resized to the output's 160x90 (before upscaling)"
        ]


@pytest.mark.parametrize(
    ("size", "aspect", "inside", "outside"),
    [
        ((64, 48), Fraction(1), (0.14, 0.5), (0.11, 0.5)),  # 4:3: 120 of 160 wide
        ((72, 48), Fraction(8, 9), (0.14, 0.5), (0.11, 0.5)),  # 4:3 again, with narrow pixels
        ((90, 160), Fraction(1), (0.36, 0.5), (0.32, 0.5)),  # portrait: 50 wide
        ((240, 100), Fraction(1), (0.5, 0.15), (0.5, 0.1)),  # 2.4:1: 66 of 90 high
    ],
)
def test_a_session_of_another_shape_is_shown_within_bars(
    tmp_path: Path, canvas: Canvas, size: tuple[int, int], aspect: Fraction,
    inside: tuple[float, float], outside: tuple[float, float],
) -> None:  # fmt: skip
    clip = _clip(tmp_path / "then.mkv", RED[5], size=size, matrix=5, aspect=aspect)
    with closing(LiveSource(str(clip), 5.0, canvas)) as source:
        frame = _first(source)
        assert "black around them" in source.notes[-1]
    mirrored = [(1 - x if x != 0.5 else x, 1 - y if y != 0.5 else y) for x, y in (inside, outside)]
    for place in (inside, mirrored[0], (0.5, 0.5)):
        assert _at(frame, *place) == pytest.approx(RED[1], abs=2)
    for place in (outside, mirrored[1]):
        assert _at(frame, *place) == BLACK
    assert frame.event == "resized"


def test_an_ingest_fits_what_comes_back_and_tells_its_rate(tmp_path: Path) -> None:
    clip = _clip(tmp_path / "in.mkv", RED[1])
    other = _clip(tmp_path / "other.mkv", RED[5], size=(64, 48), matrix=5, rate=10)
    box = Mailbox(frames=100)
    ingest = Ingest(str(clip), IngestSettings(loop=True), box)
    ingest.start()
    sessions, frames = [], []

    def items() -> Iterator[object]:
        while len(sessions) < 2 or not frames:
            item = box.take(10)
            assert item is not None
            yield item

    for item in items():
        if isinstance(item, Connected):
            sessions.append(item)
            os.replace(other, clip) if len(sessions) == 1 else None  # noqa: PTH105
            ingest.start_playback()
        elif isinstance(item, Frame) and len(sessions) == 2:
            frames.append(item)
    ingest.close()
    assert [session.info.rate for session in sessions] == [25, 10]
    assert sessions[1].info.colour == sessions[0].info.colour
    assert _at(frames[0], 0.5, 0.5) == pytest.approx(RED[1], abs=2)
    assert _at(frames[0], 0.01, 0.5) == BLACK


PQ = {0.0: 64, 100.0: 509, 203.0: 573, 1000.0: 723}
"""Luminance (cd/m2) -> 10-bit limited-range code of SMPTE ST 2084, as in ITU-R BT.2408, table 1."""


def test_hdr_becomes_sdr_with_its_tags(tmp_path: Path) -> None:
    hdr = {"matrix": 9, "transfer": 16, "primaries": 9, "pix_fmt": "yuv420p10le"}
    clip = _clip(tmp_path / "in.mkv", (0, 512, 512), luma=[*PQ.values()], **hdr)  # type: ignore[arg-type]
    with closing(LiveSource(str(clip), 5.0)) as source:
        assert source.canvas.colour == SDR
        words = "; ".join(source.notes)
        assert "its HDR (PQ) is converted to SDR (BT.709)" in words
        assert "yuv420p10le is converted to 8-bit" in words
        shown = [_at(item, 0.5, 0.5) for item in source if isinstance(item, Frame)]
    assert all(u == v == 128 for _, u, v in shown)
    luma = [y for y, _, _ in shown]
    assert luma == sorted(set(luma))
    assert luma[0] == pytest.approx(16, abs=1)
    assert luma[2] > 200  # HDR's reference white becomes white; its PQ code in 8 bits would be 143
    assert luma[3] <= 236


def test_what_a_relay_converts_is_said_and_tagged_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hdr = {"matrix": 9, "transfer": 18, "primaries": 9, "pix_fmt": "yuv420p10le"}
    clip = _clip(tmp_path / "in.mkv", (500, 512, 512), frames=20, **hdr)  # type: ignore[arg-type]
    target = tmp_path / "out.mkv"
    settings = vsr.RelaySettings(model="bicubic", max_latency=5.0)
    report = vsr.relay(str(clip), str(target), settings=settings)
    assert sum("its HDR (HLG) is converted to SDR" in note for note in report.notes) == 1
    assert caplog.text.count("is converted to SDR") == 1
    with av.open(str(target)) as out:
        picture = next(out.decode(video=0))
    tags = picture.colorspace, picture.color_trc, picture.color_primaries, picture.color_range
    assert tags == (1, 1, 1, 1)


def test_interlaced_pictures_are_said(tmp_path: Path) -> None:
    clip = _clip(tmp_path / "in.mkv", RED[1], size=(160, 96), interlaced=True)
    with closing(LiveSource(str(clip), 5.0, deinterlace="off")) as source:
        assert any("interlaced" in note for note in source.notes)


def test_no_note_where_nothing_is_changed(tmp_path: Path) -> None:
    clip = _clip(tmp_path / "in.mkv", RED[1])
    report = vsr.relay(
        str(clip), str(tmp_path / "out.mkv"), settings=vsr.RelaySettings(model="bicubic"),
        stop=threading.Event(),
    )  # fmt: skip
    assert report.notes == []
