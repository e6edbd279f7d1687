"""Messages of Ray workers, from a fake Ray whose replies arrive in a given order."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vsr.files.cluster import Node
from vsr.files.journal_lines import Segment
from vsr.files.ray_crew import RayCrew, _Actor
from vsr.files.worker import SegmentResult
from vsr.media.clips import Clip
from vsr.media.limits import PROCESSORS_VARIABLE
from vsr.report.ledger import Ledger

NODE = Node(id="1", host="host", cpus=1, gpus=0)


class _Calls:
    """An actor's method: `remote` returns a reference, which the test uses to set the reply."""

    def __init__(self, ray: "_Ray", name: str) -> None:
        self.ray, self.name = ray, name

    def remote(self, *_: Any) -> str:
        self.ray.calls.append(f"{self.name} {len(self.ray.calls)}")
        return self.ray.calls[-1]


class _Ray:
    """Fake of the module `ray`, and of the cluster."""

    def __init__(self) -> None:
        self.ray = self
        self.calls: list[str] = []
        self.replies: dict[str, Any] = {}

    def nodes(self) -> list[Node]:
        return [NODE]

    def pinned_to(self, *_: Any, **__: Any) -> Any:
        names = ("begin", "work", "frames", "stop")
        actor = SimpleNamespace(**{name: _Calls(self, name) for name in names})
        return SimpleNamespace(remote=lambda *_: actor)

    def put(self, value: Any) -> Any:
        return value

    def wait(self, references: list[str], **_: Any) -> tuple[list[str], list[str]]:
        return [each for each in references if each in self.replies][:1], []

    def get(self, reference: str) -> Any:
        return self.replies[reference]


def _clip(folder: Path, number: int) -> Clip:
    path = folder / f"{number}.clip"
    path.write_bytes(b"packets")
    return Clip(
        number=number, follows=None, path=path, begin=Fraction(0), end=Fraction(1),
        lead_begin=Fraction(0), shift=Fraction(0), hidden=(), pictures=10,
    )  # fmt: skip


def _done(number: int) -> SegmentResult:
    segment = Segment(
        number=number, follows=None, file="segment.nut", frames=10, first_pts=0, last_pts=9,
        last_duration=1, reorder=0, bytes=1, sha256="", concealed=0, lost=0, ms=0.0,
    )  # fmt: skip
    return SegmentResult(segment=segment, ledger=Ledger(), stopped=False)


def test_a_late_number_of_frames_is_not_counted_for_the_next_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsr.files.ray_crew._FRAMES_INTERVAL_S", 0.0)
    ray: Any = _Ray()
    crew = RayCrew(ray, None, jobs=1)  # type: ignore[arg-type]

    def received(call: str, reply: Any) -> list[tuple[str, Any]]:
        ray.replies[call] = reply
        return [(message.kind, message.payload) for message in crew.messages(0)]

    assert [kind for kind, _ in received("begin 0", "place")] == ["ready"]
    crew.send(0, _clip(tmp_path, 0), tmp_path / "0.nut")
    assert received("frames 2", 4) == [("frames", 4)]
    assert [kind for kind, _ in received("work 1", (_done(0), b"video"))] == ["done"]
    assert ray.calls[-1] == "frames 3"  # requested before the segment was done
    crew.send(0, _clip(tmp_path, 1), tmp_path / "1.nut")
    assert received("frames 3", 10) == []
    assert received("frames 5", 2) == [("frames", 2)]


def test_an_actor_between_two_segments_has_no_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (PROCESSORS_VARIABLE, "SVT_LOG"):
        monkeypatch.setenv(name, "1")  # restored after the test
    actor = _Actor(1)

    def work(clip: Clip, target: Path, _stop: Any, told: Any) -> SegmentResult:
        told(10)
        assert actor.frames() == 10
        target.write_bytes(b"video")
        return _done(clip.number)

    actor._worker = SimpleNamespace(work=work)  # type: ignore[assignment]
    assert actor.work(_clip(tmp_path, 0), b"packets")[1] == b"video"  # type: ignore[index]
    assert actor.frames() == 0
