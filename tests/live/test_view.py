"""A relay as a viewer sees and hears it: flashes, beeps and numbers of what arrives."""

from pathlib import Path

import pytest

from tests.flash_beep import Clip, Process, View, make_clip
from tests.programs import needs_nginx
from tests.rtmp import Server
from tests.streams import RelayProcess

SECONDS = 8
"""For which a viewer watches."""
PATIENCE = 60


def _assert_together(view: View, sound_from: float = 0.0) -> None:
    flashes = [f for f in view.flashes if f >= sound_from]
    assert view.error == ""
    assert len(flashes) > 4
    assert view.missing == 0, view
    assert max(map(abs, view.offsets)) < 15, view.offsets
    assert view.steps_back == 0


@needs_nginx
@pytest.mark.parametrize(("late", "sound"), [(0.3, "aac"), (0.9, "libmp3lame")])
def test_sound_that_comes_late_is_heard_with_its_picture(
    tmp_path: Path, late: float, sound: str
) -> None:
    clip = make_clip(tmp_path / "in.flv", Clip(seconds=40, sound=sound))
    with (
        Server(tmp_path / "nginx") as server,
        RelayProcess(tmp_path, server.url("in"), server.url("out")) as relay,
        Process("publish", server.url("in"), clip, late, 40),
        Process("view", server.url("out"), SECONDS) as viewer,
    ):
        view = viewer.view(PATIENCE)
        relay.stop()
    _assert_together(view)
    live = relay.report["live"]
    assert abs(live["av_offset_ms"]) < 15
    assert live["sound_dropped"] == 0
    assert "left out" not in relay.said
