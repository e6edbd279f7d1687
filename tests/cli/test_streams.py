"""Standard streams that are closed, full or unread, and file names that are not UTF-8."""

import os
import subprocess
import sys
from pathlib import Path

import av
import pytest

import vsr
from tests.clips import Clip, make_clip
from tests.facts import contents
from tests.files.test_faithful import upscaled
from vsr.cli.streams import print_result, write_if_possible
from vsr.errors import OutputError, UsageError
from vsr.media.target import part_path

ROOT = Path(__file__).parents[2]
QUICK = "--model bicubic -y --preset ultrafast"


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a bash command line in which `$VSR` is the program."""
    environment = {**os.environ, "VSR": f"{sys.executable} -m vsr", "PYTHONPATH": str(ROOT)}
    command = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "ending",
    ["2>&-", ">&- 2>&-", "<&- --progress json >&-", "--progress json >/dev/full", "2>/dev/full"],
)
def test_a_run_is_done_whatever_becomes_of_its_words(tmp_path: Path, ending: str) -> None:
    make_clip(tmp_path / "in.mkv", Clip(audio=("aac",), subtitles="subrip", attachment=b"x"))
    done = shell(f"$VSR run in.mkv out.mp4 {QUICK} {ending}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out.mp4").frames == 12
    assert "Traceback" not in done.stderr


def test_a_run_that_fails_says_so_by_its_code_without_streams(tmp_path: Path) -> None:
    assert shell(f"$VSR run none.mp4 out.mp4 {QUICK} >&- 2>&-", tmp_path).returncode == 1


def test_a_list_for_a_full_disk_fails_in_one_line_and_for_head_it_does_not(tmp_path: Path) -> None:
    full = shell("$VSR models >/dev/full", tmp_path)
    assert full.returncode == 1
    assert full.stderr.splitlines() == [
        "vsr: error: cannot write to the standard output: No space left on device"
    ]
    early = shell("$VSR models --json | true", tmp_path)
    assert (early.returncode, early.stderr) == (0, "")


def test_results_need_a_stream_and_progress_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device, not a file
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OutputError, match="No space left"):
            print_result("a result")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        assert not write_if_possible(full, "progress")


@pytest.mark.parametrize("name", ["out\udce9.mp4", "\udcff\udcfe.mkv", "\udc80" * 200 + ".mov"])
def test_an_output_whose_name_is_not_utf8_is_written(tmp_path: Path, name: str) -> None:
    source = make_clip(tmp_path / "in.mp4")
    _, report = upscaled(source, name, report=tmp_path / "report.html")
    assert report.frames_out == 12
    assert name in [path.name for path in tmp_path.iterdir()]
    assert (tmp_path / "report.html").stat().st_size > 1000
    part_path(Path(name)).name.encode()
    assert not [left for left in tmp_path.iterdir() if ".part" in left.name]


@pytest.mark.parametrize("kind", ["relative", "absolute", "chain", "dangling"])
def test_an_output_that_is_a_symbolic_link_stays_one(tmp_path: Path, kind: str) -> None:
    source = make_clip(tmp_path / "in.mp4")
    real = tmp_path / "elsewhere" / "real.mp4"
    real.parent.mkdir()
    link = tmp_path / "out.mp4"
    if kind != "dangling":
        real.write_bytes(b"old")
    aim = real if kind == "absolute" else Path("elsewhere/real.mp4")
    if kind == "chain":
        (tmp_path / "between.mp4").symlink_to(aim)
        aim = Path("between.mp4")
    link.symlink_to(aim)
    if kind != "dangling":
        with pytest.raises(OutputError, match="give -y, or overwrite=True"):
            upscaled(source)
    upscaled(source, overwrite=True)
    assert link.is_symlink()
    assert not real.is_symlink()
    assert contents(real).frames == 12
    assert [left.name for left in real.parent.iterdir()] == ["real.mp4"]


def test_a_report_that_is_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4")
    link = tmp_path / "report.json"
    link.symlink_to("real.json")
    vsr.upscale(source, tmp_path / "out.mp4", model="bicubic", report=link)
    assert link.is_symlink()
    assert (tmp_path / "real.json").stat().st_size > 1000


@pytest.mark.parametrize(
    ("codec", "name", "use"),
    [
        ("dnxhd", "out.mkv", "use .mov"), ("libvpx", "out.mp4", "use .mkv or .webm"),
        ("prores_ks", "out.mp4", "use .mkv or .mov"), ("av1", "out.ts", "use .mp4 or .mkv"),
        ("h264", "out.webm", "use .mp4 or .mkv"), ("h264", "out.y4m", "use .mp4 or .mkv"),
    ],
)  # fmt: skip
def test_a_codec_the_container_cannot_hold_is_told_with_one_that_can(
    tmp_path: Path, codec: str, name: str, use: str
) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(audio=()))
    with pytest.raises(UsageError, match=f"cannot hold .*'s video; {use}, or leave out --codec$"):
        upscaled(source, name, codec=codec)


def test_what_is_advised_holds_the_codec(tmp_path: Path) -> None:
    for codec, name in (("libvpx", "webm"), ("prores_ks", "matroska"), ("dnxhd", "mov")):
        with av.open(str(tmp_path / "x"), "w", format=name) as out:
            out.add_stream(codec)
