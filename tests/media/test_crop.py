"""Tests that cropping signalled by containers is applied: PixelCrop and clean aperture."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest

import vsr
from tests.clips import Clip, make_clip
from tests.fuzz.mutate import mutated
from vsr.media.crop import crop_of

SIZE = (96, 64)
CLIP = Clip(size=SIZE, frames=3, audio=())


def _element(kind: str, content: bytes) -> bytes:
    return bytes.fromhex(kind) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def _with_pixel_crop(path: Path, crop: tuple[int, int, int, int]) -> Path:
    data = bytearray(make_clip(path, CLIP).read_bytes())
    more = b"".join(
        _element(kind, bytes([value]))
        for kind, value in zip(("54cc", "54dd", "54bb", "54aa"), crop, strict=True)
    )
    places, at = [], 0
    for kind in (b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0"):
        while True:  # skip the elements before it
            known = 9 - data[at].bit_length()
            size, length = _size(data, at + known)
            if data[at : at + known] == kind:
                break
            at += known + length + size
        at += known
        places.append((at, size, length))
        at += length
    data[at:at] = more
    for at, size, length in reversed(places):
        if size != (1 << 7 * length) - 1:  # not the code of an unknown size, up to the end
            wide = (size + len(more) | 1 << 56).to_bytes(8, "big")
            data[at : at + length] = wide
            more += bytes(8 - length)  # enclosing elements grow by this too
    path.write_bytes(data)
    return path


def _size(data: bytearray, at: int) -> tuple[int, int]:
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big") & (1 << 7 * length) - 1
    return value, length


def _with_aperture(path: Path, crop: tuple[int, int, int, int]) -> Path:
    data = bytearray(make_clip(path, CLIP).read_bytes())
    left, right, top, bottom = crop
    kept = (SIZE[0] - left - right, SIZE[1] - top - bottom)
    values = (kept[0], 1, kept[1], 1, left - right, 2, top - bottom, 2)
    box = struct.pack(">I4s8i", 40, b"clap", *values)
    end = 0
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        at = data.index(kind, data.index(b"moov")) - 4
        size = struct.unpack_from(">I", data, at)[0]
        end = at + size
        struct.pack_into(">I", data, at, size + len(box))
    data[end:end] = box
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("crop", [(0, 0, 8, 8), (4, 12, 2, 6)])
@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_what_is_shown_is_enlarged(
    tmp_path: Path, ending: str, crop: tuple[int, int, int, int]
) -> None:
    make = _with_pixel_crop if ending == "mkv" else _with_aperture
    path = make(tmp_path / f"in.{ending}", crop)
    assert crop_of(path) == crop
    left, right, top, bottom = crop
    with av.open(str(path)) as file:
        whole = next(file.decode(video=0)).to_ndarray(format="gray")
    shown = whole[top : SIZE[1] - bottom, left : SIZE[0] - right]
    output = tmp_path / "out.mkv"
    report = vsr.upscale(path, output, model="bicubic")
    assert report.frames_out == 3
    with av.open(str(output)) as file:
        large = next(file.decode(video=0))
        assert (large.width, large.height) == (2 * shown.shape[1], 2 * shown.shape[0])
        small = large.reformat(width=shown.shape[1], height=shown.shape[0], format="gray")
    assert np.abs(small.to_ndarray().astype(float) - shown).mean() < 4


def test_files_without_a_crop(tmp_path: Path) -> None:
    for name in ("in.mkv", "in.mp4", "in.ts"):
        assert crop_of(make_clip(tmp_path / name, CLIP)) is None
    assert crop_of(tmp_path / "none.mkv") is None


def test_damaged_files_have_a_crop_or_none(tmp_path: Path) -> None:
    whole = [_with_pixel_crop(tmp_path / "in.mkv", (4, 12, 2, 6)).read_bytes()]
    whole += [_with_aperture(tmp_path / "in.mp4", (4, 12, 2, 6)).read_bytes()]
    path = tmp_path / "damaged"
    for index in range(200):
        path.write_bytes(mutated(whole[index % 2], 1, index))
        found = crop_of(path)
        assert found is None or min(found) >= 0
