"""Loads a network's ONNX, and normalises it: one input, no functions, at least our opset."""

import hashlib
from pathlib import Path
from typing import Final

import onnx
from onnx import inliner, version_converter
from onnx.external_data_helper import uses_external_data

from vsr.errors import ModelError, reason

OPSET: Final = 17
"""ONNX opset of the nodes of `vsr.network.graph`; a network may have a newer one."""


def parse_network(data: bytes, folder: Path) -> tuple[onnx.ModelProto, str]:
    """Parse and check a network; external weight files are read from `folder`.

    Also returns the SHA-256 of the data and of those weights. Raises the errors of ONNX.
    """
    digest = hashlib.sha256(data)
    network = onnx.load_model_from_string(data)
    outside = [w for w in network.graph.initializer if uses_external_data(w)]
    onnx.load_external_data_for_model(network, str(folder))
    onnx.checker.check_model(network)
    for weight in outside:
        digest.update(weight.raw_data)
    return network, digest.hexdigest()


def _check_no_subgraphs(node: onnx.NodeProto) -> None:
    kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    if any(attribute.type in kinds for attribute in node.attribute):
        raise ModelError(
            f"the network contains control flow ({node.op_type}), which is not supported"
        )


def sole_input(network: onnx.ModelProto) -> onnx.ValueInfoProto:
    """Return the network's only input, ignoring weights that old exporters list as inputs."""
    weights = {constant.name for constant in network.graph.initializer}
    inputs = [tensor for tensor in network.graph.input if tensor.name not in weights]
    if len(inputs) != 1 or len(network.graph.output) != 1:
        found = f"{len(inputs)} and {len(network.graph.output)}"
        raise ModelError(f"the network must have one input and one output, not {found}")
    return inputs[0]


def flatten(network: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network without local functions, at an opset that the wrapper can use.

    Local functions are expanded, an older opset is raised to `OPSET`. Raises ModelError for
    control flow.
    """
    if network.functions:
        network = inliner.inline_local_functions(network)
    for node in network.graph.node:
        _check_no_subgraphs(node)
    return _raise_opset(network)


def _raise_opset(network: onnx.ModelProto) -> onnx.ModelProto:
    version = max(
        (o.version for o in network.opset_import if o.domain in ("", "ai.onnx")), default=1
    )
    if version >= OPSET:
        return network
    try:
        return version_converter.convert_version(network, OPSET)
    except Exception as exc:  # the converter raises bare RuntimeError and C++ types
        raise ModelError(
            f"cannot convert the network to ONNX opset {OPSET}: {reason(exc)}"
        ) from exc
