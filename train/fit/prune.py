"""Prune filters of DCSCN: select the filters to keep, and convert to full width and back.

A filter is *dead* if its weights and bias are zero or no layer has non-zero weights for it; it does
not affect the output. A narrow network therefore equals one of the paper's width whose other
filters are dead. The latter is its training form, the narrow one, which is faster, its deploy form.

The filters to keep have the largest product of the norm of their weights and the norm of the
weights that read them. PReLU commutes with positive factors, so a filter may be scaled up and its
readers down without changing results. The product is invariant to that, unlike either norm alone
(Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, use the first). Training continues
after pruning.
"""

from dataclasses import replace

import torch
from torch import Tensor

from train.nets import Dcscn, Net

Weights = dict[str, Tensor]
_READERS = ("a1", "b1")  # layers that read all feature layers' outputs, concatenated


def widths(weights: Weights) -> tuple[int, ...]:
    """Return the number of filters per feature layer of DCSCN weights in training form."""
    found: list[int] = []
    while (weight := weights.get(f"features.{len(found)}.conv.weight")) is not None:
        found.append(len(weight))
    return tuple(found)


def fits_into(few: tuple[int, ...], many: tuple[int, ...]) -> bool:
    """Return whether both have equally many layers, and `few` in no layer more filters."""
    return len(few) == len(many) and all(n <= m for n, m in zip(few, many, strict=True))


def narrow_weights(weights: Weights, features: tuple[int, ...]) -> Weights:
    """Return weights of a DCSCN with `features` filters: the most useful ones, in old order.

    Raises ValueError if the number of layers differs or a layer has too few filters.
    """
    wide = widths(weights)
    if not fits_into(features, wide):
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


def widen_weights(
    weights: Weights, features: tuple[int, ...], start: Weights | None = None
) -> Weights:
    """Return weights of the same function with `features` filters per layer; new ones are dead.

    New filters are all zero, which training cannot change. With `start`, weights of the new widths,
    they take their own weights from it, so that training can connect the other layers to them.
    Raises ValueError if the number of layers differs or `features` has fewer filters.
    """
    narrow = widths(weights)
    if not fits_into(narrow, features):
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


def without_dead_filters(net: Net) -> Net:
    """Return the network as computed in deploy form; only DCSCN omits parts (dead filters)."""
    return dcscn_without_dead_filters(net) if isinstance(net, Dcscn) else net


def dcscn_without_dead_filters(net: Dcscn) -> Dcscn:
    """Return an equal network without dead filters; each layer keeps at least one filter."""
    weights = net.state_dict()
    useful = [usefulness(weights, i) for i in range(len(net.units))]
    features = tuple(max(1, int(u.count_nonzero())) for u in useful)
    if features == net.config.features:
        return net
    narrow = Dcscn(replace(net.config, features=features))
    narrow.load_state_dict(narrow_weights(weights, features))
    return narrow.train(net.training)


def _padded(values: Tensor, *sizes: int) -> Tensor:
    """Zero-pad the ends of the first dimensions to these sizes."""
    found = values.new_zeros(*sizes, *values.shape[len(sizes) :])
    found[tuple(slice(n) for n in values.shape[: len(sizes)])] = values
    return found


def _most_useful(weights: Weights, layer: int, count: int) -> Tensor:
    """Return the indices of a feature layer's `count` most useful filters, in ascending order."""
    return usefulness(weights, layer).topk(count).indices.sort().values


def usefulness(weights: Weights, layer: int) -> Tensor:
    """Return the usefulness of each filter of a layer, [filters]; it is zero for dead filters only.

    It is the norm of the filter's weights and bias times the norm of the weights that read it.
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
