"""Tests of distillation: the targets of the loss, and which teachers are refused."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tests.training import TINY, assert_same, image_folder, patches_for, train
from train.__main__ import main
from train.errors import TrainError
from train.fit.checkpoint import load_checkpoint, stage_record
from train.fit.recipe import recipe_record
from train.fit.reporter import Reporter
from train.fit.teacher import load_teacher
from train.fit.trainer import Trainer
from train.nets import build
from train.ship import export
from train.ship.about import notes
from train.ship.provenance import complete_record

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = {"channels": 16}
RECIPE = replace(TINY, steps=4, warmup=0, schedule="halve", halve_every=100, teacher="teacher.pt")


@dataclass
class Losses(Reporter):
    """Reporter that records the loss of each step."""

    seen: list[float] = field(default_factory=list)

    def add_loss(self, loss: float) -> None:
        super().add_loss(loss)
        self.seen.append(loss)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "hr")


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """Save a teacher's checkpoint whose weights differ from a student's initial weights."""
    return _checkpoint(tmp_path / "teacher.pt", seed=9)


def _checkpoint(path: Path, seed: int, name: str = "carn-m", **changes: Any) -> Path:
    settings = {"scales": (2,), **(WIDTH if name == "carn-m" else {}), **changes}
    scales = settings.pop("scales")
    Trainer.new(name, replace(TINY, seed=seed), scales, **settings).save(path)
    return path


def _student(share: float = 1.0) -> Trainer:
    return Trainer.new("carn-m", replace(RECIPE, teacher_weight=share), (2,), **WIDTH)


def _taught(share: float, teacher: Path) -> Trainer:
    student = _student(share)
    student.set_teacher(load_teacher(teacher))
    return student


def _losses(student: Trainer, folder: Path, tmp_path: Path) -> list[float]:
    reporter = Losses(every=100)
    train(student, patches_for(student, folder), tmp_path / "student.pt", reporter)
    return reporter.seen


def test_a_student_that_equals_its_teacher_has_nothing_to_learn(
    folder: Path, tmp_path: Path, teacher: Path
) -> None:
    student = _taught(1.0, teacher)
    student.net.load_state_dict(load_checkpoint(teacher)["average"])
    before = {name: value.clone() for name, value in student.net.state_dict().items()}
    assert _losses(student, folder, tmp_path) == [0.0] * 4
    assert_same(dict(student.net.state_dict()), before)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_loss_is_shared_between_the_teachers_picture_and_the_true_one(
    share: float, folder: Path, tmp_path: Path, teacher: Path
) -> None:
    student = _taught(share, teacher)
    lr, hr, _ = (torch.stack(part) if n < 2 else part for n, part in enumerate(zip(*(
        patches_for(student, folder)[k] for k in range(RECIPE.batch)), strict=True)))  # fmt: skip
    master = build("carn-m", (2,), **WIDTH)
    master.load_state_dict(load_checkpoint(teacher)["average"])
    with torch.no_grad():
        ours, theirs = student.net(lr, 2), master(lr, 2)
    expected = share * (ours - theirs).abs().mean() + (1 - share) * (ours - hr).abs().mean()
    first = _losses(student, folder, tmp_path)[0]
    assert first == pytest.approx(float(expected), rel=1e-5)


def test_the_teacher_stays_as_it_was_and_its_weights_do_not_go_into_the_student(
    folder: Path, tmp_path: Path, teacher: Path
) -> None:
    student = _taught(1.0, teacher)
    assert student.teacher is not None
    x = torch.rand(1, 3, 8, 8)
    before = student.teacher.enlarge(x, 2)
    _losses(student, folder, tmp_path)
    assert torch.equal(student.teacher.enlarge(x, 2), before)
    saved, master = load_checkpoint(tmp_path / "student.pt"), load_checkpoint(teacher)["average"]
    assert set(saved["net"]) == set(master)
    assert not any(
        torch.equal(saved["net"][name], value)
        for name, value in master.items()
        if name.endswith("weight") and "mean" not in name
    )


def test_a_resumed_training_ends_as_an_uninterrupted_one(
    folder: Path, tmp_path: Path, teacher: Path
) -> None:
    whole = _taught(0.5, teacher)
    train(whole, patches_for(whole, folder), tmp_path / "whole.pt")
    half = _taught(0.5, teacher)
    half.recipe = replace(half.recipe, steps=2)
    train(half, patches_for(half, folder), tmp_path / "half.pt")
    rest = Trainer.resume(tmp_path / "half.pt", steps=4)
    rest.set_teacher(load_teacher(teacher))
    train(rest, patches_for(rest, folder), tmp_path / "half.pt")
    ends = [load_checkpoint(tmp_path / f"{name}.pt") for name in ("whole", "half")]
    for part in ("teacher", "net", "average", "optimiser"):
        assert_same(*(end[part] for end in ends))
    assert ends[1]["teacher"]["file"] == "teacher.pt"


def test_resuming_takes_no_other_teacher(folder: Path, tmp_path: Path, teacher: Path) -> None:
    _losses(_taught(1.0, teacher), folder, tmp_path)
    other = load_teacher(_checkpoint(tmp_path / "other.pt", seed=8))
    resumed = Trainer.resume(tmp_path / "student.pt")
    with pytest.raises(TrainError, match=r"other\.pt differs from teacher\.pt"):
        resumed.set_teacher(other)
    resumed.set_teacher(load_teacher(teacher))


def test_a_training_that_began_without_a_teacher_gets_none(
    folder: Path, tmp_path: Path, teacher: Path
) -> None:
    plain = Trainer.new("carn-m", replace(TINY, steps=1, warmup=0), (2,), **WIDTH)
    train(plain, patches_for(plain, folder), tmp_path / "plain.pt")
    with pytest.raises(TrainError, match="without a teacher"):
        Trainer.resume(tmp_path / "plain.pt").set_teacher(load_teacher(teacher))


def test_teachers_for_other_scales_or_colours_are_refused(tmp_path: Path) -> None:
    x3 = load_teacher(_checkpoint(tmp_path / "x3.pt", seed=1, scales=(3, 4)))
    with pytest.raises(TrainError, match=r"x3\.pt lacks x2, it has x3, x4"):
        _student().set_teacher(x3)
    luma = load_teacher(_checkpoint(tmp_path / "luma.pt", seed=1, name="c-dcscn"))
    with pytest.raises(TrainError, match=r"processes luma, the network RGB"):
        _student().set_teacher(luma)


def test_an_onnx_file_teaches_what_its_network_makes(tmp_path: Path) -> None:
    net = build("carn-m", (2,), **WIDTH).eval()
    path = tmp_path / "carn-m" / "x2.onnx"
    path.parent.mkdir()
    path.write_bytes(export.to_onnx(net, 2).SerializeToString())
    teacher = load_teacher(path)
    assert (teacher.colour, teacher.scales) == ("rgb", (2,))
    assert teacher.record["network"] == "carn-m"
    x = torch.rand(2, 3, 12, 16)
    with torch.no_grad():
        assert (teacher.enlarge(x, 2) - net(x, 2)).abs().max() < 1e-5


def test_a_public_checkpoint_is_known_by_its_weights(tmp_path: Path) -> None:
    torch.save(build("carn-m").state_dict(), tmp_path / "public.pth")
    teacher = load_teacher(tmp_path / "public.pth")
    assert (teacher.record["network"], teacher.scales) == ("carn-m", (2, 3, 4))


def _text(path: Path) -> None:
    path.write_text("no weights")


def _foreign(path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(3)}, path)


def _nothing(path: Path) -> None:
    path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("gone.pt", _nothing, "cannot read the teacher"),
        ("text.onnx", _text, "is not an ONNX file"),
        ("text.pth", _text, "text.pth"),
        ("foreign.pth", _foreign, "no weights of a known network"),
    ],
)
def test_other_files_are_refused_in_a_line(
    name: str, make: Callable[[Path], None], told: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(TrainError, match=told) as caught:
        load_teacher(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_command_takes_it_and_the_card_says_so(
    folder: Path, tmp_path: Path, teacher: Path
) -> None:
    checkpoint = tmp_path / "student.pt"
    words = ["fit", "carn-m", "--scale", "2", "--set", "channels=16", "--data", str(folder)]
    words += ["--checkpoint", str(checkpoint), "--teacher", str(teacher), "--steps", "2"]
    words += ["--batch", "2", "--patch", "8", "--threads", "1", "--validation", str(folder)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    saved = load_checkpoint(checkpoint)
    assert saved["recipe"]["teacher"] == "teacher.pt"  # without the local path
    assert list(saved["teacher"]["psnr"]["hr"]) == ["x2"]
    [page] = notes({"distil": {**complete_record(stage_record(saved)), "commit": "1"}})
    assert "is distilled from the outputs of teacher.pt (carn-m, x2 " in page
    assert saved["teacher"]["sha256"][:12] in page


def test_a_record_keeps_the_teachers_name_alone() -> None:
    assert recipe_record(replace(RECIPE, teacher="/a/b/carn.pt"))["teacher"] == "carn.pt"
