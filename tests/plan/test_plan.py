"""`vsr plan`, and the network that `vsr run` selects by default."""

import json
import logging
import math
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result

import vsr
from tests.clips import Clip, make_clip
from vsr.cli.main import main
from vsr.files import model_choice
from vsr.inference.backend import load_backend
from vsr.inference.compiled import CompiledCache
from vsr.inference.flicker import _LumaFilter
from vsr.inference.models import find, manifest, network_and_purpose, scales
from vsr.media.encoder import EncoderSettings, VideoFormat
from vsr.media.frame import Frame
from vsr.media.plane_format import PlaneFormat
from vsr.media.source import Source
from vsr.plan import cost_cache, measure
from vsr.plan.choice import SPEEDS, candidates, choose, faithful, quality
from vsr.plan.content import is_clean
from vsr.plan.cost import Cost, Forecast
from vsr.plan.cost_cache import CostCache
from vsr.plan.formatting import recommendation, table
from vsr.plan.measure import Video, encoding_cost, moving_texture
from vsr.plan.plan import (
    Line,
    Planner,
    bits_per_pixel,
    models_for_scale,
    task_of,
    task_without_input,
)
from vsr.plan.trial import trial

TINY = Clip(size=(64, 48), audio=(), options={"crf": "45"})


# total cost of parallel stages


def test_a_stage_is_no_shorter_than_its_work_on_all_cores_and_no_longer_than_on_one() -> None:
    assert Cost(10.0, 16.0).alone_ms(2) == 10.0
    assert Cost(6.0, 16.0).alone_ms(2) == 8.0
    assert Cost(90.0, 16.0).alone_ms(2) == 16.0  # a busy machine: wall time is too long
    assert Cost(9.0, 0.5, on_other_device=True).alone_ms(2) == 9.0  # a GPU


def test_a_frame_takes_what_the_slowest_stage_takes_or_what_all_cores_can_do() -> None:
    alone = Forecast({"decode": Cost(1, 1), "network": Cost(20, 21), "encode": Cost(2, 2)}, 8)
    assert alone.frame_ms == 20
    shared = Forecast({"decode": Cost(2, 2), "network": Cost(10, 20), "encode": Cost(5, 8)}, 2)
    assert shared.frame_ms == pytest.approx(1.05 * 15)
    assert (shared.bottleneck, alone.bottleneck) == ("network", "network")
    assert shared.fps == pytest.approx(1000 / 15.75)
    tried = replace(shared, trial_cost=Cost(20, 38), start_ms=800)
    assert (tried.frame_ms, tried.bottleneck) == (20, "network")
    assert tried.seconds(100) == pytest.approx(2.8)
    assert tried.seconds(100_000) == pytest.approx(2000.8)


def test_figures_are_measured_once_per_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost_cache, "_is_busy", lambda: False)
    path = tmp_path / "plan.json"
    asked: list[int] = []

    def measure() -> Cost:
        asked.append(1)
        return Cost(float(len(asked)), 2.0)

    assert CostCache(path).get("a", measure) == CostCache(path).get("a", measure) == Cost(1.0, 2.0)
    assert CostCache(path).get("b", measure) == Cost(2.0, 2.0)
    told = json.loads(path.read_text("utf-8"))
    told["machine"]["cores"] += 1  # as if copied from another machine
    path.write_text(json.dumps(told), "utf-8")
    assert CostCache(path).get("a", measure) == Cost(3.0, 2.0)
    for damage in ("", "{}", '{"costs": 3}', "\udcff"):
        path.write_text(damage, "utf-8", "surrogateescape")
        assert CostCache(path).get("a", measure) == Cost(float(len(asked)), 2.0)
    monkeypatch.setattr(cost_cache, "_is_busy", lambda: True)
    for _ in range(2):
        costs, before = CostCache(path), len(asked)
        measured = costs.get("load", measure)
        assert (len(asked), costs.measured_busy) == (before + 1, 1)
        assert (costs.known("load"), costs.estimate("load")) == (None, measured)
    monkeypatch.setattr(cost_cache, "_is_busy", lambda: False)
    measured = CostCache(path).get("load", measure)
    assert (CostCache(path).known("load"), CostCache(path).estimate("load")) == (measured, None)


# stages that take 10 ms per frame, on a fake clock that only they advance


class _Time:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    process_time = perf_counter


class _Encoder:
    """Buffers all frames until it is flushed, like an encoder with a long lookahead."""

    pix_fmt = "yuv420p"

    def __init__(self, clock: _Time) -> None:
        self.clock, self.held = clock, 0

    def encode(self, picture: object) -> None:
        self.held += 1
        if picture is None:
            self.clock.now += 0.01 * (self.held - 1)


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_each_decoded_frame_counts_with_its_own_time(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    clock = _Time()
    grey = list(islice(measure.grey_frames(Video(size=(8, 8), rate=Fraction(25))), count))

    class Decoder:
        def __init__(self, url: str) -> None:
            self.url = url

        def __iter__(self) -> Iterator[Frame]:
            for frame in grey:
                clock.now += 0.01
                yield frame

        def close(self) -> None:
            pass

    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(measure, "Source", Decoder)
    _, cost, kept = measure.decoding_cost("in.mkv", 0.155)
    assert cost.wall_ms == cost.cpu_ms == pytest.approx(10)
    assert len(kept) == min(count, 17)


def test_what_an_encoder_does_when_it_is_flushed_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Time()
    codecs = SimpleNamespace(create=lambda *_: _Encoder(clock))
    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(measure, "open_encoder", lambda *_: None)
    monkeypatch.setattr(
        measure,
        "av",
        SimpleNamespace(CodecContext=codecs, VideoCodecContext=_Encoder, Codec=av.Codec),
    )
    out = VideoFormat(size=(16, 16), rate=Fraction(25), time_base=Fraction(1, 25))
    cost = encoding_cost("libx264", EncoderSettings(), out, (), seconds=-1)
    assert cost.wall_ms == cost.cpu_ms == pytest.approx(10)


# content of the input


def _moving_texture(path: Path, crf: int, codec: str = "libx264") -> Path:
    """Write moving noise with the spectrum of photographs, which has detail everywhere."""
    rng = np.random.default_rng(4)
    fx, fy = np.fft.rfftfreq(192), np.fft.fftfreq(112)
    size = np.hypot(fx[None], fy[:, None])
    size[0, 0] = 1
    noise = np.fft.irfft2(np.exp(2j * np.pi * rng.random(size.shape)) / size, (112, 192))
    luma = np.clip(128 + 40 * noise / noise.std(), 16, 235).astype(np.uint8)
    flat = np.full((48, 80), 128, np.uint8)
    like = make_clip(path.with_name("like.mkv"), Clip(size=(160, 96), audio=(), frames=24))
    encoder = vsr.EncoderSettings(codec=codec, crf=None if codec == "ffv1" else crf)
    with vsr.Writer(path, like=like, encoder=encoder, overwrite=True) as out:
        for k, frame in enumerate(vsr.frames(like)):
            y = luma[k // 2 : k // 2 + 96, k : k + 160] + rng.normal(0, 2, (96, 160))  # with grain
            y = np.clip(np.rint(y), 0, 255).astype(np.uint8)
            out.write(frame.with_planes((y, flat, flat), ""))
    return path


@pytest.mark.parametrize(("crf", "clean"), [(1, True), (26, False), (32, False)])
def test_few_bits_for_much_detail_are_compressed_video(
    tmp_path: Path, crf: int, clean: bool
) -> None:
    made = _moving_texture(tmp_path / "in.mkv", crf)
    assert task_of(str(made), task_without_input(), 0.1).clean == clean


def test_the_table_of_measured_clips_is_kept_to(data: Path, tmp_path: Path) -> None:
    """On all five clips, weights for clean video win below crf 15, those for streams above 21."""
    truth = data / "video/gt/webcam_540p30_gt.mp4"
    for crf, clean in ((12, True), (24, False)):
        made = tmp_path / f"{crf}.mkv"
        with vsr.Writer(made, like=truth, copy=False, encoder=vsr.EncoderSettings(crf=crf)) as out:
            for frame, _ in zip(vsr.frames(truth), range(24), strict=False):
                out.write(frame.with_planes(tuple(np.array(p) for p in frame.planes), ""))  # type: ignore[arg-type]
        assert task_of(str(made), task_without_input(), 0.1).clean == clean


def test_lossless_codecs_are_clean_and_what_is_unknown_is_not(tmp_path: Path) -> None:
    made = _moving_texture(tmp_path / "in.mkv", 0, "ffv1")
    assert task_of(str(made), task_without_input(), 0.1).clean
    frames = list(vsr.frames(made))
    assert not is_clean("h264", None, frames)
    assert not is_clean("h264", 10.0, frames[:1])


# choice of the network


def _best_of(purpose: str, scale: int) -> float:
    """Return the best quality of the shipped networks with that purpose."""
    reached = [
        quality(name, scale)
        for name, entries in manifest().items()
        if network_and_purpose(name)[1] == purpose and f"x{scale}" in entries
    ]
    return max(q for q in reached if q is not None)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_candidates_are_the_best_for_their_work(clean: bool, scale: int) -> None:
    found = candidates(True, scale) if clean else faithful(scale)
    purpose = "stream" if not clean and scale in scales("c-dcscn-stream") else ""
    assert {network_and_purpose(c.name)[1] for c in found} == {purpose}
    assert [c.quality for c in found] == sorted((c.quality for c in found), reverse=True)
    assert [c.work for c in found] == sorted((c.work for c in found), reverse=True)
    assert found[0].quality >= _best_of(purpose, scale) - 0.05


def test_bits_per_pixel_are_those_of_the_video(tmp_path: Path) -> None:
    """Uncompressed sound is much larger than a small video."""
    silent, loud = (
        make_clip(tmp_path / f"{len(audio)}.mkv", Clip(size=(160, 120), frames=50, audio=audio))
        for audio in ((), ("pcm_s16le",))
    )
    assert loud.stat().st_size > 2 * silent.stat().st_size
    bits = []
    for path in (silent, loud):
        with closing(Source(str(path))) as source:
            bits.append(bits_per_pixel(str(path), source.info))
    assert bits[1] == pytest.approx(bits[0], rel=0.1)


@pytest.mark.parametrize("scale", [2, 4])
def test_compressed_video_gets_a_sharp_network_or_a_lighter_faithful_one(scale: int) -> None:
    found = candidates(False, scale)
    sharp = candidates(False, scale, "sharp")
    assert sharp and found[: len(sharp)] == sharp
    lighter = found[len(sharp) :]
    assert "c-dcscn-stream" in {c.name for c in lighter}
    assert set(lighter) <= set(faithful(scale))
    assert [c.work for c in found] == sorted((c.work for c in found), reverse=True)
    assert candidates(False, 3) == faithful(3)  # without a sharp network


@pytest.mark.parametrize("scale", [2, 4])
def test_a_look_has_candidates_of_its_own_by_lpips(scale: int) -> None:
    sharp = candidates(False, scale, "sharp")
    assert sharp == candidates(True, scale, "sharp")
    assert {c.name for c in sharp} <= {n for n in manifest() if n.endswith("-sharp")}
    clips = manifest()[sharp[0].name][f"x{scale}"]["look"]["lpips"].values()
    share = sum(c["ours"] for c in clips) / sum(c["bicubic"] for c in clips)
    assert sharp[0].quality == pytest.approx(-10 * math.log10(share))
    assert candidates(True, scale, "faithful") == faithful(scale)
    assert candidates(False, 3, "sharp") == []


def test_the_best_that_is_fast_enough_is_taken_and_no_more_is_measured() -> None:
    found, asked = faithful(2), []

    def speed(name: str) -> float:
        asked.append(name)
        return {"dcscn-stream": 0.4, "c-dcscn-stream": 2.0}[name]

    assert choose(found, speed, SPEEDS["balanced"]) == ("c-dcscn-stream", 2.0)
    assert choose(found, speed, SPEEDS["best"]) == ("dcscn-stream", 0.4)
    assert asked == ["dcscn-stream", "c-dcscn-stream", "dcscn-stream"]
    assert choose(found, lambda _: 0.1, SPEEDS["fast"]) == ("c-dcscn-stream", 0.1)


def _model_of(source: Path, **options: object) -> str:
    target = source.with_name("out.mkv")
    report = vsr.upscale(source, target, overwrite=True, segment=0, **options)  # type: ignore[arg-type]
    return str(report.output["model"])


def test_the_only_network_of_a_scale_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(model_choice, "Planner", None)
    monkeypatch.setattr(model_choice, "_MAX_UNMEASURED_WORK", 0)
    source = str(make_clip(tmp_path / "in.mkv", TINY))
    settings = vsr.RunSettings(scale=8)
    with caplog.at_level(logging.INFO):
        assert model_choice.model_name(source, tmp_path / "out.mkv", settings) == "csrcnn"
    assert "model csrcnn: the only network at scale 8" in caplog.text


def test_a_run_that_names_no_model_gets_what_suits_its_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_clip(tmp_path / "in.mkv", TINY)
    with caplog.at_level(logging.INFO):
        compressed = Clip(size=(320, 180), frames=24, audio=(), options={"crf": "40"})
        lossy = make_clip(tmp_path / "lossy.mkv", compressed)
        assert _model_of(lossy) == candidates(False)[0].name
    assert "the best for compressed video (--model" in caplog.text
    clean = make_clip(tmp_path / "clean.mkv", Clip(size=(64, 48), audio=(), codec="ffv1"))
    assert _model_of(clean) == candidates(True)[0].name
    assert _model_of(source, scale=4) == candidates(True, 4)[0].name
    assert _model_of(lossy, scale=4) == candidates(False, 4)[0].name
    assert _model_of(source, model="bicubic") == "bicubic"
    assert _model_of(source, look="faithful") == faithful(2)[0].name
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert _model_of(source, look="sharp") == candidates(False, 2, "sharp")[0].name
    assert "a sharp look" in caplog.text
    with pytest.raises(vsr.UsageError, match="no network has the scale 5: see vsr models"):
        _model_of(source, scale=5)
    with pytest.raises(vsr.UsageError, match=r"no network with a sharp look .* has the scale 3"):
        _model_of(source, scale=3, look="sharp")
    picture = str(tmp_path / "picture.png")
    vsr.upscale(source, picture, model="bicubic", max_frames=1)
    for scale, model in ((3, "c-dcscn"), (4, "c-dcscn-stream")):
        larger = vsr.upscale(picture, tmp_path / f"{scale}.png", scale=scale)
        assert larger.output["model"] == model
    with pytest.raises(vsr.UsageError, match="speed is 'quick': it must be one of fast, balanced"):
        vsr.RunSettings(speed="quick")


# the command


def _plan(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["plan", *map(str, words)])


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_busy_machine_does_not_make_the_processor_another_device(
    monkeypatch: pytest.MonkeyPatch, on_cpu: bool
) -> None:
    """On a busy machine a process gets little processor time, as if a GPU computed the network."""
    times = ((0.1 * k, 0.0001 * k) for k in count())
    monkeypatch.setattr(measure, "_times", lambda: next(times))
    backend = load_backend("openvino")
    assert backend.on_cpu
    monkeypatch.setattr(backend, "on_cpu", on_cpu)
    video = Video(size=(32, 32), rate=Fraction(25))
    model = find("bicubic", 2, backend, "auto")
    cost = measure.network_cost_at_size(model, backend, video, 0.3)
    assert cost.on_other_device is not on_cpu


@pytest.mark.parametrize(("name", "sharp"), [("rt-sharp", True), ("c-dcscn", False)])
def test_the_cost_of_a_sharp_network_includes_the_flicker_filter(
    monkeypatch: pytest.MonkeyPatch, name: str, sharp: bool
) -> None:
    filtered, step = list[int](), _LumaFilter.step

    def counted(self: _LumaFilter, *planes: Any) -> Any:
        filtered.append(1)
        return step(self, *planes)

    monkeypatch.setattr(_LumaFilter, "step", counted)
    backend = load_backend("openvino")
    model, video = find(name, 2, backend, "auto"), Video(size=(32, 32), rate=Fraction(25))
    measure.network_cost_at_size(model, backend, video, 0.01)
    assert bool(filtered) is sharp
    filtered.clear()
    encoder = EncoderSettings(preset="ultrafast")
    out = VideoFormat(size=(64, 64), rate=video.rate, time_base=1 / video.rate)
    trial(model, backend, video, None, encoder, out, "matroska", 8)
    assert len(filtered) == (7 if sharp else 0)
    key = cost_cache.network_key(model, backend, video.size, video.planes)
    assert key.endswith("flicker filter") is sharp


@pytest.mark.usefixtures("_own_cache")
def test_plan_of_a_file(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", TINY)
    done = _plan(source, "--model", "bicubic", "--json", "--seconds", "0.05")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["size"], told["rate"], told["frames"]) == ([64, 48], "25", 12)
    [line] = told["models"]
    assert set(line["stages"]) == {"decode", "network", "encode"}
    assert line["times_real_time"] == pytest.approx(line["fps"] / 25, rel=0.01)
    assert told["chosen"] is None  # the model was given
    assert line["measured"]
    assert line["seconds"] == pytest.approx(line["start_ms"] / 1000 + 12 / line["fps"], abs=0.02)


@pytest.mark.usefixtures("_own_cache")
def test_plan_of_a_size_has_no_decoder_and_no_length() -> None:
    done = _plan(
        "--size", "64x48", "--fps", "30000/1001", "--model", "bicubic", "--seconds", "0.05"
    )
    assert done.exit_code == 0, done.output
    head = done.stdout.splitlines()[0].split()
    assert head == ["model", "network", "ms", "encode", "ms", "fps", "real", "time", "bottleneck"]
    assert "vsr run would use" not in done.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "INPUT is missing: give a file or URL, or --size"),
        (("in.mp4", "--size", "64x48"), "--size replaces INPUT: leave one of them out"),
        (("--size", "640"), "not a size such as 640x360"),
        (("--size", "0x360"), "not a size such as 640x360"),
        (("--size", "²x360"), "not a size such as 640x360"),
        (("none.mp4",), "no such file"),
        (("none.mp4", "--fps", "50"), "--fps applies only to --size: INPUT has its own frame rate"),
        (("--size", "64x48", "--model", "x"), "unknown model 'x'"),
    ],
)
def test_what_cannot_be_planned(words: tuple[str, ...], complaint: str) -> None:
    done = _plan(*words)
    assert done.exit_code in (1, 2)
    assert complaint in done.stderr


def test_the_answer_says_what_limits_and_how_long_it_takes(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", TINY)
    task = task_of(str(source), task_without_input(), 0.1)
    planner = Planner(task, load_backend(), CostCache(tmp_path / "plan.json"), seconds=0.05)
    line = planner.line("bicubic")
    assert table(task, [line]).splitlines()[1].startswith("bicubic")
    slow = Forecast({"network": Cost(100, 100), "encode": Cost(900, 1000)}, 2)
    said = recommendation(task, type(line)("dcscn-stream", "int8", slow), "balanced")
    assert said[0] == (
        "vsr run would use dcscn-stream: the lightest network (--speed balanced); "
        "expected: 0.04 times real time, duration 10.8 s"
    )
    assert "use a faster --preset" in said[1]
    assert planner.line("bicubic") is line
    best = recommendation(task, type(line)("dcscn-stream", "int8", slow), "best")[0]
    assert "dcscn-stream: the best network for clean video (--speed best); expected" in best


def test_hours_are_whole_hours(tmp_path: Path) -> None:
    """About 6,000 s of video, upscaled in real time, take 1 h 40 min and not 2 h 40 min."""
    forecast = Forecast({"network": Cost(40, 40), "encode": Cost(1, 1)}, 1, trial_cost=Cost(40, 40))
    line = Line("bicubic", "fp32", forecast)
    task = replace(task_without_input((64, 48), Fraction(25)), frames=150_000)
    assert table(task, [line]).splitlines()[1].endswith("1 h 40 min")
    assert recommendation(task, line, "balanced")[0].endswith("duration 1 h 40 min")


def test_what_has_no_int8_form_is_not_planned_in_int8() -> None:
    planned = models_for_scale(task_without_input(precision="int8"))
    assert "c-dcscn-stream" in planned
    assert not {"bicubic", "pcarn-m"} & set(planned)
    assert {"bicubic", "pcarn-m"} < set(models_for_scale(task_without_input()))


def test_a_picture_of_one_pixel_is_encoded_without_a_warning() -> None:
    with np.errstate(all="raise"):
        one = moving_texture(Video(size=(1, 1), rate=Fraction(25)))
    assert {frame.planes[0].shape for frame in one} == {(1, 1)}


def test_transparency_that_the_encoder_cannot_hold_is_no_reason_to_plan_nothing() -> None:
    deep = PlaneFormat(bits=10, chroma_x=1, chroma_y=1)
    out = VideoFormat(
        size=(64, 48), rate=Fraction(25), time_base=Fraction(1, 25), planes=deep, alpha=True
    )
    for encoder in ("libx265", "prores_ks"):
        assert encoding_cost(encoder, EncoderSettings(), out, (), 0.05).cpu_ms > 0


@pytest.mark.parametrize("chroma", [(1, 1), (2, 1), (2, 2)])
def test_frames_of_an_odd_size_are_encoded(chroma: tuple[int, int]) -> None:
    planes = PlaneFormat(chroma_x=chroma[0], chroma_y=chroma[1])
    odd = moving_texture(Video(size=(53, 37), rate=Fraction(25), planes=planes))
    out = VideoFormat(size=(106, 74), rate=Fraction(25), time_base=Fraction(1, 25), planes=planes)
    assert encoding_cost("libx264", EncoderSettings(preset="ultrafast"), out, odd, 0.05).cpu_ms > 0


def test_a_look_is_planned_as_run_chooses_it(tmp_path: Path) -> None:
    source = str(make_clip(tmp_path / "in.mkv", TINY))
    result = CliRunner().invoke(main, ["plan", source, "--look", "faithful", "--seconds", "0.05"])
    assert result.exit_code == 0, result.output
    chosen = re.search(r"vsr run would use (\S+): .* a faithful look", result.output)
    assert chosen and chosen[1] in {c.name for c in faithful(2)}


def test_a_cache_that_cannot_be_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # as with HOME=/dev/null
    costs = CostCache(tmp_path / "file" / "plan.json")
    costs.clear()
    assert costs.get("a", lambda: Cost(1.0, 2.0)) == Cost(1.0, 2.0)
    cache = CompiledCache(tmp_path / "file" / "compiled")
    cache.remove(["a"])
    assert cache.get(["a"]) is None
