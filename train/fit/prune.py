"""DCSCN with fewer filters: which of a trained network's to keep, and the way back to full width.

A filter that nothing reads, or that is zero with its bias, changes nothing: it is *dead*. A narrow
network therefore equals one of the paper's width whose other filters are dead: that is its training
form, and the narrow one, which costs less, its deploy form.

The filters to keep are those of the greatest norm of own weights times norm of the weights that
read them. PReLU lets a factor pass, so a filter may be scaled up and its readers down without a
change of results: the product does not see that, either norm alone does (as in Li et al., "Pruning
Filters for Efficient ConvNets", ICLR 2017, who take the first). Training goes on afterwards.
"""

from dataclasses import replace

import torch
from torch import Tensor

from train.nets import Dcscn, Net

Weights = dict[str, Tensor]
_READERS = ("a1", "b1")  # of all feature layers' outputs, side by side


def widths(weights: Weights) -> tuple[int, ...]:
    """Filters of each feature layer of DCSCN's weights in training form."""
    found: list[int] = []
    while (weight := weights.get(f"features.{len(found)}.conv.weight")) is not None:
        found.append(len(weight))
    return tuple(found)


def fits(few: tuple[int, ...], many: tuple[int, ...]) -> bool:
    """Whether there are as many layers, and none of more filters."""
    return len(few) == len(many) and all(n <= m for n, m in zip(few, many, strict=True))


def narrowed(weights: Weights, features: tuple[int, ...]) -> Weights:
    """The weights of a DCSCN with `features` filters: the most useful ones, in their old order.

    Raises ValueError where there are not as many layers, or not as many filters.
    """
    wide = widths(weights)
    if not fits(features, wide):
        raise ValueError(f"{list(features)} filters cannot be chosen from {list(wide)}")
    kept = [_most_useful(weights, i, n) for i, n in enumerate(features)]
    found = dict(weights)
    for i, filters in enumerate(kept):
        for part in ("conv.weight", "conv.bias", "act.weight"):
            found[f"features.{i}.{part}"] = weights[f"features.{i}.{part}"][filters]
        if i:
            name = f"features.{i}.conv.weight"
            found[name] = found[name][:, kept[i - 1]]
    starts = [sum(wide[:i]) for i in range(len(wide))]
    columns = torch.cat([filters + start for filters, start in zip(kept, starts, strict=True)])
    return found | {f"{n}.conv.weight": weights[f"{n}.conv.weight"][:, columns] for n in _READERS}


def widened(weights: Weights, features: tuple[int, ...], start: Weights | None = None) -> Weights:
    """The same function of the picture with `features` filters a layer; the new ones are dead.

    They are all zero, which training cannot change; or else they take their own weights from
    `start`, of the new widths, so that training can teach the others to read them.
    Raises ValueError where there are not as many layers, or fewer filters.
    """
    narrow = widths(weights)
    if not fits(narrow, features):
        raise ValueError(f"{list(narrow)} filters do not fit into {list(features)}")
    found = dict(weights)
    for i, n in enumerate(features):
        unit, old = f"features.{i}", narrow[i]
        depth = features[i - 1] if i else weights[f"{unit}.conv.weight"].shape[1]
        sizes = {"conv.weight": (n, depth), "conv.bias": (n,), "act.weight": (n,)}
        for name, size in ((f"{unit}.{part}", size) for part, size in sizes.items()):
            found[name] = _padded(weights[name], *size)
            if start is not None:
                found[name][old:] = start[name][old:]
    for name in _READERS:
        reader = weights[f"{name}.conv.weight"]
        parts = zip(torch.split(reader, list(narrow), 1), features, strict=True)
        found[f"{name}.conv.weight"] = torch.cat([_padded(p, len(p), n) for p, n in parts], 1)
    return found


def living(net: Net) -> Net:
    """What of a network is computed when it is deployed; only DCSCN leaves anything out."""
    return without_dead(net) if isinstance(net, Dcscn) else net


def without_dead(net: Dcscn) -> Dcscn:
    """The same function of the picture, computed by the living filters alone; at least one each."""
    weights = net.state_dict()
    useful = [usefulness(weights, i) for i in range(len(net.units))]
    features = tuple(max(1, int(u.count_nonzero())) for u in useful)
    if features == net.config.features:
        return net
    narrow = Dcscn(replace(net.config, features=features))
    narrow.load_state_dict(narrowed(weights, features))
    return narrow.train(net.training)


def _padded(values: Tensor, *sizes: int) -> Tensor:
    """With zeros behind, up to these sizes of the first dimensions."""
    found = values.new_zeros(*sizes, *values.shape[len(sizes) :])
    found[tuple(slice(n) for n in values.shape[: len(sizes)])] = values
    return found


def _most_useful(weights: Weights, layer: int, count: int) -> Tensor:
    """Indices of a feature layer's `count` most useful filters, rising."""
    return usefulness(weights, layer).topk(count).indices.sort().values


def usefulness(weights: Weights, layer: int) -> Tensor:
    """[filters] of a feature layer: the norm of its own weights times that of its readers'.

    It is zero for a dead filter and for no other, as long as the bias counts as a weight.
    """
    wide = widths(weights)
    unit = f"features.{layer}.conv"
    own = torch.cat((weights[f"{unit}.weight"].flatten(1), weights[f"{unit}.bias"][:, None]), 1)
    start, n = sum(wide[:layer]), wide[layer]
    readers = [weights[f"{name}.conv.weight"][:, start : start + n] for name in _READERS]
    if layer + 1 < len(wide):
        readers.append(weights[f"features.{layer + 1}.conv.weight"])
    read = torch.cat([reader.transpose(0, 1).flatten(1) for reader in readers], 1)
    return own.norm(dim=1) * read.norm(dim=1)
