"""Read and write `engines/<network>/provenance.toml`, the record of each file's training stages.

The file lists every training once under `stages`; `files` has for each ONNX its SHA-256 and the
names of its stages, oldest first. A stage has the parameters of `fit`: network, scales, network
settings that differ from the defaults, recipe values that differ from `Recipe()`, the last step,
`moved` ([step, steps]: until that step the recipe had that other number of steps), pictures,
teacher, `joined` (further files that supplied initial weights), `blend` (the share of its weights,
and the number of stages back to the other weights), precision, command, commit, and a `note` that
may be added by hand: it is kept when a file is exported again. Third-party weights are a stage with
`imported` (file name) and `sha256`.
"""

import json
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from train.errors import TrainError
from train.files import atomic_write
from train.fit.recipe import Recipe, recipe_from, recipe_record
from train.nets import NETS

NAME: Final = "provenance.toml"
SCHEMA: Final = "vsr-provenance/1"
HEAD: Final = """\
# How the networks in this folder were trained. Written by `python -m train export`; a `note` of
# yours is kept. `python -m train reproduce MODEL --dry-run` prints the commands that repeat it.
"""
Stage = dict[str, Any]
_EMPTY: Final[Stage] = {
    "network": "", "scales": [], "settings": {}, "step": 0, "moved": [], "data": {},
    "teacher": {}, "joined": [], "blend": {},
    "precision": "32-true", "vgg": "", "commit": "", "command": "", "note": "",
}  # fmt: skip
"""Default of every key of a stage except `recipe`, in the order of writing."""
_ALWAYS_WRITTEN: Final = ("name", "steps", "batch", "patch", "rate", "seed")
"""Recipe settings that are written even if they have the default value."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Chain of trainings of one file, oldest first."""

    sha256: str
    """SHA-256 of the ONNX file."""
    stages: tuple[tuple[str, Stage], ...]
    """(name, stage) pairs; names are unique in their folder."""


def complete_record(record: Stage) -> Stage:
    """Return a training's record with every key that this version writes.

    Older checkpoints have network, scales and settings only in their command. Raises TrainError if
    the network is missing there too.
    """
    if "imported" in record:
        return record
    from_command = _from_command(record.get("command", "")) if "network" not in record else {}
    if not {**from_command, **record}.get("network"):
        raise TrainError(f"a stage has no network: {record.get('command', '')!r}")
    recipe = recipe_from(record["recipe"], record["recipe"].get("name", "ours"))
    found = {**_EMPTY, **from_command, **record, "recipe": recipe_record(recipe)}
    plain: Stage = json.loads(json.dumps(found))  # tuples as lists
    return plain


def _from_command(command: str) -> Stage:
    """Parse network, scales and settings of `python -m train fit NAME --scale N --set K=V ...`."""
    words = shlex.split(command)
    if words[3:4] != ["fit"] or words[4:5][0] not in NETS:
        return {}
    values: dict[str, list[str]] = {}
    option = ""
    for word in words[5:]:
        if word.startswith("--"):
            option = word
        else:
            values.setdefault(option, []).append(word)
    changes = (change.partition("=") for change in values.get("--set", []))
    return {
        "network": words[4],
        "scales": list(map(int, values.get("--scale", []))) or list(NETS[words[4]].scales),
        "settings": {key: json.loads(value) for key, _, value in changes},
    }


def read(folder: Path) -> dict[str, Chain]:
    """Read a folder's `provenance.toml` as {file name: chain}; empty if it does not exist.

    Raises TrainError for a damaged or foreign file.
    """
    path = folder / NAME
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise TrainError(f"cannot read {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise TrainError(f"{path} is damaged: {exc}") from exc
    if content.get("schema") != SCHEMA:
        raise TrainError(f"{path} does not have the schema {SCHEMA}")
    try:
        known = {name: complete_record(stage) for name, stage in content.get("stages", {}).items()}
        return {
            file: Chain(
                sha256=entry["sha256"],
                stages=tuple((name, known[name]) for name in entry["stages"]),
            )
            for file, entry in content["files"].items()
        }
    except (KeyError, TypeError, AttributeError, IndexError) as exc:
        raise TrainError(f"{path} is incomplete: {exc!r}") from exc


def chains_of(engines: Path, models: dict[str, Any]) -> dict[str, Chain]:
    """Return {file of a manifest's entry: chain}, for files with a chain and equal SHA-256."""
    files = [entry for scales in models.values() for entry in scales.values()]
    folders = {Path(entry["file"]).parent.name for entry in files}
    known = {f"{name}/{file}": c for name in folders for file, c in read(engines / name).items()}
    return {
        entry["file"]: known[entry["file"]]
        for entry in files
        if entry["file"] in known and known[entry["file"]].sha256 == entry["sha256"]
    }


def add_file(folder: Path, file: str, sha256: str, training: list[Stage]) -> None:
    """Enter the trainings of `file` in a folder's `provenance.toml`, keeping the other files'."""
    chains = read(folder)
    existing = {_identity(stage): stage for chain in chains.values() for _, stage in chain.stages}
    stages = [complete_record(stage) for stage in training]
    stages = [existing.get(_identity(stage), stage) for stage in stages]
    found = {name: (chain.sha256, [s for _, s in chain.stages]) for name, chain in chains.items()}
    write(folder, {**found, file: (sha256, stages)})


def _identity(stage: Stage) -> str:
    """Return a key that is equal for records of the same training, even if edited by hand."""
    if "imported" in stage:
        return str(stage["sha256"])
    parts = [stage["command"], stage["step"], stage["recipe"]["seed"], stage.get("blend", {})]
    return json.dumps(parts)


def is_same(a: Stage, b: Stage) -> bool:
    """Return whether two records are of the same training."""
    return _identity(complete_record(a)) == _identity(complete_record(b))


def write(folder: Path, files: dict[str, tuple[str, list[Stage]]]) -> None:
    """Write {file: (SHA-256, stages)} as a folder's `provenance.toml`."""
    names: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    lines = [HEAD, f'schema = "{SCHEMA}"', ""]
    for file, (sha256, chain) in sorted(files.items()):
        path, used = "", []
        for stage in chain:
            path += json.dumps(stage, sort_keys=True)  # the key includes the stages before
            if path not in names:
                names[path] = _unused(_name_of(stage), stages)
                stages[names[path]] = stage
            used.append(names[path])
        lines += [f"[files.{to_toml(file)}]", f"sha256 = {to_toml(sha256)}"]
        lines += [f"stages = {to_toml(used)}", ""]
    for name, stage in stages.items():
        lines += [f"[stages.{name}]", *_lines(stage), ""]
    with atomic_write(folder / NAME) as out:
        out.write("\n".join(lines).encode())


def _name_of(stage: Stage) -> str:
    if "imported" in stage:
        return "imported"
    scales = "".join(map(str, stage["scales"]))
    return re.sub(r"[^\w-]", "-", f"{stage['network']}-x{scales}-{stage['recipe']['name']}")


def _unused(name: str, taken: dict[str, Stage]) -> str:
    numbered = (f"{name}-{n}" for n in range(2, len(taken) + 3))
    return next(n for n in (name, *numbered) if n not in taken)


def _lines(stage: Stage) -> list[str]:
    """Format a stage as TOML, without empty values and defaults of `Recipe()`."""
    lines = [
        f"{key} = {to_toml(value)}"
        for key, value in stage.items()
        if key != "recipe" and (value not in ("", [], {}) or key == "commit")
    ]
    if "recipe" in stage:
        plain = plain_recipe(Recipe())
        lines += [
            f"recipe.{key} = {to_toml(value)}"
            for key, value in stage["recipe"].items()
            if key in _ALWAYS_WRITTEN or value != plain.get(key)
        ]
    return lines


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as in TOML and JSON, with lists instead of tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(recipe_record(recipe)))
    return plain


def to_toml(value: Any) -> str:
    """Format a value as TOML; strings, numbers and booleans are the same in JSON."""
    if isinstance(value, dict):
        inside = ", ".join(f"{key} = {to_toml(v)}" for key, v in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(to_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)
