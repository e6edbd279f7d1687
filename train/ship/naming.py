"""Parse model names: `dcscn-stream` is network `dcscn` with weights for the purpose `stream`."""

from typing import Final

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
