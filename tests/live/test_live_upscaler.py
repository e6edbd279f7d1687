"""The upscaler of a live stream, on engines whose times are set: trials and notes."""

import logging
from dataclasses import dataclass, field, replace

import pytest

from vsr.live.common import RelayLog
from vsr.live.ladder import live_upscaler
from vsr.live.ladder.live_upscaler import LiveUpscaler
from vsr.live.ladder.rungs import FALLBACK
from vsr.live.ladder.warm_up import trial_frame
from vsr.live.settings import RelaySettings
from vsr.media.frame import Frame
from vsr.media.plane_format import YUV420, PlaneFormat
from vsr.report.ledger import Ledger
from vsr.report.report import Report

INTERVAL = 0.04
NAMES = ["rt-sharp", "bicubic"]


@dataclass
class Engines:
    """In place of `Rungs`, on a clock that only its work advances (s)."""

    took: list[float]
    costs: list[float]
    time: float = 0.0
    names: list[str] = field(default_factory=lambda: NAMES)
    version: int = 0
    failure: Exception | None = None
    failing: bool = False
    disabled: bool = False
    size: tuple[int, int] = (32, 24)
    out_size: tuple[int, int] = (64, 48)
    planes: PlaneFormat = YUV420

    def is_disabled(self, rung: int) -> bool:
        return self.disabled and rung == 0

    def upscale(self, frame: Frame, rung: int) -> Frame:
        self.time += self.took[rung]
        frame.stamps.infer_start = self.time
        if self.failing and rung == 0:
            frame.event = FALLBACK
            return replace(frame, rung="bicubic")
        return replace(frame, rung=NAMES[rung])


def _upscaler(
    engines: Engines, monkeypatch: pytest.MonkeyPatch, model: str | None = "rt-sharp",
    flicker_filter: bool | None = False,
) -> LiveUpscaler:  # fmt: skip
    monkeypatch.setattr(live_upscaler, "now", lambda: engines.time)
    settings = RelaySettings(model=model, flicker_filter=flicker_filter)
    report = Report(input={}, output={}, ledger=Ledger())
    log = RelayLog(logging.getLogger("test"))
    return LiveUpscaler(engines, settings, INTERVAL, report, log)  # type: ignore[arg-type]


def _play(upscaler: LiveUpscaler, engines: Engines, seconds: float) -> list[str]:
    """Play a stream; return the network of every frame that is shown."""
    shown, start = [], engines.time
    for k in range(round(seconds / INTERVAL)):
        frame = trial_frame((32, 24))
        arrived = frame.stamps.read = start + k * INTERVAL
        engines.time = max(engines.time, arrived)
        done = upscaler.upscale(frame, int((engines.time - arrived) / INTERVAL), 0.005)
        assert done is not None
        shown.append(done.rung)
        began = frame.stamps.infer_start
        upscaler.try_better_network(frame, int((engines.time - arrived) / INTERVAL))
        assert (frame.event, frame.stamps.infer_start) == ("", began)
    return shown


def test_trials_are_not_shown_and_lead_to_the_better_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engines = Engines(took=[0.01, 0.002], costs=[0.06, 0.002])
    upscaler = _upscaler(engines, monkeypatch)
    shown = _play(upscaler, engines, 5)
    first = shown.index("rt-sharp")
    assert set(shown[:first]) == {"bicubic"} and set(shown[first:]) == {"rt-sharp"}
    assert 1.9 < first * INTERVAL < 2.3
    assert (upscaler.network, upscaler.changes) == ("rt-sharp", 1)
    assert upscaler._report.notes == []


@pytest.mark.parametrize("cost", [0.05, 0.2], ids=["tried", "hopeless"])
def test_one_note_says_that_the_wanted_network_is_too_slow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, cost: float
) -> None:
    engines = Engines(took=[cost, 0.002], costs=[cost, 0.002])
    upscaler = _upscaler(engines, monkeypatch)
    assert set(_play(upscaler, engines, 20)) == {"bicubic"}
    expected = (
        f"rt-sharp takes {1000 * cost:.1f} ms per frame here, which exceeds 85% of the frame "
        "interval of 40.0 ms: bicubic is used until it is fast enough"
    )
    assert upscaler._report.notes == [expected]
    assert caplog.messages == [expected]


def test_bicubic_alone_needs_no_note(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = Engines(took=[0.2], costs=[0.2], names=["bicubic"])
    assert _upscaler(engines, monkeypatch, model="bicubic")._report.notes == []


def test_the_flicker_filter_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of 30 ms would do at 25 fps, but not with a filter of 10 ms."""
    monkeypatch.setattr(live_upscaler, "_filter_cost", lambda rungs: 0.01)
    engines = Engines(took=[0.03, 0.002], costs=[0.03, 0.002])
    upscaler = _upscaler(engines, monkeypatch, flicker_filter=None)
    assert set(_play(upscaler, engines, 20)) == {"bicubic"}
    assert "takes 40.0 ms" in upscaler._report.notes[0]


def test_a_network_chosen_by_default_needs_no_note(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = Engines(took=[0.05, 0.002], costs=[0.05, 0.002])
    upscaler = _upscaler(engines, monkeypatch, model=None)
    _play(upscaler, engines, 5)
    assert upscaler._report.notes == []


def test_a_network_that_was_used_and_given_up_is_not_called_too_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engines = Engines(took=[0.01, 0.002], costs=[0.01, 0.002])
    upscaler = _upscaler(engines, monkeypatch)
    _play(upscaler, engines, 1)
    engines.took[0] = 0.15  # a load on the processors
    assert _play(upscaler, engines, 30)[-1] == "bicubic"
    assert upscaler._report.notes == []


@pytest.mark.parametrize("disabled", [False, True])
def test_a_network_that_fails_in_a_trial_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, disabled: bool
) -> None:
    engines = Engines(took=[0.01, 0.002], costs=[0.06, 0.002], failing=True, disabled=disabled)
    upscaler = _upscaler(engines, monkeypatch)
    assert set(_play(upscaler, engines, 9)) == {"bicubic"}
    engines.failing = engines.disabled = False
    assert ("rt-sharp" in _play(upscaler, engines, 6)) is not disabled
