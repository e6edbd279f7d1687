"""Parse model names: `dcscn-stream` is network `dcscn` with weights for the purpose `stream`."""

from typing import Any, Final

from train.errors import TrainError

PURPOSES: Final = {
    "stream": "For compressed video",
    "sharp": "For compressed video that should look sharp",
}
"""Suffixes of model names for a purpose, and their text on the model card."""

ADVERSARIAL_NETWORKS: Final = frozenset({"pcarn", "pcarn-m"})
"""Names of networks after adversarial training; before it their names end with `-l1`."""


def network_and_purpose(model: str) -> tuple[str, str]:
    """Split `dcscn-stream` into ("dcscn", "stream"); the purpose is "" for clean pictures."""
    network, _, purpose = model.rpartition("-")
    return (network, purpose) if purpose in PURPOSES else (model, "")


def check_name(model: str, training: list[dict[str, Any]]) -> None:
    """Raise TrainError if name and training differ in whether there was an adversarial stage."""
    if any("imported" in stage for stage in training):
        return
    base = model.removesuffix("-l1")
    losses = {kind for stage in training for _, kind in stage["recipe"].get("loss", ())}
    adversarial = bool(losses & {"gan", "sharp"})
    if model in ADVERSARIAL_NETWORKS and not adversarial:
        raise TrainError(
            f"these weights had no adversarial training, which the name {model} means: "
            f"use --model {model}-l1"
        )
    if base != model and base in ADVERSARIAL_NETWORKS and adversarial:
        raise TrainError(
            f"these weights had an adversarial training, which the name {model} excludes: "
            f"use --model {base}"
        )
