"""Read and write `engines/manifest.json`, which `vsr` reads, and update the page of model cards."""

import json
from pathlib import Path
from typing import Any, Final

from train.errors import TrainError
from train.files import atomic_write
from train.ship import provenance
from train.ship.cards import cards

SCHEMA: Final = "vsr-engines/3"


def add_entry(engines: Path, name: str, key: str, entry: dict[str, Any]) -> None:
    """Put a network's entry into the manifest, and rewrite the cards."""
    content: dict[str, Any] = {"schema": SCHEMA, "models": {}}
    if (engines / "manifest.json").exists():
        content = read_manifest(engines)
    if known := _known_time(content["models"], entry):
        entry["ms"] = known
    content["models"].setdefault(name, {})[key] = entry
    write_manifest(engines, content)


def _known_time(models: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Return the time of a network with the same layers, or {}: weights do not affect speed."""
    same = ("colour", "parameters", "multadds_720p", "receptive_field_radius")
    for scales in models.values():
        for other in scales.values():
            if "ms" in other and all(other[key] == entry[key] for key in same):
                known: dict[str, Any] = other["ms"]
                return known
    return {}


def read_manifest(engines: Path) -> dict[str, Any]:
    """Read a folder's `manifest.json`; raise TrainError if it is missing, damaged or foreign."""
    path = engines / "manifest.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise TrainError(f"cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise TrainError(f"the manifest in {engines} is damaged: {exc}") from exc
    if content.get("schema") != SCHEMA:
        raise TrainError(f"{path} does not have the schema {SCHEMA}: export into a new folder")
    return content


def write_manifest(engines: Path, content: dict[str, Any]) -> None:
    """Write `manifest.json` and the model cards generated from it."""
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    write_file(engines / "manifest.json", text.encode())
    models = json.loads(text)["models"]  # in the order of the file, for equal order in both
    chains = provenance.chains_of(engines, models)
    write_file(engines / "README.md", cards(models, chains).encode())


def write_file(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as file:
        file.write(data)
