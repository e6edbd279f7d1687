"""Connects to a Ray cluster, and looks at what its computers have."""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import av

from vsr.errors import BackendError, UsageError, VsrError, reason
from vsr.files.worker import Place, Wanted, place_of
from vsr.inference.backend import load_backend
from vsr.media.encoder import CODECS
from vsr.media.info import VideoInfo
from vsr.report.report import versions

log = logging.getLogger(__name__)

SAME: Final = ("vsr", "av", "ffmpeg")
"""What must have one version on all computers, or what they encode would differ."""
_LEAST_GPU: Final = 0.01
"""Part of a GPU that a look at it takes."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A computer of a cluster."""

    id: str
    host: str
    cpus: int
    gpus: int


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """What a computer has to work with."""

    versions: tuple[tuple[str, str], ...]
    """Of what must be the same everywhere."""
    devices: tuple[str, ...]
    encoders: tuple[str, ...]
    """FFmpeg's names of those that are chosen by default, and are there."""

    def __str__(self) -> str:
        versions_ = ", ".join(f"{name} {version}" for name, version in self.versions)
        encoders = ", ".join(self.encoders) or "no encoder"
        return f"{versions_}; {', '.join(self.devices) or 'no device'}; {encoders}"


def equipment() -> Equipment:
    """Look at this computer."""
    devices, encoders = [], []
    for name, device in (("openvino", "CPU"), ("auto", None)):
        with suppress(VsrError):
            backend = load_backend(name, device)
            devices.append(f"{backend.name} on {backend.device}")
    for name in CODECS.values():
        with suppress(ValueError):
            encoders.append(av.Codec(name, "w").name)
    found = versions()
    return Equipment(
        versions=tuple((name, found[name]) for name in SAME),
        devices=tuple(dict.fromkeys(devices)), encoders=tuple(encoders),
    )  # fmt: skip


def _look(wanted: Wanted, info: VideoInfo) -> Place | VsrError:
    try:
        return place_of(wanted, info, None)
    except VsrError as exc:
        return exc


class Cluster:
    """A Ray cluster that this process is connected to."""

    def __init__(self, address: str) -> None:
        """Connect to `auto` (the one of this computer), `HOST:PORT` or `ray://HOST:PORT`.

        Raises UsageError without Ray, BackendError where nothing answers.
        """
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would report to its makers
        try:
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
        except ImportError as exc:
            raise UsageError("--cluster needs Ray: pip install 'vsr-stream[ray]'") from exc
        self.ray: Any = ray
        self._affinity = NodeAffinitySchedulingStrategy
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except Exception as exc:  # ConnectionError, RuntimeError, gRPC's own ones
            raise BackendError(
                f"cannot reach a Ray cluster at {address}: {reason(exc)}; start one with "
                "'ray start --head'"
            ) from exc

    def close(self) -> None:
        """Leave the cluster, which goes on."""
        self.ray.shutdown()

    def nodes(self) -> list[Node]:
        """The computers that are there and compute."""
        found = [
            Node(
                id=node["NodeID"], host=node["NodeManagerHostname"],
                cpus=int(node["Resources"].get("CPU", 0)),
                gpus=int(node["Resources"].get("GPU", 0)),
            )
            for node in self.ray.nodes()
            if node["Alive"]
        ]  # fmt: skip
        return [node for node in found if node.cpus or node.gpus]

    def on(self, node: Node, what: Any, **options: Any) -> Any:
        """A function or class as Ray runs it on that computer."""
        strategy = self._affinity(node.id, soft=False)
        return self.ray.remote(what).options(scheduling_strategy=strategy, **options)

    def ask(self, what: Any, *arguments: Any) -> dict[str, Any]:
        """What a function says on each computer, by its host."""
        nodes = self.nodes()
        if not nodes:
            raise BackendError("no computer of the Ray cluster has a CPU or a GPU to work with")
        answers = [self._asked(node, what, arguments) for node in nodes]
        found = {}
        for node, answer in zip(nodes, answers, strict=True):
            try:
                found[f"{node.host} ({node.id[:6]})"] = self.ray.get(answer)
            except Exception as exc:  # such as a computer without vsr
                if node in self.nodes():
                    told = str(exc).strip().splitlines()[-1]
                    raise BackendError(f"{node.host} cannot run vsr: {told}") from exc
                log.warning("%s has left the cluster", node.host)
        if not found:
            raise BackendError("all computers have left the Ray cluster")
        return found

    def _asked(self, node: Node, what: Any, arguments: tuple[Any, ...]) -> Any:
        gpus = _LEAST_GPU if node.gpus else 0
        task = self.on(node, what, num_cpus=0, num_gpus=gpus, max_retries=0)
        return task.remote(*arguments)

    def places(self, wanted: Wanted, info: VideoInfo) -> list[Place]:
        """What the workers would use. Raises VsrError."""
        found = self.ask(_look, wanted, info)
        for host, place in found.items():
            if isinstance(place, VsrError):
                raise type(place)(f"{host}: {place}")
        return list(found.values())
