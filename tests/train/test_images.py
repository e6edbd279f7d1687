"""Tests of image folders: every kind is read; unusable files are reported and skipped."""

import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from tests.training import encoded, noise, png
from train.data.images import images, read_rgb
from train.errors import TrainError

GRADIENT = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None, :], 20, 0)  # [20, 24]


def _palette() -> Image.Image:
    return Image.fromarray(GRADIENT).convert("P")


def _clear_palette() -> Image.Image:
    image = _palette()
    image.info["transparency"] = bytes(range(240))
    return image


def _with_alpha() -> Image.Image:
    rgba = Image.fromarray(GRADIENT).convert("RGBA")
    rgba.putalpha(Image.fromarray(GRADIENT.T.copy()).resize((24, 20)))
    return rgba


KINDS: dict[str, Callable[[], Image.Image]] = {
    "grey": lambda: Image.fromarray(GRADIENT),
    "grey with alpha": lambda: Image.fromarray(GRADIENT).convert("LA"),
    "16-bit grey": lambda: Image.fromarray(GRADIENT.astype(np.uint16) * 257),
    "palette": _palette,
    "palette with alpha": _clear_palette,
    "alpha": _with_alpha,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_read_as_the_rgb_it_shows(tmp_path: Path, kind: str) -> None:
    image = KINDS[kind]()
    (tmp_path / "a.png").write_bytes(encoded(image))
    with Image.open(tmp_path / "a.png") as back:
        assert back.mode == image.mode  # otherwise the file has another mode
        assert ("transparency" in back.info) == (kind == "palette with alpha")
    assert np.array_equal(read_rgb(tmp_path / "a.png"), np.stack([GRADIENT] * 3, axis=2))


def _bomb() -> bytes:
    """Return a PNG of a few bytes whose header claims 100,000 x 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        check = zlib.crc32(kind + body)
        content += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)
    return content


def _broken_chunk() -> bytes:
    whole = bytearray(png(noise(300, 300)))  # several IDAT chunks
    at = whole.rindex(b"IDAT")
    whole[at : at + 4] = b"\x00\x01\x02\x03"
    return bytes(whole)


def _broken_avif() -> bytes:
    if not features.check("avif"):
        return b""  # test the empty file again
    whole = encoded(Image.fromarray(noise(60, 60)), "AVIF")
    start = whole.index(b"mdat") + 4
    return whole[:start] + bytes(len(whole) - start)


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", png(noise(60, 60))[:3000], _broken_chunk(), _broken_avif(), _bomb()],
    ids=["empty", "text", "truncated", "broken chunk", "broken avif", "too many pixels"],
)
def test_an_unreadable_image_is_named_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    (tmp_path / "good.png").write_bytes(png(noise(40, 40)))
    with caplog.at_level(logging.WARNING, "train"):
        assert [path.name for path, _ in images([tmp_path])] == ["good.png"]
    skipped, total = [record.getMessage() for record in caplog.records]
    assert skipped.startswith(f"skipped {tmp_path / 'bad.png'}: ")
    assert total == f"1 of 2 files in {tmp_path} were skipped"


def test_images_of_all_folders_come_by_name_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.png", "a/3.png", "a/.hidden.png", "a/deeper/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(noise(4, 4)))
    found = [path.name for path, _ in images([tmp_path / "b", tmp_path / "a"])]
    assert found == ["3.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("folder", "complaint"),
    [
        ("empty", r"no usable image in .*empty \(0 skipped\)"),
        ("text", r"no usable image in .*text \(1 skipped\)"),
        ("missing", "cannot read the folder .*missing: No such file"),
        ("text/notes.txt", "cannot read the folder .*notes.txt: Not a directory"),
    ],
)
def test_a_folder_without_a_usable_image_is_refused_in_one_line(
    tmp_path: Path, folder: str, complaint: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/notes.txt").write_text("no image")
    with pytest.raises(TrainError, match=complaint) as caught:
        list(images([tmp_path / folder]))
    assert "\n" not in str(caught.value)
