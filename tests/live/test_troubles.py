"""What a relay says about its troubles: in the log, and in the report's notes."""

import json
import logging
import re
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest

import vsr
from tests.streams import Marked, make_marked
from vsr.live.common import RelayLog
from vsr.live.output import encode
from vsr.live.relay import Relay
from vsr.live.troubles import Troubles
from vsr.report.ledger import write_report

SLOW_S = 0.07
"""Time that the slow encoder takes per frame, above the clip's interval of 40 ms."""


def test_a_slow_encoder_is_named_as_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = encode.encoder_picture

    def slow(*args: Any) -> Any:
        time.sleep(SLOW_S)
        return real(*args)

    monkeypatch.setattr(encode, "encoder_picture", slow)
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=4, sound=None))
    settings = vsr.RelaySettings(model="bicubic", max_latency=0.4)
    report = vsr.relay(str(clip), str(tmp_path / "out.flv"), settings=settings)
    assert report.lost > 0
    cause = r"the encoder takes [\d.]+ ms per frame, the frame interval is 40\.0 ms: use a faster"
    assert len(re.findall(f"frames dropped: {cause}", caplog.text)) == 1
    assert "even for bicubic" not in caplog.text
    assert "in a burst" not in caplog.text
    (note,) = report.notes
    assert re.match(rf"{report.lost} frames dropped: {cause} --preset", note)


def test_an_encoder_that_starts_slowly_is_not_slow() -> None:
    encoder = encode.LiveEncoder.__new__(encode.LiveEncoder)
    encoder._times = deque([0.5])
    assert encoder.frame_s == 0
    encoder._times += [0.01] * 10
    assert encoder.frame_s == pytest.approx(0.01)
    encoder._times = deque([0.0, 0.2] * 5)  # it works on two frames at once
    assert encoder.frame_s == pytest.approx(0.1, rel=0.2)


def test_troubles_are_logged_rarely_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles(RelayLog(logging.getLogger("vsr.test")))
    for _ in range(3):
        troubles.add_dropped("input queue is full")
    troubles.add_dropped("input queue is full", frames=4)
    troubles.add_dropped("never", frames=0)
    troubles.add("source stalled for 1.5 s", "stall")
    troubles.add("source stalled for 2.0 s", "stall")
    troubles.add("no audio")
    assert [r.getMessage() for r in caplog.records] == [
        "frames dropped: input queue is full", "source stalled for 1.5 s", "no audio",
    ]  # fmt: skip
    assert troubles.notes() == [
        "7 frames dropped: input queue is full", "source stalled for 2.0 s (2 times)", "no audio",
    ]  # fmt: skip


def test_the_report_has_the_totals_of_the_status(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=2, sound=None))
    target = tmp_path / "report.json"
    settings = vsr.RelaySettings(model="bicubic", max_latency=5.0)
    relay = Relay(str(clip), [str(tmp_path / "out.flv")], settings)
    report = relay.run(threading.Event())
    write_report(target, report.facts(), report.ledger)
    told, status = json.loads(target.read_text()), relay.board.snapshot(0.0).facts()
    assert told["frames"]["by_rung"] == {"bicubic": 50}
    shared = ("in", "out", "sent", "dropped", "repeated", "late", "by_rung")
    assert {k: told["frames"][k] for k in shared} == {k: status["frames"][k] for k in shared}
    assert told["frames"]["sent"] == 50 + told["frames"]["repeated"]
    assert told["fps_sent"] >= told["fps"] > 0
