"""Whole classifiers, put together at random from trunks, flattenings, layers and ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import onnx
import onnx_ir as ir
from hypothesis import strategies as st

from tests.nets import Net, Tensor
from tests.properties import ends, flattens, layers, trunks
from tests.properties.spellings import Part

Named = TypeVar("Named")

OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22)
IMAGES = {1: (2, 13), 2: (2, 8, 9), 3: (1, 6, 5, 6)}


@dataclass(frozen=True)
class Made:
    """A model, what it was made of, and how it is held to the original."""

    model: onnx.ModelProto
    parts: tuple[str, ...]
    batched: bool
    free_batch: bool

    @property
    def axis(self) -> int | None:
        return 0 if self.batched else None


@dataclass
class Parts:
    """Draws parts by name and remembers them."""

    draw: st.DrawFn
    names: list[str]

    def one(self, options: Mapping[str, Named], *, chance: int = 100) -> Named | None:
        """One of the options; none of them in (100 - chance) % of the cases."""
        if chance < 100 and self.draw(st.integers(0, 99)) >= chance:
            self.names.append("-")
            return None
        name = self.draw(st.sampled_from(sorted(options)))
        self.names.append(name)
        return options[name]

    def any(self, options: Mapping[str, Named]) -> Named:
        found = self.one(options)
        assert found is not None
        return found


def head(net: Net, y: Tensor, parts: Parts, *, joins: bool = True) -> Tensor:
    """Flattening, join, scale, and up to three layers with something behind each."""
    flat = parts.any(flattens.FLATTENS)(net, y)
    if joins and (join := parts.one(flattens.JOINS, chance=40)):
        flat = join(net, y, flat)
    if scale := parts.one(flattens.SCALES, chance=30):
        flat = scale(net, flat)
    return stack(net, flat, parts)


def stack(net: Net, flat: Tensor, parts: Parts) -> Tensor:
    """One to three layers, and what is behind each."""
    y = flat
    for _ in range(parts.draw(st.integers(1, 3))):
        y = parts.any(layers.LAYERS)(net, y, parts.draw(st.integers(1, 5)))
        if between := parts.one(layers.BETWEEN, chance=80):
            y = between(net, y)
    return y


@st.composite
def classifiers(
    draw: st.DrawFn,
    trunk: Mapping[str, Part] = trunks.EXACT,
    opsets: tuple[int, ...] = OPSETS,
    dtype: ir.DataType = ir.DataType.FLOAT,
    ranks: tuple[int, ...] = (2,),
    behind: Mapping[str, Part] | None = None,
    last_axis: bool = False,
) -> Made:
    """A classifier of images of one of the ranks.

    Args:
        draw: Draws what it is made of.
        trunk: What may make the feature map.
        opsets: What it may be written in.
        dtype: What it computes in.
        ranks: Numbers of spatial axes.
        behind: What may make the features [N, D] of the map, in place of a flattening.
        last_axis: Whether the channels of image and map are their last axis.
    """
    image = IMAGES[draw(st.sampled_from(ranks))]
    net = Net(
        opset=draw(st.sampled_from(opsets)),
        image=(*image[1:], image[0]) if last_axis else image,
        seed=draw(st.integers(0, 9)),
        dtype=dtype,
    )
    parts = Parts(draw, [f"opset {net.opset}", str(net.dtype), str(net.image)])
    part = parts.any(trunk)
    y = trunks.channels_last(net, part) if last_axis else part(net, net.x)
    y = (
        stack(net, parts.any(behind)(net, y), parts)
        if behind
        else head(net, y, parts, joins=not last_axis)
    )
    free = True
    # A vector beside a single image stays a single vector: no batch of images goes with it.
    single = "side_vector" not in parts.names
    end = parts.any({k: end for k, end in ends.ENDS.items() if single or k != "without_batch"})
    if end is ends.without_batch:
        net = _with_batch_1(net)
        free = False
    finished = end(net, y)
    model = net.model(*finished.tensors, dtype=finished.dtype)
    return Made(model, tuple(parts.names), finished.batched, free)


def _with_batch_1(net: Net) -> Net:
    net.batch = 1
    for value in net.inputs:
        assert value.shape is not None
        value.shape = ir.Shape([1, *list(value.shape)[1:]])
    return net
