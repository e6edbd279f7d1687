"""Tells how the frames of a network look, and chooses a network's weights by it."""

from vsr.errors import UsageError
from vsr.inference import models
from vsr.inference.default import DEFAULT
from vsr.inference.models import BICUBIC, LOOKS, network_and_purpose


def look_of(name: str) -> str:
    """Return the look (a key of `LOOKS`) of a built-in model; an unknown one is taken as faithful.

    Models for clean pictures have one too: a manifest's `good_for` names the sharp ones.
    """
    forms = models.manifest().get(name, {}).values()
    is_sharp = any("sharp" in form.get("good_for", "") for form in forms)
    purpose = network_and_purpose(name)[1]
    return "sharp" if is_sharp or purpose == LOOKS["sharp"] else "faithful"


def model_name_for(name: str | None, look: str | None) -> str:
    """Return the model's name for a requested name, look, both or neither.

    A named model that has the look already stays. Otherwise the same network is used with weights
    of that look, those for compressed video first. Without a name, it is the first of `names()`
    with such weights for compressed video. An unknown name is returned: `find` refuses it. Raises
    UsageError for an unknown look, and for a model that has no such weights.
    """
    if look is None:
        return name or DEFAULT
    if look not in LOOKS:
        raise UsageError(f"unknown look '{look}'; known: {', '.join(LOOKS)}")
    if name is not None and name.lower().endswith(".onnx"):
        raise UsageError(f"--look chooses among built-in networks: leave it out with {name}")
    known = models.names()
    for_video = [each for each in known if network_and_purpose(each)[1] == LOOKS[look]]
    if name is None and for_video:
        return for_video[0]
    name = name or DEFAULT
    if name not in known or look_of(name) == look:
        return name
    network = network_and_purpose(name)[0]
    wanted = [f"{network}-{LOOKS[look]}", network]
    found = [each for each in wanted if each in known and look_of(each) == look]
    if not found:
        have = ", ".join(each for each in known if each != BICUBIC and look_of(each) == look)
        raise UsageError(
            f"model '{name}' has no weights with a {look} look: leave out --look, or use one of: "
            f"{have}"
        )
    return found[0]
