"""Several relays from one configuration file, each with the options of the command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from tests.streams import Marked, make_marked
from vsr.cli.relay import relay
from vsr.cli.relay_config import option_values, read_config
from vsr.errors import InputError, UsageError
from vsr.live.slate import Slate, darkened
from vsr.media.colour import Colour

ROOT = Path(__file__).parents[2]


def _config(folder: Path, text: str) -> Path:
    path = folder / "relays.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_becomes_the_values_of_the_options(tmp_path: Path) -> None:
    path = _config(
        tmp_path,
        """
        [[relay]]
        name = "left"
        input = "rtmp://host/live/in"
        outputs = ["rtmp://a/live/k", "-b.flv"]
        max-latency = 300
        loop = true
        realtime = false
        flicker-filter = false
        e = ["refs=1", "g=50"]
        report = "left.json"
        [[relay]]
        input = "in.mp4"
        outputs = "out.flv"
        """,
    )
    left, right = read_config(path)
    assert (left.name, right.name) == ("left", "relay 2")
    assert left.urls == ("rtmp://host/live/in", "rtmp://a/live/k", "-b.flv")
    assert right.urls == ("in.mp4", "out.flv")
    values, others = (option_values(relay, table.options) for table in (left, right))
    told = {
        "max_latency": 300, "loop": True, "options": {"refs": "1", "g": "50"},
        "report": Path("left.json"), "flicker_filter": False,
    }  # fmt: skip
    default = {
        "max_latency": 500, "loop": False, "options": {}, "report": None, "flicker_filter": None,
    }  # fmt: skip
    assert {name: values[name] for name in told} == told
    assert {name: others[name] for name in told} == default
    assert values | told == others | told  # other options have their defaults, e.g.:
    assert (values["backend"], values["stream_timeout"], values["realtime"]) == ("auto", 5.0, False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crf": "x"}, "'x' is not a whole number"),
        ({"crf": 1.5}, "'1.5' is not a whole number"),
        ({"crf": True}, "it must be text or a number"),
        ({"crf": [1, 2]}, "it must be one value"),
        ({"max-latency": 10}, "10 is not in the range"),
        ({"loop": "yes"}, "it must be true or false"),
        ({"e": ["refs"]}, "not of the form KEY=VALUE"),
        ({"max_latency": 300}, "No such option"),
    ],
)
def test_a_value_that_an_option_does_not_take(options: dict[str, Any], words: str) -> None:
    with pytest.raises(click.ClickException) as told:
        option_values(relay, options)
    assert words in told.value.format_message()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[relay]", "is not a valid TOML file"),
        ("", "contains no relay"),
        ("relay = 3", "contains no relay"),
        ("relays = []", "unknown key 'relays'"),
        ("[[relay]]\ninput = 'a'", "relay 1: 'input' must be a URL"),
        ("[[relay]]\ninput = 1\noutputs = 'b'", "relay 1: 'input' must be a URL"),
        (
            "[[relay]]\ninput = 'a'\noutputs = 'b'\nverbose = true",
            "'verbose' applies to all relays",
        ),
        ("[[relay]]\ninput = 'a'\noutputs = 'b'\ncrf = {x = 1}", "'crf' must be text, a number"),
        ("[[relay]]\nname='x'\ninput='a'\noutputs='b'\n" * 2, "two relays have the name 'x'"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("[", r"\[")):
        read_config(_config(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_config(tmp_path / "none.toml")


def _relay(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "vsr", "relay", *words],
        cwd=folder, env=None, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words", "more"),
    [
        ("crf = 'x'", "relay 1: error: Invalid value for '--crf'", ()),
        ("wings = 3", "relay 1: error: No such option '--wings'", ()),
        ("listen = true", "relay 1: error: --listen supports rtmp:// and rtmps:// only", ()),
        (
            "[[relay]]\ninput = 'c'\noutputs = ['d.flv', 'b.flv']",
            "another relay has the same out",
            (),
        ),
        ("", "with --config, set --crf in", ("--crf", "20")),
        ("", "with --config, set --pix-fmt in", ("--pix-fmt", "yuv420p")),
        ("", "with --config, set -e in", ("-e", "g=5")),
        ("", "with --config, set URLs in", ("a", "b")),
    ],
)
def test_wrong_options_are_told_in_a_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    words: str,
    more: tuple[str, ...],
) -> None:
    path = _config(tmp_path, f"[[relay]]\ninput = 'a'\noutputs = 'b.flv'\n{line}\n")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(relay, ["--config", str(path), *more])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr


def test_relays_side_by_side_none_ends_the_others(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=2))
    tables = [
        f"[[relay]]\nname = '{name}'\ninput = '{source}'\noutputs = ['{name}.flv']\n"
        f"model = 'c-dcscn'\nmax-latency = 3000\nreport = '{name}.json'\npreset = 'ultrafast'\n"
        for name, source in (("one", clip), ("two", clip), ("three", tmp_path / "none.flv"))
    ]
    done = _relay(tmp_path, "--config", str(_config(tmp_path, "".join(tables))))
    assert done.returncode == 1, done.stderr
    assert "vsr: three: error: " in done.stderr
    assert "Traceback" not in done.stderr
    for name in ("one", "two"):
        report: dict[str, Any] = json.loads((tmp_path / f"{name}.json").read_text())
        assert f"vsr: {name}: live: " in done.stderr
        assert report["frames"]["in"] == 50
        assert report["output"]["size"] == [320, 180]
        assert (tmp_path / f"{name}.flv").stat().st_size > 1000


def test_a_slate_is_shown_after_a_while_and_only_while_there_is_no_picture(tmp_path: Path) -> None:
    image = ROOT / "examples" / "bicubic_beside_ours.png"
    y = np.full((48, 64), 200, np.uint8)
    last = (y, np.full((24, 32), 100, np.uint8), np.full((24, 32), 150, np.uint8))
    for slate in (Slate(2.0), Slate(2.0, image)):
        slate.fit((64, 48), Colour(matrix=6))
        assert slate.show(last, 10.0) is last
        assert slate.show(last, 12.0) is last
        away = slate.show(last, 12.1)
        assert [p.shape for p in away] == [p.shape for p in last]
        assert (away[0].mean() < 100) or (away[0].std() > 10)
        slate.end()
        assert slate.show(last, 13.0) is last


def test_a_slate_fits_into_the_picture_and_keeps_its_colour(tmp_path: Path) -> None:
    import av

    path = tmp_path / "red.png"
    red = np.zeros((100, 100, 3), np.uint8)
    red[..., 0] = 255
    with av.open(str(path), "w", format="image2") as out:
        stream = out.add_stream("png")
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 100, 100, "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(red, format="rgb24")))
        out.mux(stream.encode(None))
    slate = Slate(0.0, path)
    slate.fit((66, 34), Colour(matrix=1))
    slate.show(darkened((red[..., 0],) * 3), 0.0)
    y, u, v = slate.show(darkened((red[..., 0],) * 3), 1.0)
    assert (y.shape, u.shape, v.shape) == ((34, 66), (17, 33), (17, 33))
    assert (y[17, 33], u[8, 16], v[8, 16]) == pytest.approx((63, 102, 240), abs=2)  # BT.709 red
    assert (y[17, 2], u[8, 1], v[8, 1]) == pytest.approx((16, 128, 128), abs=2)
    assert all(plane.flags.c_contiguous and plane.flags.writeable for plane in (y, u, v))


def test_a_slate_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "slate.png"
    for data in (b"", b"no picture"):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"cannot read the slate .* as an image"):
            Slate(1.0, path)
    with pytest.raises(InputError, match="cannot read the slate"):
        Slate(1.0, tmp_path / "none.png")
