"""Mutates ONNX networks: the bytes of the file, or the contents of a valid file."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto, helper

from tests.fuzz.mutate import mutated
from vsr.network.graph import bicubic_network

_OPS: Final = tuple(
    """Relu Conv Resize DepthToSpace Concat Add Mul Reshape Expand Tile Pad Loop If Gather Transpose
    ConvTranspose QuantizeLinear NonZero Where Unknown Range Softmax MatMul Slice Split Shape
    """.split()  # noqa: SIM905
)
_NUMBERS: Final = (0, -1, 1, 2, 3, 7, 255, 65536, 2**20, 2**31 - 1, 2**31, 2**62, -(2**63))

Change = Callable[[random.Random, onnx.ModelProto], None]


def _node(dice: random.Random, network: onnx.ModelProto) -> onnx.NodeProto:
    return dice.choice(network.graph.node)


def change_dimension(dice: random.Random, network: onnx.ModelProto) -> None:
    """Change a dimension of an input or output, for example to 0 or more than memory allows."""
    tensor = dice.choice([*network.graph.input, *network.graph.output])
    shape = tensor.type.tensor_type.shape
    if shape.dim:
        dice.choice(shape.dim).dim_value = dice.choice(_NUMBERS)


def change_type(dice: random.Random, network: onnx.ModelProto) -> None:
    """Change the element type of an input, an output or a weight."""
    kind = dice.randrange(0, 24)
    tensor = dice.choice([*network.graph.input, *network.graph.output])
    if dice.random() < 0.5 and network.graph.initializer:
        dice.choice(network.graph.initializer).data_type = kind
    else:
        tensor.type.tensor_type.elem_type = kind


def change_weight(dice: random.Random, network: onnx.ModelProto) -> None:
    """Change a weight's dimensions, its values, or its location to an external file."""
    if not network.graph.initializer:
        return
    weight = dice.choice(network.graph.initializer)
    if dice.random() < 0.5 and weight.dims:
        weight.dims[dice.randrange(len(weight.dims))] = dice.choice(_NUMBERS)
    elif dice.random() < 0.3:
        weight.data_location = TensorProto.EXTERNAL
        place = dice.choice(("../../etc/passwd", "/dev/zero", "none.bin", "", "."))
        weight.external_data.add(key="location", value=place)
        weight.external_data.add(key="length", value=str(dice.choice(_NUMBERS)))
    elif weight.raw_data:
        weight.raw_data = mutated(weight.raw_data, dice.randrange(2**32), 0)


def change_attribute(dice: random.Random, network: onnx.ModelProto) -> None:
    """Change the values of a node's attribute, or remove the attribute."""
    node = _node(dice, network)
    if not node.attribute:
        return
    attribute = dice.choice(node.attribute)
    if dice.random() < 0.2:
        node.attribute.remove(attribute)
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = dice.choice(_NUMBERS)
    elif attribute.type == onnx.AttributeProto.INTS and attribute.ints:
        attribute.ints[dice.randrange(len(attribute.ints))] = dice.choice(_NUMBERS)
    elif attribute.type == onnx.AttributeProto.STRING:
        attribute.s = dice.choice((b"", b"\xff\xfe", b"linear", b"SAME_UPPER", b"x" * 10000))
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = dice.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))


def change_operation(dice: random.Random, network: onnx.ModelProto) -> None:
    """Change the operation of a node."""
    _node(dice, network).op_type = dice.choice(_OPS)


def rewire(dice: random.Random, network: onnx.ModelProto) -> None:
    """Connect a node's input to another value: an unknown one, none, or one that makes a cycle."""
    node = _node(dice, network)
    names = [name for each in network.graph.node for name in (*each.input, *each.output)]
    if node.input:
        node.input[dice.randrange(len(node.input))] = dice.choice((*names, "", "nothing"))


def drop_node(dice: random.Random, network: onnx.ModelProto) -> None:
    """Remove a node."""
    network.graph.node.remove(_node(dice, network))


def enlarge_result(dice: random.Random, network: onnx.ModelProto) -> None:
    """Tile the result to a size that exceeds the memory of most computers."""
    count = dice.choice((2**10, 2**13, 2**16, 2**20))
    end, last = network.graph.output[0].name, network.graph.node[-1]
    last.output[0] = "before"
    counts = helper.make_tensor("counts", TensorProto.INT64, [4], [1, 1, count, count])
    network.graph.initializer.append(counts)
    network.graph.node.append(helper.make_node("Tile", ["before", "counts"], [end]))


def nest(dice: random.Random, network: onnx.ModelProto) -> None:
    """Add many nodes in a row, or set another opset, which may not exist."""
    if dice.random() < 0.3:
        network.opset_import[0].version = dice.choice((0, 1, 7, 11, 99, 2**40))
        return
    end, last = network.graph.output[0].name, network.graph.node[-1]
    count = dice.choice((10, 300))
    last.output[0] = "row0"
    for k in range(count):
        name = end if k == count - 1 else f"row{k + 1}"
        network.graph.node.append(helper.make_node("Relu", [f"row{k}"], [name]))


CHANGES: Final[tuple[Change, ...]] = (
    change_dimension, change_type, change_weight, change_attribute, change_operation, rewire,
    drop_node, enlarge_result, nest,
)  # fmt: skip


def hostile(data: bytes, seed: int, index: int) -> bytes:
    """Return a mutated network: for every third index by its bytes, otherwise by its contents."""
    if index % 3 == 0:
        return mutated(data, seed, index)
    dice = random.Random(f"{seed}/{index}")
    network = onnx.load_model_from_string(data)
    for _ in range(dice.choice((1, 1, 2, 3))):
        if network.graph.node:
            dice.choice(CHANGES)(dice, network)
    try:
        return network.SerializeToString()
    except ValueError:
        return mutated(data, seed, index)


def make_networks(folder: Path, engines: Path) -> list[Path]:
    """Write the networks to mutate: bicubic interpolation and two of this project."""
    made = [folder / "bicubic.onnx"]
    network = bicubic_network(2)
    onnx.save(network, str(made[0]))
    for name in ("c-dcscn/x2.onnx", "c-dcscn/x2.int8.onnx"):
        path = folder / name.replace("/", "-")
        path.write_bytes((engines / name).read_bytes())
        made.append(path)
    return made
