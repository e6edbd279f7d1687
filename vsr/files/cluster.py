"""Connects to a Ray cluster and finds the versions, devices and encoders of its nodes."""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import av

from vsr.errors import BackendError, UsageError, VsrError, reason
from vsr.files.worker import ModelRequest, Place, place_of
from vsr.inference.backend import load_backend
from vsr.media.encoder import CODECS
from vsr.media.info import VideoInfo
from vsr.report.report import versions

log = logging.getLogger(__name__)

SAME_VERSIONS: Final = ("vsr", "av", "ffmpeg")
"""Software whose version must be equal on all nodes; otherwise the encoded video would differ."""
_INSPECTION_GPU: Final = 0.01
"""Fraction of a GPU that an inspection task reserves."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of a cluster: one computer."""

    id: str
    host: str
    cpus: int
    gpus: int


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """Versions, devices and encoders of a computer."""

    versions: tuple[tuple[str, str], ...]
    """(name, version) of the software in `SAME_VERSIONS`."""
    devices: tuple[str, ...]
    encoders: tuple[str, ...]
    """FFmpeg's names of the default encoders that are available."""

    def __str__(self) -> str:
        versions_ = ", ".join(f"{name} {version}" for name, version in self.versions)
        encoders = ", ".join(self.encoders) or "no encoder"
        return f"{versions_}; {', '.join(self.devices) or 'no device'}; {encoders}"


def equipment() -> Equipment:
    """Return the equipment of this computer."""
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
        versions=tuple((name, found[name]) for name in SAME_VERSIONS),
        devices=tuple(dict.fromkeys(devices)), encoders=tuple(encoders),
    )  # fmt: skip


def _place_or_error(request: ModelRequest, info: VideoInfo) -> Place | VsrError:
    try:
        return place_of(request, info, None)
    except VsrError as exc:
        return exc


class Cluster:
    """Connection of this process to a Ray cluster."""

    def __init__(self, address: str) -> None:
        """Connect to `auto` (the cluster of this computer), `HOST:PORT` or `ray://HOST:PORT`.

        Raises UsageError if Ray is not installed, BackendError if the cluster does not answer.
        """
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no reports to Ray's developers
        try:
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
        except ImportError as exc:
            raise UsageError("--cluster requires Ray: pip install 'vsr-stream[ray]'") from exc
        self.ray: Any = ray
        self._affinity = NodeAffinitySchedulingStrategy
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except Exception as exc:  # ConnectionError, RuntimeError, errors of gRPC
            raise BackendError(
                f"cannot connect to a Ray cluster at {address}: {reason(exc)}; start one with "
                "'ray start --head'"
            ) from exc

    def close(self) -> None:
        """Disconnect from the cluster, which keeps running."""
        self.ray.shutdown()

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive and have CPUs or GPUs."""
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

    def pinned_to(self, node: Node, function: Any, **options: Any) -> Any:
        """Return a function or class as a Ray task or actor for that node."""
        strategy = self._affinity(node.id, soft=False)
        return self.ray.remote(function).options(scheduling_strategy=strategy, **options)

    def call_on_nodes(self, function: Any, *arguments: Any) -> dict[str, Any]:
        """Call a function on each node; return the results by host. Raises BackendError."""
        nodes = self.nodes()
        if not nodes:
            raise BackendError("no node of the Ray cluster has a CPU or a GPU")
        answers = [self._call_on(node, function, arguments) for node in nodes]
        found = {}
        for node, answer in zip(nodes, answers, strict=True):
            try:
                found[f"{node.host} ({node.id[:6]})"] = self.ray.get(answer)
            except Exception as exc:  # such as a node without vsr
                if node in self.nodes():
                    message = str(exc).strip().splitlines()[-1]
                    raise BackendError(f"{node.host} cannot run vsr: {message}") from exc
                log.warning("node %s has left the Ray cluster", node.host)
        if not found:
            raise BackendError("all nodes have left the Ray cluster")
        return found

    def _call_on(self, node: Node, function: Any, arguments: tuple[Any, ...]) -> Any:
        gpus = _INSPECTION_GPU if node.gpus else 0
        task = self.pinned_to(node, function, num_cpus=0, num_gpus=gpus, max_retries=0)
        return task.remote(*arguments)

    def places(self, request: ModelRequest, info: VideoInfo) -> list[Place]:
        """Return the device and model that a worker would use on each node. Raises VsrError."""
        found = self.call_on_nodes(_place_or_error, request, info)
        for host, place in found.items():
            if isinstance(place, VsrError):
                raise type(place)(f"{host}: {place}")
        return list(found.values())
