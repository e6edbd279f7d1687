"""Tests of the cache of networks compiled by OpenVINO, which later processes load."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vsr.inference import compiled, models
from vsr.inference.backend import load_backend
from vsr.inference.compiled import CompiledCache
from vsr.media.colour import Colour
from vsr.media.frame import Planes

pytestmark = pytest.mark.usefixtures("compiled_anew")
SIZE = (32, 24)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compiled, "user_cache_path", lambda *_, **__: tmp_path)
    return tmp_path / "compiled"


def _enlarged(name: str = "c-dcscn", precision: str = "int8") -> Planes:
    backend = load_backend("openvino")
    engine = backend.compile(models.find(name, 2, backend, precision).graph(Colour()), SIZE)
    rng = np.random.default_rng(1)
    shapes = (SIZE[::-1], (12, 16), (12, 16))
    y, u, v = (rng.integers(16, 236, shape).astype(np.uint8) for shape in shapes)
    return engine.submit((y, u, v)).result()


def _equal(some: Planes, others: Planes) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def test_a_kept_network_gives_the_same_pictures(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _enlarged()
    [kept] = folder.iterdir()
    found: list[bool] = []
    get = CompiledCache.get

    def watched(self: CompiledCache, key_parts: Any) -> bytes | None:
        content = get(self, key_parts)
        found.append(content is not None)
        return content

    monkeypatch.setattr(CompiledCache, "get", watched)
    assert _equal(_enlarged(), first)
    assert not _equal(_enlarged(precision="fp32"), first)  # another network
    assert found == [True, False]
    assert len(list(folder.iterdir())) == 2
    assert kept.stat().st_size > 10_000


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "not OpenVINO's"])
def test_a_damaged_file_is_made_anew(folder: Path, damage: str) -> None:
    first = _enlarged()
    [kept] = folder.iterdir()
    whole = kept.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    foreign = compiled._digest(b"foreign") + b"foreign"
    kept.write_bytes(
        {"cut": whole[:middle], "flipped": flipped, "empty": b"", "not OpenVINO's": foreign}[damage]
    )
    assert _equal(_enlarged(), first)
    assert len(kept.read_bytes()) > 0.9 * len(whole)


def test_without_a_folder_it_works_too(folder: Path) -> None:
    folder.write_text("a file is in the way")
    assert _equal(_enlarged(), _enlarged())


def test_what_was_not_used_for_longest_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_MAX_TOTAL_BYTES", 3000)
    cache = CompiledCache(tmp_path)
    for name in "abcd":
        cache.put([name], bytes(900))
        if "a" < name < "d":
            assert cache.get(["a"]) is not None
    assert cache.get(["b"]) is None
    assert all(cache.get([name]) == bytes(900) for name in "acd")
    cache.put(["large"], bytes(compiled._MAX_ENTRY_BYTES + 1))
    assert cache.get(["large"]) is None


def test_openvino_keeps_its_converter_for_others() -> None:
    code = (
        "import sys, vsr.inference.openvino, openvino;"
        "assert 'openvino.tools.ovc' not in sys.modules;"
        "model = openvino.convert_model(sys.argv[1]);"
        "assert len(model.outputs) == 1"
    )
    network = str(models.ENGINES / "c-dcscn/x2.onnx")
    subprocess.run([sys.executable, "-c", code, network], check=True, timeout=120)
