"""Selects the networks of a ladder: the one asked for, lighter ones, then bicubic."""

from vsr.errors import UsageError
from vsr.inference import models
from vsr.inference.backend import Runner
from vsr.live.settings import RelaySettings


def find_models(settings: RelaySettings, runner: Runner) -> list[models.Model]:
    """Return the models of a ladder's rungs, best first, bicubic last.

    Without a scale, the first model's least decides for all. Raises UsageError or ModelError.
    """
    found: list[models.Model] = []
    scale = settings.scale
    for name in dict.fromkeys([*rung_names(settings), models.BICUBIC]):
        is_plain = name == models.BICUBIC and settings.precision == "int8"
        precision = "fp32" if is_plain else settings.precision
        found.append(models.find(name, scale, runner, precision))
        scale = found[0].scale
    return found


def rung_names(settings: RelaySettings) -> tuple[str, ...]:
    """Return the names of the networks, best first; bicubic need not be among them."""
    lighter = settings.ladder or default_ladder(settings.model, settings.scale)[1:]
    return (settings.model, *lighter)


def default_ladder(model: str, scale: int | None) -> list[str]:
    """Return the model asked for, then every lighter built-in one of its scale, by MultAdds.

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
