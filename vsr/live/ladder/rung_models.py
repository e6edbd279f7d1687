"""Which networks are the rungs of a ladder: what was asked for, then lighter ones, then bicubic."""

from dataclasses import dataclass

from vsr.errors import UsageError
from vsr.inference import models
from vsr.inference.backend import Runner
from vsr.media.colour import Colour


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The rungs of a relay, as its settings name them."""

    names: tuple[str, ...]
    """Best first; `find_models` adds bicubic."""
    scale: int | None = None
    precision: str = "auto"
    backend: str = "auto"
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What every rung has in common: the picture that goes in, and its colour."""

    size: tuple[int, int]
    colour: Colour


def find_models(wanted: Wanted, runner: Runner) -> list[models.Model]:
    """The models of a ladder's rungs, and bicubic behind them.

    Without a scale, the first model's least decides for all. Raises UsageError or ModelError.
    """
    found: list[models.Model] = []
    scale = wanted.scale
    for name in dict.fromkeys([*wanted.names, models.BICUBIC]):
        is_plain = name == models.BICUBIC and wanted.precision == "int8"
        precision = "fp32" if is_plain else wanted.precision
        found.append(models.find(name, scale, runner, precision))
        scale = found[0].scale
    return found


def default_ladder(model: str, scale: int | None) -> list[str]:
    """The model asked for, then every lighter built-in one of its scale, by MultAdds.

    Weights for compressed video stand in for those for clean pictures where both are there.
    """
    entries = models.manifest()
    if model not in entries:
        return [model]
    wanted = f"x{scale or min(models.scales(model))}"
    own = entries[model].get(wanted)
    if own is None:
        raise UsageError(f"model '{model}' has no scale {wanted.removeprefix('x')}")
    lighter = {
        name: entry[wanted]["multadds_720p"]
        for name, entry in entries.items()
        if wanted in entry and entry[wanted]["multadds_720p"] < own["multadds_720p"]
        if f"{name}-stream" not in entries or wanted not in entries[f"{name}-stream"]
    }
    return [model, *sorted(lighter, key=lighter.__getitem__, reverse=True)]
