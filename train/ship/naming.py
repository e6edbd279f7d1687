"""Names of what ships: `dcscn-stream` is network `dcscn` with weights of another purpose."""

from typing import Final

PURPOSES: Final = {
    "stream": "For compressed video",
    "sharp": "For compressed video that should look sharp",
}
"""What follows a network's name, and what it says on the model card."""

ADVERSARIAL: Final = frozenset({"pcarn", "pcarn-m"})
"""Networks that are named so after a training for looks; before it they are called `-l1`."""


def network_and_purpose(model: str) -> tuple[str, str]:
    """("dcscn", "stream") of `dcscn-stream`; the purpose is empty for clean pictures."""
    network, _, purpose = model.rpartition("-")
    return (network, purpose) if purpose in PURPOSES else (model, "")
