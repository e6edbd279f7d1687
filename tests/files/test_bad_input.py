"""Invalid input gives one error line and the right exit code, and leaves no partial files."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.clips import Clip, cut_off, make_clip, remuxed
from tests.facts import contents
from vsr.cli.main import main
from vsr.media.frame import Frame
from vsr.media.sink import Sink


def run(*arguments: object) -> Result:
    """Run `vsr run` in this process; the defaults are bicubic and the preset ultrafast."""
    words = ["run", *map(str, arguments)]
    if "--model" not in words:
        words += ["--model", "bicubic"]
    if "--codec" not in words:
        words += ["--preset", "ultrafast"]
    return CliRunner().invoke(main, words)


def assert_refused(result: Result, code: int, *words: str, folder: Path, left: set[str]) -> None:
    """Assert one error line with `words`, the exit code, and that only `left` is in the folder."""
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("vsr: error")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    for word in words:
        assert word in lines[0]
    assert {p.name for p in folder.iterdir()} == left


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in.mp4", Clip())


def test_no_such_file(tmp_path: Path) -> None:
    result = run(tmp_path / "gone.mp4", tmp_path / "out.mp4")
    assert_refused(result, 1, "no such file", "gone.mp4", folder=tmp_path, left=set())


def test_not_a_video(tmp_path: Path) -> None:
    (tmp_path / "in.mp4").write_text("this is a letter, not a video\n" * 100)
    result = run(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert_refused(result, 1, "not a video", folder=tmp_path, left={"in.mp4"})


def test_sound_only(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "both.mp4", Clip())
    with av.open(str(clip)) as source, av.open(str(tmp_path / "in.m4a"), "w") as out:
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    clip.unlink()
    result = run(tmp_path / "in.m4a", tmp_path / "out.mp4")
    assert_refused(result, 1, "no video", "audio", folder=tmp_path, left={"in.m4a"})


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    both = make_clip(tmp_path / "both.mp4", Clip(cover=True, audio=()))
    target = tmp_path / "in.mp4"
    with av.open(str(both)) as source, av.open(str(target), "w") as out:
        cover = source.streams.video[1]
        stream = out.add_stream_from_template(cover, opaque=True)
        stream.disposition = cover.disposition
        for packet in source.demux(cover):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    both.unlink()
    result = run(target, tmp_path / "out.mp4")
    assert_refused(result, 1, "no video", folder=tmp_path, left={"in.mp4"})


def test_no_decodable_frame(tmp_path: Path, clip: Path) -> None:
    data = bytearray(clip.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start) if data.index(b"moov") < start else data[start:]
    moov = data.index(b"moov")
    data[start : moov - 4 if moov > start else len(data)] = bytes(
        (moov - 4 if moov > start else len(data)) - start
    )
    clip.write_bytes(bytes(data))
    result = run(clip, tmp_path / "out.mp4")
    assert_refused(result, 1, "no frame of it can be decoded", folder=tmp_path, left={"in.mp4"})


def test_a_folder_as_input(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    result = run(tmp_path / "in", tmp_path / "out.mp4")
    assert_refused(result, 2, "folder", folder=tmp_path, left={"in"})


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "in.mp4").touch()
    result = run(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert_refused(result, 1, "empty", folder=tmp_path, left={"in.mp4"})


def test_an_unreadable_file_is_wrapped(tmp_path: Path) -> None:
    loop = tmp_path / "in.mp4"
    loop.symlink_to(loop)
    result = run(loop, tmp_path / "out.mp4")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert not (tmp_path / "out.mp4").exists()


def test_an_mp4_cut_off_before_its_index_is_named(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "whole.mp4", Clip(frames=50))
    cut_off(clip, tmp_path / "in.mp4", 0.5)
    clip.unlink()
    result = run(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert_refused(result, 1, "cut off before its index", folder=tmp_path, left={"in.mp4"})


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv"])
def test_a_truncated_file_delivers_what_it_holds(tmp_path: Path, name: str) -> None:
    clip = Clip(frames=100, audio=(), options={"g": "10"})
    whole = _faststart(make_clip(tmp_path / f"whole_{name}", clip), tmp_path / f"fast_{name}")
    cut_off(whole, tmp_path / name, 0.6)
    result = run(tmp_path / name, tmp_path / "out.mp4")
    assert result.exit_code == 3, result.output
    delivered = contents(tmp_path / "out.mp4").frames
    assert 40 < delivered < 80
    lost = int(result.stderr.split("degraded: ")[1].split(" frames lost")[0])
    assert lost == pytest.approx(100 - delivered, abs=2)
    assert "Traceback" not in result.output


@pytest.mark.parametrize("options", [(), ("--jobs", "2", "--segment", "0.5")], ids=str)
def test_a_subtitle_after_the_last_frame_is_no_sign_of_a_cut_off_file(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    clip = make_clip(tmp_path / "clip.mkv", Clip(frames=25, audio=()))
    (tmp_path / "in.srt").write_text("1\n00:00:00,500 --> 00:00:05,000\nThe end\n")
    with (
        av.open(str(tmp_path / "in.mkv"), "w") as out,
        av.open(str(clip)) as video,
        av.open(str(tmp_path / "in.srt")) as text,
    ):
        made = [
            (out.add_stream_from_template(each.streams[0], opaque=True), each)
            for each in (video, text)
        ]
        for stream, each in made:
            for packet in each.demux():
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    result = run(tmp_path / "in.mkv", tmp_path / "out.mkv", *options)
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_a_cut_off_recording_delivers_all_whole_frames(tmp_path: Path, kind: str) -> None:
    make_clip(tmp_path / "in.mkv", Clip(frames=100, options={"g": "50", "bf": "0"}))
    options = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "4000000"}
    whole = remuxed(tmp_path / "in.mkv", tmp_path / "whole.mp4", **options)
    with av.open(str(whole)) as file:
        list(file.demux())
        frames, sound = ([(e.pos, e.size) for e in s.index_entries] for s in file.streams)
    pos, size = (sound if kind == "audio" else frames)[-12]
    (tmp_path / "in.mp4").write_bytes(whole.read_bytes()[: pos + size // 2])
    there = sum(at + size <= pos for at, size in frames)
    result = run(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert result.exit_code == 3, result.output
    delivered = contents(tmp_path / "out.mp4").frames
    assert there <= delivered <= there + 1  # the frame that is cut off may be decoded
    assert f"degraded: {len(frames) - delivered} frames lost" in result.stderr
    assert "the file is cut off" in result.stderr


def _faststart(source: Path, target: Path) -> Path:
    options = {"movflags": "faststart"} if source.suffix == ".mp4" else {}
    with av.open(str(source)) as i, av.open(str(target), "w", container_options=options) as out:
        stream = out.add_stream_from_template(i.streams.video[0], opaque=True)
        for packet in i.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return target


def test_damaged_frames_are_counted(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.ts", Clip(size=(320, 240), frames=40, audio=()))
    data = bytearray(clip.read_bytes())
    noise = np.random.default_rng(1).integers(0, 256, 400, dtype=np.uint8).tobytes()
    for start in range(len(data) // 3, len(data) * 2 // 3, 188 * 20):
        data[start + 20 : start + 120] = noise[:100]  # payload only: packet headers stay intact
    clip.write_bytes(bytes(data))
    result = run(clip, tmp_path / "out.mp4")
    assert result.exit_code == 3, result.output
    assert "degraded" in result.stderr
    assert contents(tmp_path / "out.mp4").frames > 10


def test_an_unknown_model_lists_the_known(tmp_path: Path, clip: Path) -> None:
    result = run(clip, tmp_path / "out.mp4", "--model", "esrgan")
    assert_refused(
        result, 2, "unknown model 'esrgan'", "c-dcscn", "bicubic", folder=tmp_path, left={"in.mp4"}
    )


def test_a_missing_scale_lists_those_there_are(tmp_path: Path, clip: Path) -> None:
    result = run(clip, tmp_path / "out.mp4", "--scale", "7")
    assert_refused(result, 2, "no scale 7", "2, 3, 4, 8", folder=tmp_path, left={"in.mp4"})


def test_a_corrupt_onnx(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x08\x07corrupt")
    result = run(clip, tmp_path / "out.mp4", "--model", tmp_path / "net.onnx")
    left = {"in.mp4", "net.onnx"}
    assert_refused(result, 1, "not a valid ONNX file", "net.onnx", folder=tmp_path, left=left)


def test_an_onnx_that_is_no_super_resolution_network(tmp_path: Path, clip: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 1, 1])
    node = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    graph = helper.make_graph([node], "classifier", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    result = run(clip, tmp_path / "out.mp4", "--model", tmp_path / "net.onnx")
    left = {"in.mp4", "net.onnx"}
    assert_refused(
        result, 1, "not a supported super-resolution network", folder=tmp_path, left=left
    )


def test_an_existing_output_is_kept_unless_told(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "out.mp4").write_text("precious")
    result = run(clip, tmp_path / "out.mp4")
    left = {"in.mp4", "out.mp4"}
    assert_refused(result, 1, "exists", "-y", folder=tmp_path, left=left)
    assert (tmp_path / "out.mp4").read_text() == "precious"
    assert run(clip, tmp_path / "out.mp4", "-y").exit_code == 0
    assert contents(tmp_path / "out.mp4").frames == 12


def test_a_failing_run_does_not_touch_the_output_it_was_to_replace(
    tmp_path: Path, clip: Path
) -> None:
    (tmp_path / "out.mp4").write_text("precious")
    cut_off(clip, tmp_path / "bad.mp4", 0.3)
    assert run(tmp_path / "bad.mp4", tmp_path / "out.mp4", "-y").exit_code == 1
    assert (tmp_path / "out.mp4").read_text() == "precious"


def test_a_missing_output_folder(tmp_path: Path, clip: Path) -> None:
    result = run(clip, tmp_path / "nowhere" / "out.mp4")
    assert_refused(result, 1, "folder does not exist", folder=tmp_path, left={"in.mp4"})


def test_a_folder_as_output(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "out.mp4").mkdir()
    result = run(clip, tmp_path / "out.mp4")
    assert_refused(result, 1, "is a folder", folder=tmp_path, left={"in.mp4", "out.mp4"})


@pytest.mark.parametrize("through_link", [False, True])
def test_output_equal_to_input(tmp_path: Path, clip: Path, through_link: bool) -> None:
    before = clip.read_bytes()
    target = clip
    if through_link:
        target = tmp_path / "link.mp4"
        target.symlink_to(clip)
    result = run(clip, target, "-y")
    left = {"in.mp4", "link.mp4"} if through_link else {"in.mp4"}
    assert_refused(result, 2, "same file", folder=tmp_path, left=left)
    assert clip.read_bytes() == before


def test_an_unknown_codec(tmp_path: Path, clip: Path) -> None:
    result = run(clip, tmp_path / "out.mp4", "--codec", "h299")
    assert_refused(result, 2, "unknown codec 'h299'", "hevc", folder=tmp_path, left={"in.mp4"})


def test_an_audio_codec_as_video_codec(tmp_path: Path, clip: Path) -> None:
    result = run(clip, tmp_path / "out.mp4", "--codec", "aac")
    assert_refused(result, 2, "not a video codec", folder=tmp_path, left={"in.mp4"})


def test_an_encoder_option_that_does_not_exist(tmp_path: Path, clip: Path) -> None:
    result = run(clip, tmp_path / "out.mp4", "-e", "sharpness=11")
    assert_refused(result, 2, "no option 'sharpness'", folder=tmp_path, left={"in.mp4"})


def test_an_encoder_option_of_the_wrong_value(tmp_path: Path, clip: Path) -> None:
    result = run(clip, tmp_path / "out.mp4", "-e", "tune=nonsense")
    assert_refused(result, 1, "libx264 cannot start", folder=tmp_path, left={"in.mp4"})


def test_hardware_that_is_not_there(tmp_path: Path, clip: Path) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    result = run(clip, tmp_path / "out.mp4", "--codec", "h264_nvenc")
    assert_refused(result, 1, "h264_nvenc cannot start", folder=tmp_path, left={"in.mp4"})


def test_a_container_that_cannot_hold_the_codec(tmp_path: Path, clip: Path) -> None:
    for name, codec in (("out.webm", "h264"), ("out.ts", "av1"), ("out.mov", "vp9")):
        result = run(clip, tmp_path / name, "--codec", codec)
        words = (f"{Path(name).suffix} cannot hold", ".mkv")
        assert_refused(result, 2, *words, folder=tmp_path, left={"in.mp4"})


@pytest.mark.parametrize("name", ["out.xyz", "out", "out.avi", "out.hls"])
def test_an_unknown_container(tmp_path: Path, clip: Path, name: str) -> None:
    result = run(clip, tmp_path / name)
    assert_refused(result, 2, ".mp4", folder=tmp_path, left={"in.mp4"})


def test_an_unknown_backend_and_device(tmp_path: Path, clip: Path) -> None:
    result = run(clip, tmp_path / "out.mp4", "--backend", "cuda")
    assert_refused(result, 2, "unknown backend", "openvino", folder=tmp_path, left={"in.mp4"})
    result = run(clip, tmp_path / "out.mp4", "--device", "GPU.7:nonsense")
    assert result.exit_code in (1, 2)
    assert "unexpected" not in result.output
    result = run(clip, tmp_path / "out.mp4", "--device", "TPU")
    assert_refused(result, 2, "no device 'TPU'", "CPU", folder=tmp_path, left={"in.mp4"})


def test_a_report_that_cannot_be_written_is_found_first(tmp_path: Path, clip: Path) -> None:
    result = run(clip, tmp_path / "out.mp4", "--report", tmp_path / "report.txt")
    assert_refused(result, 2, ".json or .csv", folder=tmp_path, left={"in.mp4"})
    result = run(clip, tmp_path / "out.mp4", "--report", tmp_path / "no" / "r.json")
    assert_refused(result, 1, "report's folder", folder=tmp_path, left={"in.mp4"})


def test_a_window_beyond_the_end(tmp_path: Path, clip: Path) -> None:
    result = run(clip, tmp_path / "out.mp4", "--start-frame", "100")
    assert_refused(result, 1, "only 12 frames", folder=tmp_path, left={"in.mp4"})


def test_a_dead_server_is_named_without_the_stream_key(tmp_path: Path) -> None:
    url = "rtmp://user:secret@127.0.0.1:1/live/key-1234?token=5678"
    result = run(url, tmp_path / "out.mp4")
    assert_refused(result, 1, "rtmp://127.0.0.1:1/live/***", folder=tmp_path, left=set())
    verbose = run(url, tmp_path / "out.mp4", "-v")
    for secret in ("secret", "key-1234", "5678"):
        assert secret not in result.output + verbose.output


def test_a_url_that_is_none_shows_nothing_of_itself(tmp_path: Path) -> None:
    result = run("rtmp://u:secretpw/x@127.0.0.1:1/live/key", tmp_path / "out.mp4")
    assert_refused(result, 1, "rtmp://***", folder=tmp_path, left=set())
    assert "secretpw" not in result.output


def test_a_name_too_long_for_the_system(tmp_path: Path) -> None:
    name = 300 * "x" + ".mp4"
    result = run(tmp_path / name, tmp_path / "out.mp4")
    assert_refused(result, 1, "cannot open", folder=tmp_path, left=set())
    clip = make_clip(tmp_path / "in.mp4", Clip())
    result = run(clip, tmp_path / name)
    assert_refused(result, 1, "cannot write", folder=tmp_path, left={"in.mp4"})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a 96 kB file system; skip the test if this process may not mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_full_disk(tmp_path: Path, small_disk: Path, name: str) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(size=(320, 240), frames=50))
    result = run(clip, small_disk / name, "--crf", "0")
    assert_refused(result, 1, "disk is full", name, folder=small_disk, left=set())


def test_an_output_that_appeared_meanwhile_is_kept(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Sink.drain

    def slow(self: Sink) -> list[Frame]:
        (tmp_path / "out.mp4").write_text("somebody else's")
        return original(self)

    monkeypatch.setattr(Sink, "drain", slow)
    result = run(clip, tmp_path / "out.mp4")
    left = {"in.mp4", "out.mp4"}
    assert_refused(result, 1, "exists", folder=tmp_path, left=left)
    assert (tmp_path / "out.mp4").read_text() == "somebody else's"


def test_a_pipe_is_not_taken_for_a_file_cut_off(tmp_path: Path, clip: Path) -> None:
    moved = tmp_path / "fast.mp4"
    _faststart(clip, moved)
    command = [sys.executable, "-m", "vsr", "run", "/dev/stdin", str(tmp_path / "out.mp4")]
    command += ["--model", "bicubic"]
    with subprocess.Popen(["cat", str(moved)], stdout=subprocess.PIPE) as cat:
        done = subprocess.run(command, stdin=cat.stdout, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out.mp4").frames == 12


def test_verbose_shows_the_traceback(tmp_path: Path) -> None:
    result = run(tmp_path / "gone.mp4", tmp_path / "out.mp4", "-v")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_wrong_usage_is_two(tmp_path: Path) -> None:
    for arguments in (
        [],
        [tmp_path / "a.mp4"],
        ["a", "b", "c", "--report", "r.json"],
        ["a", "b", "-e", "novalue"],
    ):
        assert run(*arguments).exit_code == 2, arguments


def test_the_program_itself_exits_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vsr", "run", str(tmp_path / "gone.mp4"), "out.mp4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
