"""The ladder in simulated streams: it keeps the latency, settles and climbs back if possible."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from vsr.live.ladder.controller import DROP, Ladder, LadderSettings

FPS = 30
INTERVAL = 1 / FPS
LATENCY = 0.5


@dataclass
class Run:
    """Result of a simulated stream."""

    rungs: list[int] = field(default_factory=list)
    """Rung of every frame, or `DROP`."""
    latency: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    """Times of the rung changes, in seconds."""
    trials: list[tuple[float, int]] = field(default_factory=list)
    """Time (s) and rung of every trial."""


def simulate(
    costs: list[float],
    seconds: float,
    load: Callable[[float], float] = lambda _: 1.0,
    seed: int = 1,
    told: list[float] | None = None,
) -> Run:
    """Simulate a worker that gets one frame per interval and whose times vary by up to 20 %.

    `load` returns the factor on all costs at a time; `told` are the ladder's initial costs.
    """
    settings = LadderSettings(interval=INTERVAL, max_latency=LATENCY)
    ladder, random, run = Ladder(told or costs, settings, 0.0), Random(seed), Run()
    waiting: deque[float] = deque()
    now, arrivals = 0.0, iter(k * INTERVAL for k in range(round(seconds * FPS)))
    coming = next(arrivals, None)
    while coming is not None or waiting:
        while coming is not None and (coming <= now or not waiting):
            now = max(now, coming) if not waiting else now
            waiting.append(coming)
            coming = next(arrivals, None)
        arrived = waiting.popleft()
        before = ladder.changes
        rung = ladder.choose(now, arrived, len(waiting))
        run.changes += [now] * (ladder.changes - before)
        run.rungs.append(rung)
        if rung == DROP:
            continue
        took = costs[rung] * load(now) * random.uniform(0.8, 1.2)
        now += took
        ladder.record_cost(rung, took)
        run.latency.append(now - arrived + 0.005)
        behind = len(waiting) + (coming is not None and coming <= now)
        if (tried := ladder.rung_to_try(now, behind)) is not None:
            took = costs[tried] * load(now) * random.uniform(0.8, 1.2)
            now += took
            run.trials.append((now, tried))
            before = ladder.changes
            ladder.record_trial(tried, took, now)
            run.changes += [now] * (ladder.changes - before)
    return run


def test_a_light_network_stays_and_nothing_is_dropped() -> None:
    run = simulate([0.015, 0.002], 60)
    assert set(run.rungs) == {0}
    assert run.changes == []


def test_a_heavy_network_gives_way_before_anything_is_late() -> None:
    run = simulate([0.4, 0.02, 0.002], 120)
    assert DROP not in run.rungs
    assert max(run.latency) < LATENCY
    assert run.rungs[-1] == 1
    assert len(run.changes) <= 1


def test_costs_that_were_told_too_low_are_found_out_in_time() -> None:
    run = simulate([0.2, 0.02, 0.002], 60, told=[0.02, 0.01, 0.001])
    assert max(run.latency) < LATENCY
    assert DROP not in run.rungs
    assert run.rungs[-1] == 1


def test_a_burst_of_load_is_ridden_out_and_the_ladder_climbs_back() -> None:
    run = simulate([0.02, 0.008, 0.001], 120, load=lambda t: 5.0 if 30 < t < 40 else 1.0)
    during = run.rungs[FPS * 33 : FPS * 39]
    assert 0 not in during
    assert run.rungs[-1] == 0
    assert max(run.latency) < LATENCY
    assert DROP not in run.rungs


def test_no_oscillation_where_a_rung_just_does_not_fit() -> None:
    """Load recurs every 20 s: the wait before a climb must grow, or changes never stop."""
    run = simulate([0.024, 0.006, 0.001], 1200, load=lambda t: 1.9 if t % 20 < 6 else 1.0)
    for start in range(0, 1200, 60):
        assert sum(start <= t < start + 60 for t in run.changes) < 6
    late = [t for t in run.changes if t > 600]
    assert len(late) < 20
    assert max(run.latency) < LATENCY


def test_only_what_even_the_lightest_cannot_do_is_dropped() -> None:
    run = simulate([0.1, 0.05], 60)
    assert run.rungs.count(DROP) > 0
    assert max(run.latency) < LATENCY + 0.1
    done = len(run.rungs) - run.rungs.count(DROP)
    assert done > 0.9 * 60 / 0.05 * 1.0 * 0.9


def test_a_short_burst_costs_the_patience_and_not_more() -> None:
    """A burst of 2 s makes the rung that runs nine times as slow, as on a busy processor."""
    run = simulate([0.012, 0.0115, 0.002], 60, load=lambda t: 9.0 if 7 < t < 9 else 1.0)
    back = next(k for k, rung in enumerate(run.rungs) if k > FPS * 9 and rung == 0) / FPS
    assert 17 < back < 19.5
    assert max(run.latency) < LATENCY
    assert 1 not in run.rungs  # as slow as the better one: no use in a burst
    assert len(run.changes) == 2 and [rung for _, rung in run.trials] == [0, 0, 0]


def test_a_burst_is_noticed_before_the_latency_is_used_up() -> None:
    run = simulate([0.012, 0.002], 20, load=lambda t: 9.0 if t > 10 else 1.0)
    assert run.rungs[-1] == 1
    assert max(run.latency) < 0.7 * LATENCY


def test_one_slow_frame_changes_nothing() -> None:
    run = simulate([0.012, 0.002], 20, load=lambda t: 20.0 if 10 < t < 10.04 else 1.0)
    assert run.changes == [] and max(run.latency) > 0.2


@pytest.mark.parametrize("between", [math.inf, 1.5 * INTERVAL])
def test_a_rung_that_is_lost_or_slower_than_a_better_one_is_climbed_past(between: float) -> None:
    costs = [0.4 * INTERVAL, between, 0.05 * INTERVAL]
    ladder = Ladder(costs, LadderSettings(interval=INTERVAL, max_latency=LATENCY), 0.0)
    assert ladder.choose(0.0, 0.02 - LATENCY, 0) == 2  # a late frame
    for k in range(FPS * 60):
        now = k / FPS
        ladder.record_cost(ladder.choose(now, now, 0), costs[ladder.rung])
        if (tried := ladder.rung_to_try(now, 0)) is not None:
            ladder.record_trial(tried, costs[tried], now)
    assert ladder.rung == 0


def test_a_rung_given_up_is_never_taken_again() -> None:
    settings = LadderSettings(interval=INTERVAL, max_latency=LATENCY, patience=0.1)
    ladder = Ladder([0.01, 0.002], settings, 0.0)
    ladder.exclude(0)
    assert ladder.choose(1.0, 1.0, 0) == 1
    for k in range(2000):
        assert ladder.choose(1 + k, 1 + k, 0) == 1
        assert ladder.rung_to_try(1 + k, 0) is None


@pytest.mark.parametrize("costs", [[0.01], [0.5]])
def test_a_single_rung_has_nowhere_to_go(costs: list[float]) -> None:
    run = simulate(costs, 10)
    assert set(run.rungs) <= {0, DROP}
