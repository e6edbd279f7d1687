"""How a network is trained, as data: `train/recipes/*.toml` -> `Recipe`.

A file covers a paper's networks; each of its tables is one recipe: `paper` as published, `ours`
for small data and little time, `stream` for compressed video, `sharp` for compressed video that
should look sharp, `gan` PCARN's adversarial stage as published (`pcarn` and `pcarn-m`; their L1
stage is `paper` of `pcarn-l1` and `pcarn-m-l1`).
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
    """Settings of one training. Steps count from 0; a phase is a pair [first step, what]."""

    name: str = "ours"
    steps: int = 20_000
    batch: int = 32
    """Patches a step, over all processes."""
    patch: int = 32
    """Side of a patch in LR pixels, or in HR pixels where `hr_patch`."""
    hr_patch: bool = False
    grid: int = 0
    """Patches stand on a grid of this many HR pixels, all seen once an epoch; 0: anywhere."""
    turns: Literal["flips", "all"] = "all"
    """Augmentation: the four flips, or all eight flips and rotations."""
    copies: tuple[float, ...] = ()
    """Scaled copies of every image that are trained on too."""
    degradation: Literal["bicubic", "stream"] = "bicubic"
    boxes: float = 0.0
    """Share of patches into which flat boxes with hard edges are drawn (`train.fit.boxes`)."""
    scales: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """Phases of scales to draw from, one a batch; empty: all that the network has."""
    blend: int = 0
    """Steps over which the level of a scale that joins later is blended in linearly (CSRCNN)."""

    init: str = "he"
    """A name of `train.fit.initialise.INITS`."""
    start_small: bool = False
    """Start as plain enlargement: bicubic where a network has a bicubic skip, bilinear in CSRCNN;
    CARN has neither."""
    relu_fade: int = 0
    """Steps over which a PCARN that starts from CARN's weights gives up CARN's ReLUs."""
    network: dict[str, Any] = field(default_factory=dict)
    """Settings of the network that only matter in training: `keep`, `slope`."""

    optimiser: Literal["adam", "sgd", "muon"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    weight_decay: float = 0.0
    weight_norm: float = 0.0
    """Weight of the sum of all convolutions' L2 norms in the loss (DCSCN), for values of 0..1."""
    rate: float = 2e-3
    """Highest learning rate."""
    schedule: Literal["cosine", "halve", "plateau", "shares"] = "cosine"
    """A half cosine to 1 %; halved every `halve_every` steps; halved after `patience` epochs
    whose training loss was no new low, and ended under `stop_rate`; halved at the shares
    `halve_at` of all steps."""
    halve_every: int = 0
    halve_at: tuple[float, ...] = ()
    patience: int = 5
    stop_rate: float = 0.0
    warmup: int = 0
    """Steps of linear rise at the start."""
    clip: float = 0.0
    """Largest gradient norm; 0 for no limit."""
    ema: float = 0.999
    """Decay of the averaged weights, which are evaluated and exported; 0: the last weights."""
    loss: tuple[tuple[int, str], ...] = ((0, "l1"),)
    """Phases of `l1`, `l2`, `alternate` (L2 on even steps, L1 on odd ones), `gan` or `sharp`."""
    teacher: str = ""
    """File of a network whose pictures the student learns to make; empty for none."""
    teacher_weight: float = 1.0
    """Share of the loss against the teacher's picture, 0..1; the rest is against HR."""
    adversary: dict[str, Any] = field(default_factory=dict)
    """Fields of `train.fit.gan.Adversary` that differ from the public code's."""
    sharp: dict[str, Any] = field(default_factory=dict)
    """Fields of `train.fit.sharp.Sharpness` that differ from its defaults."""
    seed: int = 1

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, but for `plateau`, which also looks at the loss."""
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
        """`l1`, `l2`, `gan` or `sharp`."""
        kind = _phase(self.loss, step)
        if kind == "alternate":
            return "l1" if step % 2 else "l2"
        return kind

    def adversarial(self) -> bool:
        """Whether a phase needs discriminators."""
        return any(kind == "gan" for _, kind in self.loss)

    def sharpens(self) -> bool:
        """Whether a phase is the loss of `train.fit.sharp`."""
        return any(kind == "sharp" for _, kind in self.loss)

    def goes_on_from(self) -> str:
        """The training whose weights it is meant to start with, in words; empty for none."""
        if self.sharpens() and self.degradation == "stream":
            return "a training of recipe `stream` or `sharp`"
        if self.adversarial() or self.sharpens():
            return "an L1 training"
        if self.relu_fade:
            return "CARN"
        return "a training on clean pictures" if self.degradation == "stream" else ""

    def scales_at(self, step: int, known: tuple[int, ...]) -> tuple[int, ...]:
        """The scales that a step's batch is drawn from."""
        return _phase(self.scales, step) if self.scales else known

    def share_at(self, step: int, scale: int) -> float:
        """How much a scale's own level counts, from 0 to 1, while it is blended in."""
        joins = next((first for first, found in self.scales if scale in found), 0)
        if not self.blend or joins == 0:
            return 1.0
        return min(1.0, (step - joins + 1) / self.blend)

    def lr_patch(self, scale: int) -> int:
        """Side of a patch in LR pixels."""
        return max(1, self.patch // scale) if self.hr_patch else self.patch

    def resized(self, steps: int | None) -> "Recipe":
        """The same recipe over another number of steps; phases and halvings move along."""
        if steps is None or steps == self.steps:
            return self
        share = steps / self.steps

        def moved(phases: tuple[tuple[int, Any], ...]) -> tuple[tuple[int, Any], ...]:
            return tuple((round(first * share), what) for first, what in phases)

        halve = max(1, round(self.halve_every * share)) if self.halve_every else 0
        return replace(
            self, steps=steps, halve_every=halve, blend=round(self.blend * share),
            loss=moved(self.loss), scales=moved(self.scales),
        )  # fmt: skip


def _phase(phases: tuple[tuple[int, Any], ...], step: int) -> Any:
    return [what for first, what in phases if first <= step][-1]


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def recipe_from(table: dict[str, Any], name: str) -> Recipe:
    """A table of a recipe file, or a checkpoint's record. Raises TrainError for unknown keys."""
    known = {f.name for f in fields(Recipe)}
    if unknown := sorted(set(table) - known):
        raise TrainError(f"recipe '{name}' has unknown keys: {', '.join(unknown)}")
    recipe = Recipe(**{"name": name, **{key: _tuples(value) for key, value in table.items()}})
    if wrong := _wrong_value(recipe) or _wrong_phase(recipe):
        raise TrainError(f"recipe '{name}': {wrong}")
    return recipe


def _wrong_value(recipe: Recipe) -> str:
    """What no such key can be, empty where all is well."""
    for key, kind in get_type_hints(Recipe).items():
        value, origin, choices = getattr(recipe, key), get_origin(kind), get_args(kind)
        if origin is Literal:
            if value not in choices:
                return f"{key} = {value!r} is none of {', '.join(choices)}"
        elif not isinstance(value, (int, float) if kind is float else origin or kind):
            return f"{key} = {value!r} is of another type"
    if recipe.schedule == "halve" and recipe.halve_every < 1:
        return "schedule = 'halve' needs halve_every"
    for key in ("teacher_weight", "boxes"):
        if not 0 <= getattr(recipe, key) <= 1:
            return f"{key} = {getattr(recipe, key)} is not in 0..1"
    return ""


def _wrong_phase(recipe: Recipe) -> str:
    """A phase that cannot be, empty where all are well."""
    for key, phases in (("loss", recipe.loss), ("scales", recipe.scales)):
        if any(not isinstance(phase, tuple) or len(phase) != 2 for phase in phases):
            return f"{key} is no list of [first step, what]"
        if phases and phases[0][0] != 0:
            return f"{key} has no phase for step 0"
    if unknown := {kind for _, kind in recipe.loss} - LOSSES:
        return f"loss {unknown.pop()!r} is none of {', '.join(sorted(LOSSES))}"
    if recipe.adversarial() and recipe.sharpens():
        return "losses `gan` and `sharp` need different critics: name one of them"
    return ""


def recipe_record(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, for checkpoints and manifests; of a teacher, the file's name."""
    return asdict(replace(recipe, teacher=Path(recipe.teacher).name))


def recipes_of(network: str) -> dict[str, Recipe]:
    """Name -> recipe of everything in `train/recipes` that covers a network."""
    found: dict[str, Recipe] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        if network in tables.pop("networks"):
            found |= {name: recipe_from(table, name) for name, table in tables.items()}
    return found


def find_recipe(network: str, name: str) -> Recipe:
    """A recipe by name, that of the user's own `.toml` file, or FILE#STAGE of a provenance.toml.

    Raises TrainError for an unknown name, or a file that cannot be read as a recipe.
    """
    file, _, stage = name.partition("#")
    if file.endswith(".toml"):
        return _from_file(Path(file), stage)
    known = recipes_of(network)
    if name not in known:
        have = ", ".join(sorted(known))
        raise TrainError(f"no recipe '{name}' for {network}; there are: {have}, or a .toml file")
    return known[name]


def _from_file(path: Path, stage: str = "") -> Recipe:
    """A file's recipe; of a stage of a `provenance.toml`, what it was before its end was moved."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if not stage:
            return recipe_from(table, path.stem)
        told = table["stages"][stage]
        first = [steps for _, steps in told.get("moved", [])][:1] or [told["recipe"]["steps"]]
        return recipe_from({**told["recipe"], "steps": first[0]}, told["recipe"]["name"])
    except KeyError as exc:
        raise TrainError(f"{path} has no recipe of a stage '{stage}'") from exc
    except OSError as exc:
        raise TrainError(f"cannot read the recipe {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, TypeError, UnicodeDecodeError) as exc:
        raise TrainError(f"{path} is not a recipe: {exc}") from exc
