"""Receipts describe the input and output of a run; `vsr verify` detects later changes."""

import json
from hashlib import sha256
from pathlib import Path

import av
import pytest
from click.testing import CliRunner

import vsr
from tests.clips import Clip, make_clip
from vsr.cli.main import main
from vsr.errors import UsageError, VsrError

FRAMES = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an input, its output and the receipt."""
    folder = tmp_path_factory.mktemp("receipt")
    source = make_clip(folder / "in.mkv", Clip(frames=FRAMES, audio=("aac",)))
    vsr.upscale(
        source, folder / "out.mkv", model="c-dcscn", preset="ultrafast", report=folder / "r.csv"
    )
    return folder


def _verify(output: Path, receipt: Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["verify", str(output), "--receipt", str(receipt)])
    return result.exit_code, result.output


def test_it_says_what_was_made_of_what(made: Path) -> None:
    facts = json.loads((made / "r.receipt.json").read_text("utf-8"))
    for key, name in (("input", "in.mkv"), ("output", "out.mkv")):
        content = (made / name).read_bytes()
        assert facts[key]["sha256"] == sha256(content).hexdigest()
        assert facts[key]["bytes"] == len(content)
        assert facts[key]["frames"] == FRAMES
        assert (facts[key]["first_pts_s"], facts[key]["last_pts_s"]) == (0, 0.44)
    assert abs(facts["audio_shift_ms"]) < 1
    assert facts["frames"] == {"in": FRAMES, "out": FRAMES, "lost": 0, "concealed": 0}
    assert facts["model"] == "c-dcscn" and len(facts["model_sha256"]) == 64
    assert facts["encoder"]["name"] == "libx264" and facts["encoder"]["preset"] == "ultrafast"
    assert facts["versions"]["av"] == av.__version__


def test_an_output_is_as_its_receipt_says(made: Path) -> None:
    code, words = _verify(made / "out.mkv", made / "r.receipt.json")
    assert code == 0 and "matches" in words


def _cut(path: Path, data: bytes) -> None:
    path.write_bytes(data[: len(data) * 2 // 3])


def _flipped(path: Path, data: bytes) -> None:
    found = bytearray(data)
    found[len(found) // 2] ^= 1
    path.write_bytes(found)


def _copied(path: Path, data: bytes) -> None:
    """Copy the video packets into another container, without the audio."""
    raw = path.with_suffix(".raw.mkv")
    raw.write_bytes(data)
    with av.open(str(raw)) as source, av.open(str(path), "w", format="nut") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_cut, "but the receipt records 12"),
        (_flipped, "video packets differ"),
        (_copied, "packets are identical"),
    ],
)
def test_what_was_changed_is_said_in_one_line(
    tmp_path: Path, made: Path, change: object, words: str
) -> None:
    output = tmp_path / "out.mkv"
    change(output, (made / "out.mkv").read_bytes())  # type: ignore[operator]
    code, told = _verify(output, made / "r.receipt.json")
    assert code == 1 and words in told and len(told.splitlines()) == 1, told


@pytest.mark.parametrize("content", ["", "\x8b", "{}", "[1]", '{"schema": "vsr-receipt/1"}'])
def test_what_is_no_receipt_is_refused(tmp_path: Path, made: Path, content: str) -> None:
    (tmp_path / "r.json").write_bytes(content.encode("latin-1"))
    code, words = _verify(made / "out.mkv", tmp_path / "r.json")
    assert code == 1 and "is not a receipt" in words


@pytest.mark.parametrize("name", ["in.mkv", "out.mkv", "r.json", "link.mkv"])
def test_it_replaces_no_other_file_of_the_run(tmp_path: Path, made: Path, name: str) -> None:
    source = tmp_path / "in.mkv"
    source.write_bytes((made / "in.mkv").read_bytes())
    (tmp_path / "link.mkv").symlink_to(source)
    with pytest.raises(UsageError, match=r"would replace the (input|output|report): name another"):
        vsr.upscale(
            source, tmp_path / "out.mkv", model="bicubic", report=tmp_path / "r.json",
            receipt=tmp_path / "." / name,
        )  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"in.mkv", "link.mkv"}
    assert source.read_bytes() == (made / "in.mkv").read_bytes()


def test_the_default_receipt_replaces_no_other_file_either(tmp_path: Path, made: Path) -> None:
    source = tmp_path / "in.receipt.json"
    source.write_bytes((made / "in.mkv").read_bytes())
    (tmp_path / "out.mkv").write_bytes(b"an earlier output")
    (tmp_path / "r.receipt.json").symlink_to("out.mkv")
    (tmp_path / "s.receipt.json").symlink_to("s.json")
    (tmp_path / "t.receipt.json").mkdir()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for name, words in (
        ("in.csv", "would replace the input"), ("r.csv", "would replace the output"),
        ("s.json", "would replace the report"), ("t.html", "is a folder"),
    ):  # fmt: skip
        with pytest.raises(VsrError, match=f"receipt.json {words}.*--receipt"):
            vsr.upscale(
                source, tmp_path / "out.mkv", model="bicubic", report=tmp_path / name,
                overwrite=True,
            )  # fmt: skip
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before


def test_it_is_for_video_files(tmp_path: Path, made: Path) -> None:
    with pytest.raises(UsageError, match="--receipt requires one video file"):
        vsr.upscale(made / "in.mkv", tmp_path / "out_%03d.png", receipt=tmp_path / "r.json")
