"""Tests that alpha is upscaled and kept, or reported as lost if the output cannot store it."""

from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.facts import contents
from tests.files.test_faithful import upscaled
from vsr.media.alpha import enlarge_alpha

SIZE: Final = (64, 48)
FRAMES: Final = 4


def _disc(size: tuple[int, int], number: int) -> npt.NDArray[np.float64]:
    """Return a soft-edged disc that moves with the frame number, 0 to 1."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]] / size[0]
    away = np.hypot(x - 0.5 - number / 40, y - 0.375)
    return np.clip((0.3 - away) * 8 + 0.5, 0, 1)


def _film(path: Path, codec: str, pixel_format: str) -> Path:
    """Write a reddish film with the disc as its alpha."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pixel_format
        stream.codec_context.color_range = 1
        if codec == "libvpx-vp9":
            stream.options = {"crf": "4", "b": "0"}
        for k in range(FRAMES):
            rgba = np.zeros((*SIZE[::-1], 4), np.uint8)
            rgba[..., 0], rgba[..., 1], rgba[..., 2] = 180, 60 + 10 * k, 40
            rgba[..., 3] = np.rint(255 * _disc(SIZE, k))
            picture = av.VideoFrame.from_ndarray(rgba, format="rgba")
            if pixel_format != "rgba":
                picture = picture.reformat(format=pixel_format)
            picture.pts, picture.time_base = k, Fraction(1, 25)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def _alphas(path: Path) -> list[npt.NDArray[np.float64]]:
    """Return the alpha of each picture, 0 to 1, from a decoder that supports alpha."""
    found = []
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        decoder: Any = stream.codec_context
        if stream.metadata.get("alpha_mode") == "1":
            decoder = av.CodecContext.create("libvpx-vp9", "r")
        for packet in film.demux(stream):
            for picture in decoder.decode(packet):
                assert any(part.is_alpha for part in picture.format.components)
                rgba = picture.reformat(format="rgba64le").to_ndarray()
                found.append(rgba[..., 3] / 65_535)
    return found


CODECS: Final = {
    "prores": ("prores_ks", "yuva444p10le", ".mov"),
    "ffv1": ("ffv1", "yuva420p", ".mkv"),
    "ffv1 rgb": ("ffv1", "gbrap10le", ".mkv"),
    "png": ("png", "rgba", ".mov"),
    "qtrle": ("qtrle", "argb", ".mov"),
    "vp9": ("libvpx-vp9", "yuva420p", ".webm"),
}


@pytest.mark.parametrize("source", CODECS)
@pytest.mark.parametrize(
    ("name", "codec"),
    [("out.mov", "prores"), ("out.mkv", "ffv1"), ("out.webm", "vp9"), ("out.mov", "png")],
)
def test_transparency_is_enlarged_and_kept(
    tmp_path: Path, source: str, name: str, codec: str
) -> None:
    encoder, pixel_format, suffix = CODECS[source]
    path = _film(tmp_path / f"in{suffix}", encoder, pixel_format)
    assert len(_alphas(path)) == FRAMES
    result, report = upscaled(path, name, codec=codec, preset=None)
    assert "transparency" not in " ".join(report.notes)
    after = _alphas(tmp_path / name)
    assert len(after) == FRAMES == result.frames
    for k, alpha in enumerate(after):
        assert alpha.shape == (2 * SIZE[1], 2 * SIZE[0])
        assert np.abs(alpha - _disc((2 * SIZE[0], 2 * SIZE[1]), k)).mean() < 0.02
        assert alpha.min() < 0.02 and alpha.max() > 0.98


@pytest.mark.parametrize("source", ["prores", "png", "vp9"])
@pytest.mark.parametrize(("name", "codec"), [("out.mp4", "h264"), ("out.mp4", "vp9")])
def test_transparency_that_is_lost_is_named(
    tmp_path: Path, source: str, name: str, codec: str
) -> None:
    encoder, pixel_format, suffix = CODECS[source]
    path = _film(tmp_path / f"in{suffix}", encoder, pixel_format)
    preset = "ultrafast" if codec == "h264" else None
    result, report = upscaled(path, name, codec=codec, preset=preset)
    assert "transparency" in " ".join(report.notes)
    assert result.frames == FRAMES


def test_webm_keeps_transparency_by_default(tmp_path: Path) -> None:
    path = _film(tmp_path / "in.webm", "libvpx-vp9", "yuva420p")
    _, report = upscaled(path, "out.webm", preset=None)
    assert report.notes == []
    assert len(_alphas(tmp_path / "out.webm")) == FRAMES
    assert contents(tmp_path / "out.webm").pts == contents(path).pts


@pytest.mark.parametrize(("name", "codec"), [("out.webm", "vp9"), ("out.mov", "prores")])
def test_numbered_pictures_keep_theirs_in_a_video(tmp_path: Path, name: str, codec: str) -> None:
    for k in range(FRAMES):
        rgba = np.full((*SIZE[::-1], 4), 90, np.uint8)
        rgba[..., 3] = np.rint(255 * _disc(SIZE, k))
        Image.fromarray(rgba).save(tmp_path / f"in_{k}.png")
    _, report = upscaled(tmp_path / "in_%d.png", name, codec=codec, preset=None)
    assert "transparency" not in " ".join(report.notes)
    for k, alpha in enumerate(_alphas(tmp_path / name)):
        assert np.abs(alpha - _disc((2 * SIZE[0], 2 * SIZE[1]), k)).mean() < 0.02


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_alpha_is_enlarged_within_its_range(bits: int) -> None:
    top = 2**bits - 1
    step = np.zeros((8, 8), np.uint8 if bits == 8 else np.uint16)
    step[:, 4:] = top
    large = enlarge_alpha(step, (16, 16), bits, bits)
    assert (large.min(), large.max(), large.dtype) == (0, top, step.dtype)
    assert enlarge_alpha(None, (4, 6), 8, bits).tolist() == [[top] * 6] * 4
