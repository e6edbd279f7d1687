"""Make and run the commands that repeat a shipped network's training, from `provenance.toml`."""

import hashlib
import logging
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from train.errors import TrainError
from train.fit.checkpoint import load_checkpoint
from train.fit.recipe import Recipe, find_recipe, recipe_from
from train.ship import provenance
from train.ship.git_history import find_in_history
from train.ship.manifest import read_manifest
from train.ship.provenance import Stage

log = logging.getLogger(__name__)
TRIAL_STEPS: Final = 20
_TRIAL_PATCH: Final = 16
_OPTIONS: Final = ("rate", "batch", "patch", "init", "seed")
"""Recipe settings that are also options of `fit`."""
CLIPS_FOLDER: Final = "clips"
"""Folder of the clips that stages name, beside the picture folders."""
_FILES: Final = ("--vgg", "--lpips", "--teacher")
"""Options of `fit` that name a file of weights."""


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Input and output folders of a reproduction."""

    data: Path
    """Parent folder of the picture folders that the stages name, and of `CLIPS_FOLDER`."""
    weights: Path
    """Folder of third-party weights that the stages read: VGG, LPIPS, teachers."""
    work: Path
    engines: Path
    """Folder of the shipped networks with their provenance."""
    trial: bool = False
    """Whether to run only the first steps of every stage, on few small patches, as a test."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Command `python -m train ...`: arguments, output file, and target step if a checkpoint."""

    words: tuple[str, ...]
    output: Path
    step: int = 0

    def __str__(self) -> str:
        return shlex.join(["python", "-m", "train", *self.words])

    def is_done(self) -> bool:
        """Return whether the output exists and has reached the target step."""
        if not self.output.exists():
            return False
        return not self.step or load_checkpoint(self.output)["step"] >= self.step


Packs = dict[tuple[Any, ...], Path]
"""Files of packed pictures, by the values that the pictures depend on."""


def commands(model: str, scales: Sequence[int], folders: Folders) -> list[Command]:
    """Return the commands that remake the given (or all) scales of a model, without duplicates.

    Raises TrainError for an unknown model or scale, a file without provenance, and a file in the
    weights folder that differs from the one used in the training.
    """
    found: dict[tuple[str, ...], Command] = {}
    packs: Packs = {}
    for scale, entry in _entries(model, scales, folders.engines).items():
        folder = (folders.engines / entry["file"]).parent
        chain = provenance.chains_of(folders.engines, {model: {"": entry}}).get(entry["file"])
        if chain is None:
            raise TrainError(
                f"{folder / provenance.NAME} has no training stages of {entry['file']}"
            )
        ends: list[Path] = []
        for name, stage in chain.stages:
            if "imported" in stage:
                ends.append(folders.weights / stage["imported"])
                continue
            checkpoint = folders.work / folder.name / f"{name}.pt"
            start = ends[-1] if ends else None
            made = [*_stage_commands(name, stage, folder, checkpoint, start, folders, packs)]
            made += _blend_command(stage["blend"], checkpoint, ends)
            found |= {command.words: command for command in made if command.words not in found}
            ends.append(made[-1].output)
        command = _export_command(ends[-1], folders.work / "engines" / entry["file"], model, scale)
        found.setdefault(command.words, command)
    return list(found.values())


def _entries(model: str, scales: Sequence[int], engines: Path) -> dict[int, dict[str, Any]]:
    models = read_manifest(engines)["models"]
    if model not in models:
        raise TrainError(f"no model '{model}' in {engines}; it has: {', '.join(models)}")
    known = {int(key.removeprefix("x")): entry for key, entry in sorted(models[model].items())}
    if missing := [scale for scale in scales if scale not in known]:
        have = ", ".join(map(str, known))
        raise TrainError(f"{model} has no scale {missing[0]}; it has: {have}")
    return {scale: known[scale] for scale in scales or known}


def _blend_command(blend: dict[str, Any], checkpoint: Path, ends: list[Path]) -> Iterator[Command]:
    """Yield the command that blends a stage's weights with an earlier stage's, if it was done."""
    if not blend:
        return
    output = checkpoint.with_name(f"{checkpoint.stem}.blend{checkpoint.suffix}")
    words = ["blend", str(checkpoint), "--with", str(ends[-blend["stages_back"]])]
    share = ["--share", str(blend["share"])]
    yield Command(words=(*words, *share, "--output", str(output)), output=output)


def _export_command(checkpoint: Path, output: Path, model: str, scale: int) -> Command:
    engines = output.parents[1]
    words = ["export", str(checkpoint), "--engines", str(engines), "--model", model]
    return Command(words=(*words, "--scale", str(scale)), output=output)


def _stage_commands(
    name: str,
    stage: Stage,
    folder: Path,
    checkpoint: Path,
    start: Path | None,
    folders: Folders,
    packs: Packs,
) -> Iterator[Command]:
    """Yield a stage's commands: those that make its inputs, then one `fit` per value of `steps`."""
    recipe = recipe_from(stage["recipe"], stage["recipe"]["name"])
    ends = [*stage["moved"], [stage["step"], recipe.steps]]
    named, changes = _recipe_options(stage["network"], replace(recipe, steps=ends[0][1]))
    source = named or f"{folder / provenance.NAME}#{name}"
    scales = [word for scale in stage["scales"] for word in ("--scale", str(scale))]
    settings = [word for key, v in stage["settings"].items() for word in ("--set", _change(key, v))]
    pictures = _picture_options(stage, folders)
    if "--packed" in shlex.split(stage["command"]):
        known = len(packs)
        own = find_recipe(stage["network"], source)
        packed = _packed_path(stage, replace(own, patch=recipe.patch), checkpoint.parent, packs)
        size = ["--patch", str(recipe.patch)] if recipe.patch != own.patch else []
        pack = ("pack", stage["network"], "--recipe", source, *scales, *pictures, *size)
        if len(packs) > known:
            yield Command(words=(*pack, "--output", str(packed)), output=packed)
        pictures = ["--packed", str(packed)]
    words = ["fit", stage["network"], "--recipe", source, *scales, *settings, *pictures]
    words += ["--checkpoint", str(checkpoint), *changes]
    others = list(_weight_files(stage, folders))
    yield from (command for _, _, command in others if command)
    words += ["--precision", stage["precision"], *(["--from", str(start)] if start else [])]
    words += [word for option, path, _ in others for word in (option, str(path))]
    if folders.trial:
        words += ["--batch", "2", *_trial_patch(recipe), "--threads", "1"]
        share = TRIAL_STEPS // len(ends)
        ends = [[share * (n + 1), steps] for n, (_, steps) in enumerate(ends)]
    for until, steps in ends:
        stop = ["--until", str(until)] if until < steps else []
        yield Command(words=(*words, "--steps", str(steps), *stop), output=checkpoint, step=until)


def _picture_options(stage: Stage, folders: Folders) -> list[str]:
    """Return the options of `fit` and `pack` that name a stage's image folders and clips."""
    words = ["--data", *(str(folders.data / folder) for folder in stage["data"]["folders"])]
    for clip in stage["data"].get("clips", []):
        words += ["--clip", str(folders.data / CLIPS_FOLDER / clip)]
    return words


def _recipe_options(network: str, recipe: Recipe) -> tuple[str, list[str]]:
    """Return the recipe's name and extra `fit` options, if today's recipe gives the same values.

    Returns an empty name if the recipe has changed since; then use the recipe in provenance.
    """
    try:
        today = find_recipe(network, recipe.name).with_steps(recipe.steps)
    except TrainError:
        return "", []
    changes = {key: getattr(recipe, key) for key in _OPTIONS}
    if _with_tuples(replace(today, **changes)) != _with_tuples(recipe):
        return "", []
    return recipe.name, [
        word
        for key, value in changes.items()
        if value != getattr(today, key)
        for word in (f"--{key}", f"{value:g}" if isinstance(value, float) else str(value))
    ]


def _with_tuples(recipe: Recipe) -> Recipe:
    """Return the recipe with all sequences as tuples, for comparison."""
    return recipe_from(provenance.plain_recipe(recipe), recipe.name)


def _change(key: str, value: Any) -> str:
    return f"{key}={provenance.to_toml(value).replace(' ', '')}"


def _weight_files(stage: Stage, folders: Folders) -> Iterator[tuple[str, Path, Command | None]]:
    """Yield (option of `fit`, file, command that makes the file or None) of a stage's weights."""
    words = shlex.split(stage["command"])
    requested = [(option, value, "") for option, value in pairwise(words) if option in _FILES]
    requested += [("--from", other["file"], other["sha256"]) for other in stage["joined"]]
    for option, file, known in requested:
        sha256 = stage["teacher"].get("sha256", "") if option == "--teacher" else known
        if (command := _history_command(file, sha256, folders)) is not None:
            yield option, command.output, command
        else:
            yield option, _weight_path(file, sha256, folders), None


def _packed_path(stage: Stage, recipe: Recipe, folder: Path, packs: Packs) -> Path:
    """Return the packed file for a stage, shared by stages with the same pictures."""
    data, scales = stage["data"], tuple(stage["scales"])
    sources = (*data["folders"], *data.get("clips", []))
    drawn = (recipe.degradation, recipe.copies, recipe.patch, recipe.hr_patch, recipe.seed)
    key = (folder, sources, scales, *drawn)
    if key not in packs:
        name = f"{recipe.name}-x{''.join(map(str, scales))}"
        names = (name, *(f"{name}-{n}" for n in range(2, len(packs) + 3)))
        free = (folder / f"{name}.pictures" for name in names)
        packs[key] = next(path for path in free if path not in packs.values())
    return packs[key]


def _history_command(file: str, sha256: str, folders: Folders) -> Command | None:
    """Return the command that restores a formerly shipped network from git history, or None."""
    if _shipped_path(file, sha256, folders) or not find_in_history(folders.engines, file, sha256):
        return None  # also if the digest is unknown
    name = Path(file)
    output = folders.work / "former" / f"{name.stem}-{sha256[:12]}{name.suffix}"
    words = ("former", file, "--sha256", sha256, "--engines", str(folders.engines))
    return Command(words=(*words, "--output", str(output)), output=output)


def _shipped_path(file: str, sha256: str, folders: Folders) -> Path | None:
    """Return the shipped network with that name and SHA-256, or None."""
    found = sorted(folders.engines.glob(f"*/{file}"))
    return next((path for path in found if _digest(path) == sha256), None)


def _weight_path(file: str, sha256: str, folders: Folders) -> Path:
    """Return the path of a weights file: a shipped network, or a file in the weights folder.

    Raises TrainError if the latter exists with another SHA-256.
    """
    path = _shipped_path(file, sha256, folders) or folders.weights / file
    if sha256 and path.exists() and _digest(path) != sha256:
        raise TrainError(
            f"{path} differs from the file of the training (sha256 {sha256[:12]}): replace it"
        )
    return path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_inputs(found: Sequence[Command]) -> None:
    """Raise TrainError for missing pictures and weights, before any training starts."""
    made = {command.output for command in found}
    requested = [path for c in found if not c.is_done() for path in _inputs(c) if path not in made]
    if missing := [str(path) for path in dict.fromkeys(requested) if not path.exists()]:
        raise TrainError(f"missing (sources: see docs/training.md): {', '.join(missing)}")


def _inputs(command: Command) -> Iterator[Path]:
    """Yield the picture folders and weight files that a command reads."""
    option = ""
    for word in command.words:
        if word.startswith("--"):
            option = word
        elif option in ("--data", "--clip", "--from", *_FILES):
            yield Path(word)


def _trial_patch(recipe: Recipe) -> list[str]:
    """Return options for a small patch in a trial; discriminators need the recipe's patch."""
    plain = {kind for _, kind in recipe.loss} <= {"l1", "l2", "alternate"}
    return ["--patch", str(min(recipe.patch, _TRIAL_PATCH))] if plain else []


def run(command: Command) -> int:
    """Run a command in a subprocess unless its output exists; return the exit status."""
    if command.is_done():
        log.info("skipped, the output exists: %s", command.output)
        return 0
    log.info("%s", command)
    try:
        command.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise TrainError(f"cannot create the folder {exc.filename}: {exc.strerror}") from exc
    return subprocess.run([sys.executable, "-m", "train", *command.words], check=False).returncode
