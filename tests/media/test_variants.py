"""Tests of which HLS variant is selected, and that the others are not downloaded."""

import subprocess
from collections import Counter
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.http_folder import served
from tests.programs import FFMPEG, needs_ffmpeg
from vsr.cli.main import main
from vsr.errors import InputError, UsageError
from vsr.live.input.source import LiveSource
from vsr.live.relay import Relay
from vsr.live.settings import RelaySettings
from vsr.media.frame import Frame
from vsr.media.reading import Reading
from vsr.media.source import Source
from vsr.media.variants import VariantChoice

SIZES = ((64, 36), (128, 72), (96, 54))
"""Sizes of the variants, in the playlist's order."""
SEGMENTS = 10

pytestmark = needs_ffmpeg


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an HLS playlist of three variants, with ten segments of half a second each."""
    folder = tmp_path_factory.mktemp("hls")
    split = "[0:v]split=3[a][b][c];" + ";".join(
        f"[{name}]scale={w}:{h}[v{k}]"
        for k, (name, (w, h)) in enumerate(zip("abc", SIZES, strict=True))
    )
    maps = [
        word for k in range(3) for word in ("-map", f"[v{k}]", f"-b:v:{k}", f"{100 * (k + 1)}k")
    ]
    subprocess.run(
        [
            FFMPEG, "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=128x72:r=20:d=5",
            "-filter_complex", split, *maps, "-c:v", "libx264", "-preset", "ultrafast",
            "-threads", "1", "-g", "10", "-f", "hls", "-hls_time", "0.5", "-hls_list_size", "0",
            "-hls_playlist_type", "vod", "-master_pl_name", "master.m3u8",
            "-var_stream_map", "v:0 v:1 v:2", str(folder / "v%v.m3u8"),
        ],
        check=True,
    )  # fmt: skip
    return folder


def _size(source: Source | LiveSource) -> tuple[int, int]:
    return source.info.width, source.info.height


@pytest.mark.parametrize(
    ("text", "size"), [("best", 1), ("96x54", 2), ("1", 0), ("3", 2), ("BEST", 1), ("64X36", 0)]
)
def test_a_variant_is_chosen_by_size_number_or_rank(folder: Path, text: str, size: int) -> None:
    reading = Reading(variant=VariantChoice.parse(text))
    with closing(Source(str(folder / "master.m3u8"), reading)) as source:
        assert _size(source) == SIZES[size]


@pytest.mark.parametrize(("most", "size"), [(10_000, 1), (6_000, 2), (3_000, 0), (1, 0)])
def test_the_best_is_the_largest_that_is_enlarged_in_time(
    folder: Path, most: int, size: int
) -> None:
    asked: list[Fraction | None] = []

    def fits(size: tuple[int, int], rate: Fraction | None) -> bool:
        asked.append(rate)
        return size[0] * size[1] <= most

    reading = Reading(variant=VariantChoice.parse("best", fits))
    with closing(Source(str(folder / "master.m3u8"), reading)) as source:
        assert _size(source) == SIZES[size]
    assert asked


def test_what_is_not_there_is_told_with_what_is(folder: Path) -> None:
    for text, words in (("640x360", "no variant 640x360"), ("4", "no variant number 4")):
        with pytest.raises(InputError, match=words) as caught:
            Source(str(folder / "master.m3u8"), Reading(variant=VariantChoice.parse(text)))
        assert "1: 64x36 at 110 kbit/s; 2: 128x72" in str(caught.value)
    with pytest.raises(InputError, match="not a playlist with variants"):
        Source(str(folder / "v00.ts"), Reading(variant=VariantChoice.parse("2")))
    assert VariantChoice.parse("1").number == 1
    for wrong in ("", "0", "720p", "x", "12x", "-1"):
        with pytest.raises(UsageError, match="use best, a size"):
            VariantChoice.parse(wrong)
    for command in ("run", "relay"):
        done = CliRunner().invoke(main, [command, "in.m3u8", "out.mp4", "--variant", "720p"])
        assert done.exit_code == 2
        assert "use best, a size (1280x720), or a number" in done.output


def test_other_variants_are_not_downloaded(folder: Path) -> None:
    with served(folder) as (url, asked):
        wanted = VariantChoice.parse("96x54")
        with closing(LiveSource(f"{url}/master.m3u8", 5.0, variant=wanted)) as source:
            pictures = sum(isinstance(item, Frame) for item in source)
    assert pictures == 100
    by_variant = Counter[str]()
    for name, count in asked.items():
        by_variant[name[:2]] += count
    assert by_variant["v2"] >= SEGMENTS
    assert max(by_variant["v0"], by_variant["v1"]) <= 4  # probing takes a few segments


def test_a_relay_judges_by_what_its_network_takes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(str(folder / "master.m3u8"), [str(tmp_path / "out.mkv")], RelaySettings())
    small, large = (relay._pool.estimate(relay.settings, size) for size in ((64, 36), (640, 360)))
    assert large == pytest.approx(100 * small)
    assert 0 < small < large
    for cost, rate, fits in ((0.03, 30, False), (0.03, 20, True), (0.02, 30, True)):
        monkeypatch.setattr(relay._pool, "estimate", lambda *_, cost=cost: cost)
        assert relay._is_fast_enough((64, 36), Fraction(rate)) is fits
    assert relay._is_fast_enough((64, 36), None)  # assumes 30 fps
    assert relay._is_fast_enough((64, 36), Fraction(90_000))
