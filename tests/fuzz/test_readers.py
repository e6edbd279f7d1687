"""Tests that parsers of untrusted or damaged data raise only their documented errors."""

import contextlib
import json
import os
import string
from pathlib import Path
from typing import Any, Final

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutated
from vsr.cli.relay import relay
from vsr.cli.relay_config import option_values, read_config
from vsr.errors import InputError, UsageError
from vsr.inference.tensorrt.cache import MAGIC, DamagedError, read_entry
from vsr.live.rtmp import amf, chunks
from vsr.live.rtmp.amf import ProtocolError
from vsr.media.location import mask_secrets, url_for_messages
from vsr.media.pictures.names import find_pictures
from vsr.media.references import files_of

EXAMPLES: Final = int(os.environ.get("VSR_FUZZ_EXAMPLES", "0"))
quick = settings(
    max_examples=EXAMPLES or 40, deadline=None, derandomize=not EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
"""Settings: the same 40 examples in every run, or with VSR_FUZZ_EXAMPLES=5000 that many, random
each time."""

_PLAIN: Final = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20)
_AMF: Final = st.recursive(
    _PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1), inner),
    max_leaves=6,
)  # fmt: skip


@quick
@given(st.lists(_AMF, max_size=4))
def test_amf_reads_what_it_writes(values: list[amf.Value]) -> None:
    assert amf.decode(amf.encode(*values)) == values


@quick
@given(st.lists(_AMF, max_size=4), st.integers(0, 2**32))
def test_amf_of_strangers(values: list[amf.Value], seed: int) -> None:
    with contextlib.suppress(ProtocolError):
        amf.decode(mutated(amf.encode(*values), seed, 0))


@quick
@given(st.binary(max_size=400))
def test_amf_of_noise(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        amf.decode(data)


@quick
@given(
    st.lists(st.tuples(st.sampled_from([1, 3, 5, 8, 9, 18, 20, 22]), st.binary(max_size=300))),
    st.integers(0, 2**32), st.integers(1, 200),
)  # fmt: skip
def test_chunks_of_strangers(messages: list[tuple[int, bytes]], seed: int, step: int) -> None:
    """Damaged RTMP messages, fed in pieces of any size."""
    sent = [chunks.Message(kind, 0, body) for kind, body in messages]
    data = mutated(b"".join(chunks.to_chunks(one, 3, 128) for one in sent), seed, 0)
    reader = chunks.ChunkReader(10_000)
    try:
        for at in range(0, len(data), step):
            reader.feed(data[at : at + step])
            while (message := reader.take()) is not None:
                if message.kind == 22:
                    list(chunks.split_aggregate(message))
    except ProtocolError:
        pass


_TOML_VALUE: Final = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(string.printable, max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
_WORDS: Final = """
name input outputs model ladder crf bitrate e status report listen max-latency retry-max config help
nothing loop codec d
"""
_KEYS: Final = st.sampled_from(_WORDS.split())


@quick
@given(st.lists(st.dictionaries(_KEYS, _TOML_VALUE, max_size=6), max_size=3))
def test_configurations_of_any_values(tmp_path: Path, tables: list[dict[str, Any]]) -> None:
    """Every table is accepted, or refused with a message."""
    path = tmp_path / "relays.toml"
    lines = []
    for table in tables:
        lines += ["[[relay]]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path.write_text("\n".join(lines), encoding="utf-8")
    try:
        for one in read_config(path):
            option_values(relay, one.options)
    except (UsageError, click.ClickException) as exc:
        assert str(exc)


@quick
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_configurations_of_noise(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "relays.toml"
    path.write_bytes(data)
    with pytest.raises(UsageError):
        read_config(path)


_HEAD: Final = {
    "key": {"label": "a", "graph": "b", "sizes": "c", "runtime": "d", "version": "e", "gpu": "f",
            "targets": ["g"]},
    "plan_sha256": "0", "plan_bytes": 1, "facts": {},
}  # fmt: skip


@quick
@given(st.integers(0, 2**32), st.binary(max_size=60))
def test_engines_of_damaged_disks(tmp_path: Path, seed: int, rest: bytes) -> None:
    path = tmp_path / "engine"
    whole = MAGIC + json.dumps(_HEAD).encode() + b"\n"
    path.write_bytes(mutated(whole, seed, 0) + rest)
    with contextlib.suppress(DamagedError):
        read_entry(path)


_PLAYLISTS: Final = (
    b'#EXTM3U\n#EXT-X-MAP:URI="init.mp4"\n#EXTINF:4,\nsegment0.ts\n#EXTINF:4,\nother.m3u8\n',
    b"ffconcat version 1.0\nfile 'a b.mp4'\nfile c.mp4\n",
    b'<?xml version="1.0"?><MPD><Period><BaseURL>x/</BaseURL><SegmentTemplate '
    b'media="$Number%05d$.m4s" initialization="init.mp4"/></Period></MPD>',
)


@quick
@given(st.sampled_from(_PLAYLISTS), st.integers(0, 2**32), st.binary(max_size=30))
def test_playlists_of_strangers(tmp_path: Path, whole: bytes, seed: int, extra: bytes) -> None:
    """The files that an output must not overwrite can be listed for any playlist content."""
    path = tmp_path / "list.m3u8"
    path.write_bytes(mutated(whole, seed, 0) + extra)
    for file in files_of(path):
        with contextlib.suppress(OSError):  # the name is too long
            file.exists()


_SECRET: Final = st.text(string.ascii_letters + string.digits + "-_.~", min_size=8, max_size=20)


@quick
@given(
    st.sampled_from(["rtmp", "rtmps", "rtsp", "srt", "http"]), _SECRET, _SECRET, _SECRET,
    st.text(string.printable, max_size=20),
)  # fmt: skip
def test_secrets_of_urls_are_not_shown(
    scheme: str, user: str, password: str, key: str, words: str
) -> None:
    host = "host.example"
    url = f"{scheme}://{user}:{password}@{host}/live/{key}"
    for text in (url_for_messages(url), mask_secrets(f"{words} {url} {words}", url)):
        left = text.replace(words, "").replace(host, "").replace("live", "")
        assert password not in left and key not in left


@quick
@given(st.text(max_size=60))
def test_any_text_as_a_url_or_a_name(text: str) -> None:
    url_for_messages(text)
    mask_secrets(text, text)
    mask_secrets(f"cannot open {text}", f"rtmp://{text}")
    if "\0" not in text:  # arguments cannot contain it
        with contextlib.suppress(InputError):
            find_pictures(text)


_RECIPE: Final = b"""steps = 100
batch = 8
patch = 48
rate = 1e-4
loss = "l1"
scale_phases = [[50, [2]], [50, [2, 3]]]
"""


@quick
@given(st.integers(0, 2**32), st.binary(max_size=20))
def test_recipes_of_damaged_disks(tmp_path: Path, seed: int, extra: bytes) -> None:
    pytest.importorskip("torch")
    from train.errors import TrainError
    from train.fit.recipe import find_recipe

    path = tmp_path / "own.toml"
    path.write_bytes(mutated(_RECIPE, seed, 0) + extra)
    with contextlib.suppress(TrainError):
        find_recipe("c-dcscn", str(path))


@quick
@given(st.integers(0, 2**32), st.binary(max_size=20))
def test_provenance_of_damaged_disks(tmp_path: Path, seed: int, extra: bytes) -> None:
    pytest.importorskip("torch")
    from train.errors import TrainError
    from train.ship.provenance import NAME, read
    from vsr.inference.models import ENGINES

    whole = (ENGINES / "c-dcscn" / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(mutated(whole, seed, 0) + extra)
    with contextlib.suppress(TrainError):
        read(tmp_path)
