"""What becomes of the scores: the last operators of a head, with outputs of several ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from tests.nets import Net, Tensor, i64
from tests.properties.spellings import (
    concat,
    over,
    over_features,
    reshape,
    same,
    scalar,
    squeeze,
    unsqueeze,
)


@dataclass(frozen=True)
class End:
    """The outputs of a model.

    Attributes:
        tensors: The outputs.
        dtype: Their type, where it is not that of the images.
        batched: Whether the outputs have a batch axis.
    """

    tensors: tuple[Tensor, ...]
    dtype: ir.DataType | None = None
    batched: bool = True


def scores(net: Net, y: Tensor) -> End:
    return End((y,))


def softmax(net: Net, y: Tensor) -> End:
    return End((same(net, "Softmax", y, axis=1),))


def log_softmax(net: Net, y: Tensor) -> End:
    return End((same(net, "LogSoftmax", y, axis=1),))


def softmax_by_hand(net: Net, y: Tensor) -> End:
    shifted = same(net, "Sub", y, over_features(net, "ReduceMax", y))
    powers = same(net, "Exp", shifted)
    return End((same(net, "Div", powers, over_features(net, "ReduceSum", powers)),))


def two_outputs(net: Net, y: Tensor) -> End:
    return End((y, same(net, "Sigmoid", net.fc(y, 2))))


def unsqueezed(net: Net, y: Tensor) -> End:
    return End((unsqueeze(net, y, [2], (*y.shape, 1)),))


def groups(net: Net, y: Tensor) -> End:
    return End((reshape(net, net.fc(y, 6), 2, 3),))


def group_softmax(net: Net, y: Tensor) -> End:
    pairs = reshape(net, net.fc(y, 6), 2, 3)
    return End((same(net, "Softmax", pairs, axis=2),))


def mean_of_groups(net: Net, y: Tensor) -> End:
    pairs = reshape(net, net.fc(y, 6), 3, 2)
    return End((over(net, "ReduceMean", pairs, [1], (2,), 0),))


def best_class(net: Net, y: Tensor) -> End:
    best = net.op("ArgMax", net.fc(y, 5), axis=1, keepdims=1, shape=(1,))
    return End((best,), ir.DataType.INT64)


def best_number(net: Net, y: Tensor) -> End:
    return End((net.op("ArgMax", net.fc(y, 5), axis=1, keepdims=0),), ir.DataType.INT64)


def best_three(net: Net, y: Tensor) -> End:
    if net.opset < 10:
        best = net.ops("TopK", net.fc(y, 5), outputs=2, axis=1, k=3, shape=(3,))
    else:
        best = net.ops("TopK", net.fc(y, 5), i64(3), outputs=2, axis=1, shape=(3,))
    return End((best[0],))


def one_number(net: Net, y: Tensor) -> End:
    """A model that gives [N]."""
    return End((squeeze(net, net.fc(y, 1), [1], ()),))


def mean_number(net: Net, y: Tensor) -> End:
    return End((over(net, "ReduceMean", y, [1], (), 0),))


def duel(net: Net, y: Tensor) -> End:
    """The value of a state and the advantage of each action, as a deep Q-network joins them."""
    advantage = net.fc(y, 4)
    centre = over_features(net, "ReduceMean", advantage)
    return End((same(net, "Add", net.fc(y, 1), same(net, "Sub", advantage, centre)),))


def both_classes(net: Net, y: Tensor) -> End:
    """A probability and what is missing from one."""
    p = same(net, "Sigmoid", net.fc(y, 1))
    return End((concat(net, same(net, "Sub", scalar(net, 1), p), p),))


def without_batch(net: Net, y: Tensor) -> End:
    """A model that gives [K]: its export dropped the batch axis of size 1."""
    return End((squeeze(net, y, [0], ()),), batched=False)


ENDS: dict[str, Callable[[Net, Tensor], End]] = {
    end.__name__: end
    for end in (
        *(scores, softmax, log_softmax, softmax_by_hand, two_outputs, unsqueezed),
        *(groups, group_softmax, mean_of_groups, best_class, best_number, best_three),
        *(one_number, mean_number, duel, both_classes, without_batch),
    )
}
