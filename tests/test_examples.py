"""Tests that the examples in `examples/` and README work as described."""

import runpy
import sys
from pathlib import Path

import av
import pytest
from click.testing import CliRunner

from tests.facts import contents
from train.ship.cards import cards
from train.ship.provenance import chains_of
from vsr.cli.main import main
from vsr.inference import models

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_sample_is_a_short_tagged_clip_with_sound() -> None:
    found = contents(EXAMPLES / "sample.mp4")
    assert found.kinds == ["video", "audio"]
    assert (found.frames, found.size) == (120, (320, 180))
    assert (found.matrix, found.range, found.primaries, found.transfer) == (1, 1, 1, 1)


def test_the_sample_can_be_rendered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first frame of the shipped clip matches what the script renders."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    script = runpy.run_path(str(EXAMPLES / "make_sample.py"))
    planes = next(iter(script["render_frames"]()))
    with av.open(str(EXAMPLES / "sample.mp4")) as container:
        shipped = next(container.decode(video=0)).to_ndarray()
    assert planes.shape == shipped.shape
    assert abs(planes.astype(float) - shipped).mean() < 3


def test_readmes_main_job_writes_a_doubled_video_with_its_sound(tmp_path: Path) -> None:
    target = tmp_path / "upscaled.mp4"
    words = ["run", str(EXAMPLES / "sample.mp4"), str(target), "--max-frames", "30"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    before, after = contents(EXAMPLES / "sample.mp4"), contents(target)
    assert after.size == (640, 360)
    assert after.pts == before.pts[:30]
    assert after.packets[1] == before.packets[1][: len(after.packets[1])] != []


def test_the_library_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = str(EXAMPLES / "sample.mp4"), str(tmp_path / "out.mp4")
    monkeypatch.setattr(sys, "argv", ["upscale_file.py", source, target, "bicubic"])
    runpy.run_path(str(EXAMPLES / "upscale_file.py"), run_name="__main__")
    assert capsys.readouterr().out.startswith("120 frames at")


def test_readme_names_every_command() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    assert [name for name in main.commands if f"vsr {name}" not in readme] == []


def test_the_model_cards_are_the_manifests() -> None:
    page = (EXAMPLES.parent / "engines" / "README.md").read_text(encoding="utf-8")
    assert page == cards(models.manifest(), chains_of(models.ENGINES, models.manifest()))


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "usage: python examples/upscale_file.py IN OUT"), (["none.mp4", "o.mp4"], "error: ")],
)
def test_the_library_example_says_in_a_line_what_is_wrong(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["upscale_file.py", *words])
    with pytest.raises(SystemExit, match=said):
        runpy.run_path(str(EXAMPLES / "upscale_file.py"), run_name="__main__")
