"""Attachments, cover art, and titles, languages and flags of streams: kept, or named if lost."""

from pathlib import Path

import pytest

from tests.clips import Clip, make_clip
from tests.files.test_faithful import upscaled

WEBM = {"codec": "vp9", "preset": "8"}


@pytest.mark.parametrize("suffix", ["webm", "nut", "mp4"])
def test_attachments_a_container_drops_are_named(tmp_path: Path, suffix: str) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(audio=(), attachment=b"font"))
    result, report = upscaled(source, f"out.{suffix}", **(WEBM if suffix == "webm" else {}))
    assert result.kinds == ["video"]
    assert "cannot contain attachment #1 (font.ttf)" in report.notes[0]
