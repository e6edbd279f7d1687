"""The output clock: times always increase, and audio stays in sync with its frame."""

from itertools import pairwise

import pytest

from vsr.live.clock import OutputClock

STEP = 0.04


def test_an_even_source_keeps_its_times() -> None:
    clock = OutputClock(STEP)
    times = [clock.place_frame(100 + k * STEP, 5 + k * STEP) for k in range(50)]
    assert times == pytest.approx([k * STEP for k in range(50)])
    assert clock.place_audio(101.0) == pytest.approx(1.0)
    assert (clock.corrections.jumps, clock.corrections.nudged) == (0, 0)


def test_there_is_no_sound_before_the_first_picture() -> None:
    clock = OutputClock(STEP)
    assert clock.place_audio(3.0) is None
    clock.place_frame(3.0, 0.0)
    clock.end_session()
    assert clock.place_audio(3.0) is None


@pytest.mark.parametrize("begin", [0.0, 95443.7, -2.0])
def test_a_source_that_comes_back_goes_on_at_the_walls_time(begin: float) -> None:
    clock = OutputClock(STEP)
    for k in range(25):
        clock.place_frame(10 + k * STEP, k * STEP)
    clock.end_session()
    fillers = [clock.place_repeat(1.0 + k * STEP) for k in range(1, 250)]
    assert fillers == sorted(set(fillers))
    assert fillers[-1] == pytest.approx(1.0 + 249 * STEP, abs=0.1)
    back = clock.place_frame(begin, 11.2)
    assert back == pytest.approx(11.2, abs=0.1)
    assert back > fillers[-1]
    sound = clock.place_audio(begin + 0.5)
    assert sound is not None
    assert sound - back == pytest.approx(0.5)


@pytest.mark.parametrize("leap", [-3.0, -26.5 * 3600, 3600.0])
def test_a_leap_within_a_session_is_closed(leap: float) -> None:
    clock = OutputClock(STEP)
    clock.place_frame(50.0, 0.0)
    clock.place_frame(50.0 + STEP, STEP)
    after = clock.place_frame(50.0 + 2 * STEP + leap, 2 * STEP)
    assert after == pytest.approx(2 * STEP, abs=STEP)
    assert clock.corrections.jumps == 1


def test_a_pause_of_the_source_is_kept() -> None:
    clock = OutputClock(STEP)
    clock.place_frame(1.0, 0.0)
    assert clock.place_frame(4.0, 3.0) == pytest.approx(3.0)
    assert clock.corrections.jumps == 0


def test_times_that_stand_still_or_step_back_are_nudged_forward() -> None:
    clock = OutputClock(STEP)
    times = [clock.place_frame(t, k * STEP) for k, t in enumerate((5.0, 5.0, 4.9, 5.04))]
    assert times == sorted(set(times))
    assert clock.corrections.nudged == 2
    assert times[-1] == pytest.approx(0.04)


def test_a_stall_that_was_filled_is_not_made_up_for_in_a_rush() -> None:
    """Late frames whose timestamps continue are shown at the frame rate from now on."""
    clock = OutputClock(STEP)
    clock.place_frame(0.0, 0.0)
    for k in range(1, 50):
        clock.place_repeat(k * STEP)
    times = [clock.place_frame((1 + k) * STEP, 2.0 + k * STEP) for k in range(10)]
    steps = [b - a for a, b in pairwise(times)]
    assert min(steps) == pytest.approx(STEP)
    assert times[0] >= clock.interval * 49


def _paused(clock: OutputClock, seconds: float) -> float:
    """Show 1 s of frames, then repeat the last one for `seconds`; return the wall-clock time."""
    for k in range(25):
        clock.place_frame(k * STEP, k * STEP)
    repeats = round(seconds / STEP)
    for k in range(1, repeats + 1):
        clock.place_repeat(24 * STEP + k * STEP)
    return (24 + repeats + 1) * STEP


def test_sound_after_a_pause_waits_for_the_picture_it_belongs_to() -> None:
    """A publisher that restarts behind a server: its times go on as if there were no pause."""
    clock = OutputClock(STEP)
    wall = _paused(clock, 4.0)
    assert clock.place_audio(24.5 * STEP) is None  # the next frame will be shown 4 s later
    shown = clock.place_frame(26 * STEP, wall)
    assert clock.place_audio(24.5 * STEP) == pytest.approx(shown - 1.5 * STEP)
    assert clock.place_audio(20 * STEP) == pytest.approx(20 * STEP)  # sound of before is late
    assert clock.audio_lag(24.5 * STEP, shown - 1.5 * STEP) < 0.1
    assert clock.audio_lag(26 * STEP, 26 * STEP) == 0.0


def test_sound_goes_on_while_only_the_pictures_pause() -> None:
    clock = OutputClock(STEP)
    wall = _paused(clock, 4.0)
    assert clock.place_audio(wall) == pytest.approx(wall)
    assert clock.place_audio(wall - 2.0, usual_lag=2.0) == pytest.approx(wall - 2.0)
