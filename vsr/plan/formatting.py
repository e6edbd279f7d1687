"""Formats a plan as text or data: a table of networks, and recommendations for this video."""

from collections.abc import Sequence
from typing import Any, Final

from vsr.plan.choice import HEADROOM, SPEEDS
from vsr.plan.cost import STAGES
from vsr.plan.plan import Line, Task
from vsr.report.html.text import span

_WHAT_HELPS: Final = {
    "decode": "decoding is the bottleneck",
    "network": "the network is the bottleneck",
    "encode": "the encoder is the bottleneck: use a faster --preset, or on an NVIDIA GPU "
    "-c h264_nvenc",
}


def table(task: Task, lines: Sequence[Line]) -> str:
    """Return a table, one line per network: ms of each stage, frames per second, speed, limit."""
    stages = [name for name in STAGES if name in lines[0].forecast.stages]
    titles = ["model", *(f"{name} ms" for name in stages), "fps", "real time", "bottleneck"]
    if task.frames:
        titles.append("duration")
    rows = [titles]
    for line in lines:
        forecast = line.forecast
        costs = [forecast.stages[name].alone_ms(forecast.cores) for name in stages]
        row = [line.model, *(f"{ms:.1f}" for ms in costs), f"{forecast.fps:.1f}"]
        row += [f"{times_real_time(task, line):.2f}x", forecast.bottleneck]
        if task.frames:
            row.append(span(forecast.seconds(task.frames)))
        rows.append(row)
    widths = [max(len(row[k]) for row in rows) for k in range(len(titles))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if k == 0 else text.rjust(width)
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def times_real_time(task: Task, line: Line) -> float:
    """Return the ratio of the expected frames per second to the video's rate."""
    return line.forecast.fps / float(task.video.rate)


def recommendation(task: Task, line: Line, speed: str) -> list[str]:
    """Return two lines: the network that `vsr run` would choose and why, and what limits it."""
    kind = "clean video" if task.clean else "compressed video"
    if task.look is not None:
        kind = f"a {task.look} look"
    speed_ratio = times_real_time(task, line)
    min_speed = SPEEDS[speed]
    why = f"the best network for {kind}"
    if min_speed:
        why += f" that reaches {min_speed:g} times real time"
    if speed_ratio < min_speed:
        why = "the lightest network"
    speed_here = f"expected: {speed_ratio:.2f} times real time"
    if task.frames:
        speed_here += f", duration {span(line.forecast.seconds(task.frames))}"
    choice = f"vsr run would use {line.model}: {why} (--speed {speed}); {speed_here}"
    return [choice, _WHAT_HELPS[line.forecast.bottleneck]]


def live_recommendation(task: Task, lines: Sequence[Line]) -> str:
    """Return a line on the best network for a live stream of this size and rate, with headroom."""
    fast_enough = [x for x in lines if times_real_time(task, x) >= HEADROOM]
    if not fast_enough:
        return (
            "no network is fast enough here for a live stream of this size and rate: vsr relay "
            "would use bicubic"
        )
    best = fast_enough[0]
    return (
        f"vsr relay would use {best.model} for a live stream of this size and rate "
        f"(at least {HEADROOM:g} times real time)"
    )


def as_json(task: Task, lines: Sequence[Line], chosen: str | None) -> dict[str, Any]:
    """Return the plan as data for JSON; times in ms unless named otherwise."""
    width, height = task.video.size
    return {
        "schema": "vsr-plan/1",
        "size": [width, height],
        "rate": str(task.video.rate),
        "frames": task.frames or None,
        "clean": task.clean,
        "chosen": chosen,
        "models": [
            {
                "model": line.model,
                "precision": line.precision,
                "stages": {
                    name: {"wall_ms": round(cost.wall_ms, 2), "cpu_ms": round(cost.cpu_ms, 2)}
                    for name, cost in line.forecast.stages.items()
                },
                "start_ms": round(line.forecast.start_ms, 1),
                "fps": round(line.forecast.fps, 2),
                "times_real_time": round(times_real_time(task, line), 3),
                "limit": line.forecast.bottleneck,
                "measured": line.forecast.trial_cost is not None,
                "seconds": round(line.forecast.seconds(task.frames), 2) if task.frames else None,
            }
            for line in lines
        ],
    }
