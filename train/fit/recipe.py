"""Define `Recipe`, the settings of a training, and read recipes from `train/recipes/*.toml`.

A file covers a paper's networks; each of its tables is one recipe: `paper` as published, `ours`
for small data and few steps, `stream` for compressed video, `sharp` for compressed video that
should look sharp, `distil` for training on a teacher's pictures, `gan` for PCARN's adversarial
stage as published (`pcarn` and `pcarn-m`; their L1 stage is `paper` of `pcarn-l1` and
`pcarn-m-l1`).
"""

import math
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from train.errors import TrainError

FOLDER: Final = Path(__file__).parents[1] / "recipes"
LOSSES: Final = frozenset({"l1", "l2", "alternate", "gan", "sharp"})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of one training. Steps count from 0; a phase is a pair [first step, value]."""

    name: str = "ours"
    steps: int = 20_000
    batch: int = 32
    """Number of patches per step, over all processes."""
    patch: int = 32
    """Side of a patch in LR pixels, or in HR pixels if `hr_patch`."""
    hr_patch: bool = False
    grid: int = 0
    """Stride of the patch grid in HR pixels, each patch used once per epoch; 0: no grid."""
    turns: Literal["flips", "all"] = "all"
    """Augmentation: the four flips, or all eight flips and rotations."""
    copies: tuple[float, ...] = ()
    """Scale factors of additional with_steps copies of every image."""
    degradation: Literal["bicubic", "stream", "low-rate stream"] = "bicubic"
    """How LR pictures are made: by bicubic downscaling alone, or encoded as video after it, with
    the settings of that name (`train.data.degrade.STREAMS`)."""
    boxes: float = 0.0
    """Share of patches into which flat boxes with hard edges are drawn (`train.fit.boxes`)."""
    scales: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """Phases of scales, from which each batch samples one; empty: all of the network's scales."""
    blend: int = 0
    """Number of steps over which the level of a scale added later is blended in (CSRCNN)."""

    init: str = "he"
    """Initialisation: a key of `train.fit.initialise.INITS`."""
    start_small: bool = False
    """Whether to start as plain enlargement: bicubic in networks with a bicubic skip, bilinear in
    CSRCNN; ignored for CARN."""
    relu_fade: int = 0
    """Number of steps over which a PCARN started from CARN's weights phases out CARN's ReLUs."""
    network: dict[str, Any] = field(default_factory=dict)
    """Network settings that only matter in training: `keep`, `slope`."""

    optimiser: Literal["adam", "sgd", "muon"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    weight_decay: float = 0.0
    weight_norm: float = 0.0
    """Weight of the sum of all convolutions' L2 norms in the loss (DCSCN), for values of 0..1."""
    rate: float = 2e-3
    """Highest learning rate."""
    schedule: Literal["cosine", "halve", "plateau", "shares"] = "cosine"
    """Learning rate schedule. `cosine`: half cosine down to 1 %; `halve`: halved every
    `halve_every` steps; `plateau`: halved after `patience` epochs without a new minimum of the
    training loss, training ends under `stop_rate`; `shares`: halved at the fractions `halve_at` of
    all steps."""
    halve_every: int = 0
    halve_at: tuple[float, ...] = ()
    patience: int = 5
    stop_rate: float = 0.0
    warmup: int = 0
    """Number of initial steps with linearly rising rate."""
    clip: float = 0.0
    """Maximum gradient norm; 0 for no limit."""
    ema: float = 0.999
    """Decay of the averaged weights, which are evaluated and exported; 0: the last weights."""
    loss: tuple[tuple[int, str], ...] = ((0, "l1"),)
    """Phases of `l1`, `l2`, `alternate` (L2 on even steps, L1 on odd ones), `gan` or `sharp`."""
    teacher: str = ""
    """File of the teacher network, whose output is the training target; empty for none."""
    teacher_weight: float = 1.0
    """Weight of the loss against the teacher's picture, 0..1; the loss against HR has the rest."""
    adversary: dict[str, Any] = field(default_factory=dict)
    """Fields of `train.fit.gan.AdversarialSettings` that differ from the public code's."""
    sharp: dict[str, Any] = field(default_factory=dict)
    """Fields of `train.fit.sharp.Sharpness` that differ from its defaults."""
    seed: int = 1

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step; for `plateau` the initial one (see `Plateau`)."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        match self.schedule:
            case "cosine":
                done = (step - self.warmup) / max(1, self.steps - self.warmup)
                return self.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
            case "halve":
                return self.rate * 0.5 ** (step // self.halve_every)
            case "shares":
                return self.rate * 0.5 ** sum(step >= at * self.steps for at in self.halve_at)
            case "plateau":
                return self.rate

    def loss_at(self, step: int) -> str:
        """Return the loss of a step: `l1`, `l2`, `gan` or `sharp`."""
        kind = _phase(self.loss, step)
        if kind == "alternate":
            return "l1" if step % 2 else "l2"
        return kind

    def uses_gan_loss(self) -> bool:
        """Return whether a phase uses the loss `gan`, which needs discriminators."""
        return any(kind == "gan" for _, kind in self.loss)

    def uses_sharp_loss(self) -> bool:
        """Return whether a phase uses the loss `sharp` (`train.fit.sharp`)."""
        return any(kind == "sharp" for _, kind in self.loss)

    def encodes_video(self) -> bool:
        """Return whether the LR pictures are encoded as video."""
        return self.degradation != "bicubic"

    def expected_start(self) -> str:
        """Return a description of the training whose weights it should start from, or ""."""
        if self.uses_sharp_loss() and self.encodes_video():
            return "a training of recipe `stream` or `sharp`"
        if self.uses_gan_loss() or self.uses_sharp_loss():
            return "an L1 training"
        if self.relu_fade:
            return "CARN"
        return "a training on clean pictures" if self.encodes_video() else ""

    def scales_at(self, step: int, known: tuple[int, ...]) -> tuple[int, ...]:
        """Return the scales from which a step's batch samples one."""
        return _phase(self.scales, step) if self.scales else known

    def level_weight_at(self, step: int, scale: int) -> float:
        """Return the weight of a scale's own level at a step, 0..1; under 1 while blended in."""
        joins = next((first for first, found in self.scales if scale in found), 0)
        if not self.blend or joins == 0:
            return 1.0
        return min(1.0, (step - joins + 1) / self.blend)

    def lr_patch(self, scale: int) -> int:
        """Return the side of a patch in LR pixels."""
        return max(1, self.patch // scale) if self.hr_patch else self.patch

    def with_steps(self, steps: int | None) -> "Recipe":
        """Return the recipe for another number of steps, with phases and halvings scaled."""
        if steps is None or steps == self.steps:
            return self
        share = steps / self.steps

        def rescaled(phases: tuple[tuple[int, Any], ...]) -> tuple[tuple[int, Any], ...]:
            return tuple((round(first * share), what) for first, what in phases)

        halve = max(1, round(self.halve_every * share)) if self.halve_every else 0
        return replace(
            self, steps=steps, halve_every=halve, blend=round(self.blend * share),
            relu_fade=round(self.relu_fade * share),
            loss=rescaled(self.loss), scales=rescaled(self.scales),
        )  # fmt: skip


def _phase(phases: tuple[tuple[int, Any], ...], step: int) -> Any:
    return [what for first, what in phases if first <= step][-1]


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def recipe_from(table: dict[str, Any], name: str) -> Recipe:
    """Make a recipe from a recipe file's table or a checkpoint's record.

    Raises TrainError for unknown keys and invalid values.
    """
    known = {f.name for f in fields(Recipe)}
    if unknown := sorted(set(table) - known):
        raise TrainError(f"recipe '{name}' has unknown keys: {', '.join(unknown)}")
    recipe = Recipe(**{"name": name, **{key: _tuples(value) for key, value in table.items()}})
    if invalid := _invalid_value(recipe) or _invalid_phase(recipe):
        raise TrainError(f"recipe '{name}': {invalid}")
    return recipe


def _invalid_value(recipe: Recipe) -> str:
    """Return a description of the first invalid value, or "" if all are valid."""
    for key, kind in get_type_hints(Recipe).items():
        value, origin, choices = getattr(recipe, key), get_origin(kind), get_args(kind)
        if origin is Literal:
            if value not in choices:
                return f"{key} = {value!r} is not one of {', '.join(choices)}"
        elif not isinstance(value, (int, float) if kind is float else origin or kind):
            return f"{key} = {value!r} has the wrong type"
    if recipe.schedule == "halve" and recipe.halve_every < 1:
        return "schedule = 'halve' needs halve_every"
    for key in ("teacher_weight", "boxes"):
        if not 0 <= getattr(recipe, key) <= 1:
            return f"{key} = {getattr(recipe, key)} is not in 0..1"
    return ""


def _invalid_phase(recipe: Recipe) -> str:
    """Return a description of the first invalid phase, or "" if all are valid."""
    for key, phases in (("loss", recipe.loss), ("scales", recipe.scales)):
        if any(not isinstance(phase, tuple) or len(phase) != 2 for phase in phases):
            return f"{key} is not a list of [first step, value]"
        if phases and phases[0][0] != 0:
            return f"{key} has no phase for step 0"
    if unknown := {kind for _, kind in recipe.loss} - LOSSES:
        return f"loss {unknown.pop()!r} is not one of {', '.join(sorted(LOSSES))}"
    if recipe.uses_gan_loss() and recipe.uses_sharp_loss():
        return "losses `gan` and `sharp` need different critics: use only one of them"
    return ""


def recipe_record(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as a dictionary for checkpoints and manifests; `teacher` is a file name."""
    return asdict(replace(recipe, teacher=Path(recipe.teacher).name))


def recipes_of(network: str) -> dict[str, Recipe]:
    """Return all recipes in `train/recipes` for a network, by name."""
    found: dict[str, Recipe] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        if network in tables.pop("networks"):
            found |= {name: recipe_from(table, name) for name, table in tables.items()}
    return found


def find_recipe(network: str, name: str) -> Recipe:
    """Return a recipe by name, from a user's `.toml` file, or from FILE#STAGE of a provenance.toml.

    Raises TrainError for an unknown name, or a file that cannot be read as a recipe.
    """
    file, _, stage = name.partition("#")
    if file.endswith(".toml"):
        return _from_file(Path(file), stage)
    known = recipes_of(network)
    if name not in known:
        have = ", ".join(sorted(known))
        raise TrainError(
            f"unknown recipe '{name}' of {network}; choose one of: {have}, or a .toml file"
        )
    return known[name]


def _from_file(path: Path, stage: str = "") -> Recipe:
    """Read a recipe file, or a `provenance.toml` stage's recipe with its original `steps`."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if not stage:
            return recipe_from(table, path.stem)
        record = table["stages"][stage]
        first = [steps for _, steps in record.get("moved", [])][:1] or [record["recipe"]["steps"]]
        return recipe_from({**record["recipe"], "steps": first[0]}, record["recipe"]["name"])
    except KeyError as exc:
        raise TrainError(f"{path} has no stage '{stage}' with a recipe") from exc
    except OSError as exc:
        raise TrainError(f"cannot read the recipe {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, TypeError, UnicodeDecodeError) as exc:
        raise TrainError(f"{path} is not a recipe: {exc}") from exc
