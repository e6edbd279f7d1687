"""Selects the networks of a ladder: the configured one, lighter ones, then bicubic."""

from collections.abc import Collection

from vsr.errors import UsageError
from vsr.inference import models
from vsr.inference.backend import Runner
from vsr.inference.default import DEFAULT, default_scale
from vsr.inference.look import model_name_for
from vsr.live.settings import RelaySettings
from vsr.plan.choice import candidates, faithful


def find_models(settings: RelaySettings, runner: Runner) -> list[models.Model]:
    """Return the models of a ladder's rungs, best first, bicubic last.

    Without a scale, all use the default scale of the first model. Raises UsageError or ModelError.
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
    """Return the names of the networks, best first, possibly without bicubic."""
    first = _first_networks(settings)
    lighter = settings.ladder or default_ladder(first[-1], settings.scale)[1:]
    return (*first, *lighter)


def optional_count(settings: RelaySettings) -> int:
    """Return the number of leading networks that are used only if measured fast enough."""
    return len(_first_networks(settings)) - 1


def _first_networks(settings: RelaySettings) -> list[str]:
    """Return the configured network, or those to consider if none is configured, best first."""
    look = settings.look
    if settings.model is not None or settings.ladder:
        return [model_name_for(settings.model, look)]
    scale = settings.scale or default_scale(models.scales(model_name_for(None, look)))
    found = faithful(scale) if look in (None, "faithful") else candidates(False, scale, look)
    if not found and look is not None:
        raise UsageError(f"no network with a {look} look for compressed video has scale {scale}")
    return [each.name for each in found] or [DEFAULT]


def default_ladder(model: str, scale: int | None) -> list[str]:
    """Return the given model, then every lighter built-in one of its scale, by MultAdds.

    Each network is listed once: with weights of the same purpose as the model's, else `-stream`
    weights, else those for clean video. Raises UsageError if the model lacks the scale.
    """
    entries = models.manifest()
    if model not in entries:
        return [model]
    key = f"x{scale or default_scale(models.scales(model))}"
    own = entries[model].get(key)
    if own is None:
        have = ", ".join(each.removeprefix("x") for each in entries[model])
        raise UsageError(f"model '{model}' has no scale {key.removeprefix('x')}; it has: {have}")
    work = {
        name: entry[key]["multadds_720p"]
        for name, entry in entries.items()
        if key in entry and entry[key]["multadds_720p"] < own["multadds_720p"]
    }
    lighter = [name for name in work if name == _for_ladder(name, model, work)]
    return [model, *sorted(lighter, key=work.__getitem__, reverse=True)]


def _for_ladder(name: str, model: str, known: Collection[str]) -> str:
    """Return the name of a network with the weights to use in the ladder of `model`."""
    network = models.network_and_purpose(name)[0]
    purposes = (models.network_and_purpose(model)[1] or "stream", "stream", "")
    names = [f"{network}-{purpose}" if purpose else network for purpose in purposes]
    return next((candidate for candidate in names if candidate in known), name)
