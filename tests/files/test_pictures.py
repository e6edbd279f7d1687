"""`vsr run` on photos, numbered pictures, folders, GIF and APNG."""

import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, ImageOps

import vsr
from tests.clips import Clip, make_clip, picture
from tests.programs import FFMPEG, needs_ffmpeg
from vsr.errors import InputError, OutputError, UsageError
from vsr.media.pictures.extras import rgb_and_extras

Pixels = npt.NDArray[np.uint8]
SIZE = (60, 40)
DELAYS = [100, 50, 250, 330]
GPS = {1: "N", 2: (1.0, 2.0, 3.0)}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _image(index: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.fromarray(picture(size, index))


def _run(source: Path | str, target: Path | str, **options: Any) -> Any:
    return vsr.upscale(source, target, model="bicubic", **options)


def _pixels(path: Path, mode: str = "RGB") -> npt.NDArray[np.float64]:
    with Image.open(path) as image:
        return np.asarray(image.convert(mode), np.float64)


def _likeness(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Return the PSNR, in dB."""
    return float(10 * np.log10(255**2 / max(1e-9, ((one - other) ** 2).mean())))


def _cubic(image: Image.Image, scale: int = 2) -> npt.NDArray[np.float64]:
    """Enlarge with Pillow, which uses the same cubic (a = -0.5) at these factors."""
    width, height = image.size
    large = image.resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    return np.asarray(large, np.float64)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    sizes = exif.get_ifd(0x8769)
    sizes[0xA002], sizes[0xA003], sizes[0x9003] = *SIZE, "2020:01:01 00:00:00"
    return exif


@pytest.mark.parametrize(
    ("orientation", "target"),
    [*((turn, "photo_x2.png") for turn in range(1, 9)), (1, "photo_x2.jpg"), (6, "photo_x2.jpg")],
)
def test_a_photo_keeps_exif_and_profile_and_stands_upright(
    tmp_path: Path, orientation: int, target: str
) -> None:
    source = tmp_path / "photo.jpg"
    _image().save(
        source, exif=_exif(orientation), icc_profile=SRGB, dpi=(300, 300), quality=95,
        subsampling=0,
    )  # fmt: skip
    report = _run(source, tmp_path / target)
    assert (report.frames_in, report.frames_out, report.notes) == (1, 1, [])
    with Image.open(source) as small, Image.open(tmp_path / target) as large:
        upright = ImageOps.exif_transpose(small)
        assert large.size == tuple(2 * n for n in upright.size)
        assert _likeness(np.asarray(large, np.float64), _cubic(upright)) > 38
        assert large.info["icc_profile"] == SRGB
        assert [round(n) for n in large.info["dpi"]] == [300, 300]
        exif = large.getexif()
        assert exif.get(0x0112, 1) == 1  # upright: viewers do not rotate it again
        sizes = exif.get_ifd(0x8769)
        assert (exif[0x010F], sizes[0x9003]) == ("Maker", "2020:01:01 00:00:00")
        assert (sizes[0xA002], sizes[0xA003]) == (120, 80)
    assert {path.name for path in tmp_path.iterdir()} == {"photo.jpg", target}


@pytest.mark.parametrize(
    ("kind", "ending"),
    [("png", "jpg"), ("tif", "tiff"), ("tif", "png"), ("bmp", "webp"), ("gif", "bmp"),
     ("webp", "tiff"), ("png", "bmp")],
)  # fmt: skip
def test_formats_into_formats(tmp_path: Path, kind: str, ending: str) -> None:
    source, target = tmp_path / f"in.{kind}", tmp_path / f"out.{ending}"
    _image().save(source, **({"lossless": True} if kind == "webp" else {}))
    _run(source, target)
    with Image.open(source) as small:
        assert _likeness(_pixels(target), _cubic(small.convert("RGB"))) > 38


def test_full_colour_resolution(tmp_path: Path) -> None:
    """Coloured lines of one pixel survive, so the picture is never converted to 4:2:0."""
    lines = np.zeros((40, 60, 3), np.uint8)
    lines[:, ::2, 0], lines[:, 1::2, 2] = 255, 255
    Image.fromarray(lines).save(tmp_path / "in.png")
    _run(tmp_path / "in.png", tmp_path / "out.png")
    assert _likeness(_pixels(tmp_path / "out.png"), _cubic(Image.fromarray(lines))) > 45


@pytest.mark.parametrize(("mode", "kept"), [("L", "L"), ("1", "L"), ("I;16", "L"), ("LA", "LA")])
def test_grey_stays_grey(tmp_path: Path, mode: str, kept: str) -> None:
    grey = _image().convert("L")
    image = grey.convert(mode)
    if mode == "I;16":
        image = Image.fromarray((np.asarray(grey).astype(np.uint16)) * 257)
    if mode == "LA":
        image.putalpha(Image.linear_gradient("L").resize(SIZE))
    image.save(tmp_path / "in.png")
    report = _run(tmp_path / "in.png", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as large:
        assert (large.mode, large.size) == (kept, (120, 80))
    if mode == "I;16":
        assert report.losses == ["16 bits per sample are read as 8"]
    if mode != "1":
        assert _likeness(_pixels(tmp_path / "out.png", "L"), _cubic(grey)) > 38


def test_transparency_is_kept_and_what_it_hides_does_not_show(tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 4), np.uint8)  # hidden pixels are black
    pixels[10:30, 15:45] = (250, 200, 100, 255)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    _run(tmp_path / "in.png", tmp_path / "out.png")
    large = _pixels(tmp_path / "out.png", "RGBA")
    alpha = large[..., 3]
    assert (alpha[24:56, 34:86] == 255).all() and not alpha[:16].any()
    assert abs(large[alpha > 0, :3] - (250, 200, 100)).max() <= 1
    report = _run(tmp_path / "in.png", tmp_path / "out.jpg")
    assert report.notes == ["out.jpg cannot contain transparency (replaced by white): left out"]
    assert (_pixels(tmp_path / "out.jpg")[0, 0] > 250).all()


@pytest.mark.parametrize(
    ("words", "kind", "complaint"),
    [
        ({"crf": 20}, UsageError, "pictures have no codec, crf, preset or bitrate"),
        ({"encoder_options": {"crf": "1"}}, UsageError, "PNG has no option 'crf'; it has: compr"),
        ({"container": "mkv"}, UsageError, "--format requires OUTPUT -"),
        ({"fps": Fraction(5)}, UsageError, "--fps requires numbered pictures"),
    ],
)
def test_options_of_videos_are_refused(
    tmp_path: Path, words: dict[str, Any], kind: type[Exception], complaint: str
) -> None:
    source = tmp_path / "in.mkv"
    make_clip(source, Clip(frames=1, audio=()))
    with pytest.raises(kind, match=complaint):
        _run(source, tmp_path / "out.png", **words)
    assert list(tmp_path.iterdir()) == [source]


def test_quality_is_pillows(tmp_path: Path) -> None:
    _image().save(tmp_path / "in.png")
    for quality in ("20", "95"):
        _run(tmp_path / "in.png", tmp_path / f"{quality}.jpg", encoder_options={"quality": quality})
    assert (tmp_path / "20.jpg").stat().st_size < (tmp_path / "95.jpg").stat().st_size / 2


def _sequence(folder: Path, numbers: list[int], size: tuple[int, int] = SIZE) -> None:
    for number in numbers:
        _image(number, size).save(folder / f"frame_{number}.png")


def _frames_of(path: Path) -> list[tuple[float, tuple[int, int]]]:
    with av.open(str(path)) as file:
        return [(float(f.time or 0), (f.width, f.height)) for f in file.decode(video=0)]


@pytest.mark.parametrize("name", ["frame_%d.png", "."])
def test_pictures_become_a_video(tmp_path: Path, name: str) -> None:
    """Pictures are read in numeric order, 9 before 10; gaps in the numbers are allowed."""
    folder = tmp_path / "in"
    folder.mkdir()
    numbers = [8, 9, 10, 11, 20]
    _sequence(folder, numbers)
    (folder / "notes.txt").write_text("no picture")
    report = _run(folder / name, tmp_path / "out.mkv", fps=Fraction(10), crf=1)
    shown = _frames_of(tmp_path / "out.mkv")
    assert [time for time, _ in shown] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert {size for _, size in shown} == {(120, 80)}
    assert report.notes == ["RGB pictures are converted to 8-bit 4:2:0 before upscaling"]
    with av.open(str(tmp_path / "out.mkv")) as file:
        seen = [f.to_ndarray(format="rgb24").astype(float) for f in file.decode(video=0)]
    for number, rgb in zip(numbers, seen, strict=True):
        wanted = [_likeness(rgb, _cubic(_image(n))) for n in numbers]
        assert numbers[int(np.argmax(wanted))] == number


def test_a_video_becomes_numbered_pictures(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=12))
    report = _run(source, tmp_path / "out_%03d.png")
    names = sorted(path.name for path in tmp_path.glob("out_*"))
    assert names == [f"out_{n:03d}.png" for n in range(1, 13)]
    assert len(report.ledger) == 12
    with av.open(str(source)) as file:
        small = [f.to_image() for f in file.decode(video=0)]
    assert _likeness(_pixels(tmp_path / "out_005.png"), _cubic(small[4])) > 33
    with pytest.raises(OutputError, match=r"the output exists: .*out_001\.png \(give -y"):
        _run(source, tmp_path / "out_%03d.png")
    assert len(list(tmp_path.glob("out_*"))) == 12


@needs_ffmpeg
@pytest.mark.parametrize("rotation", [90, 180, 270, -1])
def test_pictures_of_a_turned_video_are_upright(tmp_path: Path, rotation: int) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=1, rotation=rotation, audio=()))
    wanted = tmp_path / "wanted.png"
    subprocess.run([FFMPEG, "-v", "error", "-i", source, wanted], check=True)
    _run(source, tmp_path / "out.png")
    with Image.open(wanted) as small:
        assert _likeness(_pixels(tmp_path / "out.png"), _cubic(small)) > 33


def test_numbers_and_names_are_kept(tmp_path: Path) -> None:
    _sequence(tmp_path, [0, 1, 7])
    _run(tmp_path / "frame_%d.png", tmp_path / "large_%04d.jpg")
    assert sorted(p.name for p in tmp_path.glob("*.jpg")) == [
        "large_0000.jpg", "large_0001.jpg", "large_0007.jpg",
    ]  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    _run(tmp_path / "frame_7.png", out)
    assert [path.name for path in out.iterdir()] == ["frame_7.png"]


def test_a_folder_of_photos_into_another(tmp_path: Path) -> None:
    """Each output keeps the name of its input, and has the size of its input x2."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    sizes = {"a.png": (60, 40), "b.jpg": (40, 60), "c.webp": (60, 40), "d.gif": (33, 21)}
    for name, size in sizes.items():
        _image(0, size).save(folder / name)
    report = _run(folder, out)
    assert report.frames_out == 4
    made = {}
    for path in out.iterdir():
        with Image.open(path) as image:
            made[path.name] = image.size
    wanted = {name.replace(".gif", ".png"): (2 * w, 2 * h) for name, (w, h) in sizes.items()}
    assert made == wanted
    with pytest.raises(UsageError, match="input and output are the same file"):
        _run(folder, folder, overwrite=True)
    with pytest.raises(OutputError, match="the output exists"):
        _run(folder, out)


def test_pictures_of_other_sizes_fit_a_video(tmp_path: Path) -> None:
    _sequence(tmp_path, [1, 2])
    _sequence(tmp_path, [3], (30, 30))
    report = _run(tmp_path / "frame_%d.png", tmp_path / "out.mkv")
    assert {size for _, size in _frames_of(tmp_path / "out.mkv")} == {(120, 80)}
    assert report.losses == ["pictures of other sizes than 60x40 are resized to it"]
    assert report.exit_code == 0


def _animation(path: Path, **words: Any) -> Path:
    first, *rest = (_image(k) for k in range(len(DELAYS)))
    first.save(path, save_all=True, append_images=rest, duration=DELAYS, **words)
    return path


def _shown(path: Path) -> list[tuple[float, npt.NDArray[np.float64]]]:
    """Return (delay in ms, R'G'B'A) of an animation's frames, as read by Pillow."""
    found = []
    with Image.open(path) as file:
        for place in range(getattr(file, "n_frames", 1)):
            file.seek(place)
            found.append((file.info["duration"], np.asarray(file.convert("RGBA"), np.float64)))
    return found


@pytest.mark.parametrize("kind", ["gif", "apng"])
@pytest.mark.parametrize("loop", [0, 3])
def test_animations_keep_their_delays(tmp_path: Path, kind: str, loop: int) -> None:
    source = _animation(tmp_path / f"in.{kind}", loop=loop)
    target = tmp_path / f"out.{kind}"
    report = _run(source, target)
    assert (report.frames_in, report.frames_out) == (4, 4)
    small, large = _shown(source), _shown(target)
    assert [delay for delay, _ in large] == DELAYS
    for (_, before), (_, after) in zip(small, large, strict=True):
        wanted = _cubic(Image.fromarray(before[..., :3].astype(np.uint8)))
        assert _likeness(after[..., :3], wanted) > (28 if kind == "gif" else 45)
    with Image.open(target) as file:
        assert file.info["loop"] == loop


def test_a_gif_that_says_nothing_of_repeating_does_not(tmp_path: Path) -> None:
    source = _animation(tmp_path / "in.gif")
    _run(source, tmp_path / "out.gif")
    for path in (source, tmp_path / "out.gif"):
        with Image.open(path) as file:
            assert "loop" not in file.info


def test_transparency_of_an_animation(tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[10:30, 15:45] = (250, 200, 100, 255)
    frames = [Image.fromarray(np.roll(pixels, 3 * k, 1)) for k in range(3)]
    frames[0].save(
        tmp_path / "in.gif", save_all=True, append_images=frames[1:], duration=100, disposal=2
    )
    for target in ("out.gif", "out.apng", "out_%d.png"):
        _run(tmp_path / "in.gif", tmp_path / target)
    for path in (tmp_path / "out.gif", tmp_path / "out.apng"):
        for place, (_, after) in enumerate(_shown(path)):
            middle = 60 + 6 * place
            assert (after[:16, :, 3] == 0).all()
            assert (after[30:50, middle - 20 : middle + 20, 3] == 255).all()
    assert _pixels(tmp_path / "out_2.png", "RGBA")[0, 0, 3] == 0


def test_animations_and_videos(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(pts=[0, 40, 200, 600], frames=4, audio=()))
    _run(source, tmp_path / "out.gif")
    assert [delay for delay, _ in _shown(tmp_path / "out.gif")][:3] == [40, 160, 400]
    _run(_animation(tmp_path / "in.gif"), tmp_path / "out.mkv")
    times = [time for time, _ in _frames_of(tmp_path / "out.mkv")]
    assert times == pytest.approx([0, 0.1, 0.15, 0.4])


def test_an_animated_png_stays_one(tmp_path: Path) -> None:
    source = _animation(tmp_path / "in.png")
    _run(source, tmp_path / "out.png")
    assert [delay for delay, _ in _shown(tmp_path / "out.png")] == DELAYS


def test_many_pictures_into_one_file_are_refused(tmp_path: Path) -> None:
    source = _animation(tmp_path / "in.gif")
    with pytest.raises(
        UsageError, match=r"out.jpg can contain only one .* out_%05d\.jpg, or --max"
    ):
        _run(source, tmp_path / "out.jpg")
    _run(source, tmp_path / "out.jpg", max_frames=1)
    assert {path.name for path in tmp_path.iterdir()} == {"in.gif", "out.jpg"}


def test_a_damaged_picture_among_others(tmp_path: Path) -> None:
    _sequence(tmp_path, [1, 2, 3])
    whole = (tmp_path / "frame_2.png").read_bytes()
    (tmp_path / "frame_2.png").write_bytes(whole[: len(whole) // 2])
    report = _run(tmp_path / "frame_%d.png", tmp_path / "out_%d.png")
    assert (report.frames_out, report.lost, report.exit_code) == (2, 1, 3)
    assert {p.name for p in tmp_path.glob("out_*")} == {"out_1.png", "out_3.png"}
    assert "frame_2.png cannot be read" in report.losses[0]
    (tmp_path / "frame_1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(InputError, match=r"frame_1\.png is not a picture, or it is damaged"):
        _run(tmp_path / "frame_%d.png", tmp_path / "other_%d.png")


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    """If a file blocks the third output, the first two outputs are deleted again."""
    _sequence(tmp_path, [1, 2, 3])
    (tmp_path / "out_3.png").write_text("mine")
    with pytest.raises(OutputError, match="the output exists"):
        _run(tmp_path / "frame_%d.png", tmp_path / "out_%d.png")
    assert {path.name for path in tmp_path.glob("out*")} == {"out_3.png"}
    with pytest.raises(InputError, match="no file matches"):
        _run(tmp_path / "none_%d.png", tmp_path / "out_%d.png")
    with pytest.raises(UsageError, match="input and output are the same file"):
        _run(tmp_path / "frame_1.png", tmp_path / "frame_1.png", overwrite=True)


def test_replaced_pictures_come_back_after_an_error(tmp_path: Path) -> None:
    """If a folder blocks the third output, the first is restored and the second is deleted."""
    _sequence(tmp_path, [1, 2, 3])
    (tmp_path / "out_1.png").write_text("mine")
    (tmp_path / "kept.png").write_text("linked")
    (tmp_path / "out_2.png").symlink_to("new.png")
    (tmp_path / "out_3.png").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=r"the output .*out_3\.png is a folder"):
        _run(tmp_path / "frame_%d.png", tmp_path / "out_%d.png", overwrite=True)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "out_1.png").read_text() == "mine"
    (tmp_path / "out_3.png").rmdir()
    (tmp_path / "out_3.png").symlink_to("kept.png")
    _run(tmp_path / "frame_%d.png", tmp_path / "out_%d.png", overwrite=True)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "new.png"])
    for name in ("out_1.png", "new.png", "kept.png"):
        assert _pixels(tmp_path / name).shape == (80, 120, 3)
    assert (tmp_path / "out_2.png").is_symlink() and (tmp_path / "out_3.png").is_symlink()


def _tiff(path: Path, exif: Image.Exif) -> None:
    """Write a TIFF with EXIF as cameras do; Pillow's writer breaks the nested directories."""
    width, height = SIZE
    strip = {256: width, 257: height, 258: (8, 8, 8), 259: 1, 262: 2, 273: 0, 277: 3, 278: height}
    exif.update({**strip, 279: 3 * width * height})
    header = exif.tobytes().removeprefix(b"Exif\0\0")
    path.write_bytes(header + _image().tobytes())


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_tiff_photo_keeps_its_exif(tmp_path: Path, orientation: int) -> None:
    """Pillow reads nested TIFF directories from the file, which it closes after the pixels."""
    exif = _exif(orientation)
    exif.get_ifd(0x8825).update(GPS)
    exif.get_ifd(0x8769)[0xA005] = {1: "R98"}
    _tiff(tmp_path / "in.tif", exif)
    for target in ("out.jpg", "out.png", "out.tif"):
        _run(tmp_path / "in.tif", tmp_path / target)
        with Image.open(tmp_path / target) as large:
            assert large.size == ((120, 80) if orientation == 1 else (80, 120))
            exif = large.getexif()
            sizes = exif.get_ifd(0x8769)
            assert exif.get(0x0112, 1) == 1
            assert (exif[0x010F], sizes[0x9003]) == ("Maker", "2020:01:01 00:00:00")
            assert (sizes[0xA002], sizes[0xA003]) == (120, 80)
            assert exif.get_ifd(0x8825) == GPS


def test_extras_serve_several_outputs(tmp_path: Path) -> None:
    """Each call of `save_arguments` scales the EXIF sizes from the original sizes."""
    exif = _exif(1)
    exif.get_ifd(0x8769)[0xA005] = {1: "R98"}
    exif.get_ifd(0x8825).update(GPS)
    _image().save(tmp_path / "in.jpg", exif=exif)
    with Image.open(tmp_path / "in.jpg") as image:
        _, extras = rgb_and_extras(image, tmp_path / "in.jpg", None)
    made = [extras.save_arguments("JPEG", scale)["exif"] for scale in (2, 4, 2)]
    assert made[0] == made[2]
    for data, width in zip(made, (120, 240, 120), strict=True):
        found = Image.Exif()
        found.load(data)
        assert found.get_ifd(0x8769)[0xA002] == width
        assert (found.get_ifd(0x8825), found.get_ifd(0xA005)) == (GPS, {1: "R98"})


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("frame_%03d.png", "frame_%03d.png"),
        ("frame_%d.png", "./frame_%03d.png"),
        ("", "frame_%03d.png"),
        ("", "frame_002.png"),
        ("frame_002.png", "frame_%03d.png"),
    ],
)
def test_pictures_are_not_written_over_those_that_are_read(
    tmp_path: Path, source: str, target: str
) -> None:
    for number in (1, 2):
        _image(number).save(tmp_path / f"frame_{number:03}.png")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="input and output are the same file"):
        _run(tmp_path / source, tmp_path / target, overwrite=True, max_frames=1)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    _run(tmp_path / "frame_%03d.png", tmp_path / "frame_%04d.png")  # other names


def test_pictures_of_a_folder_have_names_of_their_own(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.gif", "a.png"):
        _image(0).save(folder / name)
    with pytest.raises(UsageError, match=r"a\.gif and a\.png would both become .*a\.png: rename"):
        _run(folder, f"{out}/", overwrite=True)
    assert not out.exists()


def test_a_picture_through_stdin(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    _image().save(buffer, "PNG")
    subprocess.run(
        [sys.executable, "-m", "vsr", "run", "-", tmp_path / "out.png", "--model", "bicubic"],
        input=buffer.getvalue(), check=True,
    )  # fmt: skip
    assert _likeness(_pixels(tmp_path / "out.png"), _cubic(_image())) > 33


def test_fps_as_it_is_typed(tmp_path: Path) -> None:
    _sequence(tmp_path, [1, 2, 3])
    command = [sys.executable, "-m", "vsr", "run", tmp_path / "frame_%d.png", tmp_path / "out.mp4"]
    options = ["--model", "bicubic", "--fps", "30000/1001"]
    subprocess.run([*command, *options], check=True)
    times = [time for time, _ in _frames_of(tmp_path / "out.mp4")]
    assert times == pytest.approx([0, 1001 / 30000, 2002 / 30000], abs=1e-4)
    done = subprocess.run([*command, "--fps", "0"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"'0' is not a positive number such as 25 or 30000/1001" in done.stderr


@pytest.mark.parametrize("source", ["in/", "in/frame_%d.png", "in/frame_1.png"])
def test_a_folder_named_with_a_slash_is_created(tmp_path: Path, source: str) -> None:
    (tmp_path / "in").mkdir()
    _sequence(tmp_path / "in", [1, 2])
    vsr.upscale(f"{tmp_path}/{source}", f"{tmp_path}/large/", model="bicubic")
    made = ["frame_1.png", "frame_2.png"][: 1 if source.endswith("1.png") else 2]
    assert sorted(file.name for file in (tmp_path / "large").iterdir()) == made
    with pytest.raises(OutputError, match=r"exists: .*overwrite=True"):
        vsr.upscale(f"{tmp_path}/{source}", f"{tmp_path}/large/", model="bicubic")


def test_a_folder_that_gets_no_picture_is_not_left(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="no picture in the folder"):
        vsr.upscale(f"{tmp_path}/in/", f"{tmp_path}/large/", model="bicubic")
    _sequence(tmp_path / "in", [1])
    with pytest.raises(UsageError, match="unknown model"):
        vsr.upscale(f"{tmp_path}/in/", f"{tmp_path}/large/", model="none")
    with pytest.raises(UsageError, match="is a folder, but the input is not a picture"):
        vsr.upscale(make_clip(tmp_path / "a.mp4"), f"{tmp_path}/large/", model="bicubic")
    with pytest.raises(OutputError, match="cannot create the folder"):
        vsr.upscale(f"{tmp_path}/in/", f"{tmp_path}/no/large/", model="bicubic")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "in"]
