"""SplitKernels: a kernel too large for an accelerator as a sum of Convs that each fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise, product
from math import prod

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.graphs.names import ORIGIN, NameScope
from onnx_fc2conv.graphs.operators import FC_OPERATORS
from onnx_fc2conv.graphs.shapes import infer_shapes
from onnx_fc2conv.graphs.writer import GraphWriter, Place
from onnx_fc2conv.views.plan import ConstantTensor

__all__ = ["Block", "SplitKernel", "SplitKernels"]

_END = int(np.iinfo(np.int64).max)

Range = tuple[int, int]
"""First, and one past the last."""


@dataclass(frozen=True)
class Block:
    """The part of a kernel [K, C, *S] in one Conv: a range of channels, and a box of positions."""

    channels: Range
    window: tuple[Range, ...]

    def shape(self, outputs: int) -> tuple[int, ...]:
        """Its shape, with this number of outputs."""
        return (outputs, *(end - start for start, end in (self.channels, *self.window)))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Slices that cut the block out of the kernel."""
        return (slice(None), *(slice(*part) for part in (self.channels, *self.window)))


@dataclass(frozen=True, eq=False)
class SplitKernel:
    """A Conv that becomes the sum of several.

    Attributes:
        conv: The Conv.
        kernel: Name of its kernel.
        shape: Shape of its kernel.
        blocks: The parts of the kernel, the largest among them first.
        names: Names of the new kernels.
    """

    conv: ir.Node
    kernel: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class SplitKernels(ir.passes.InPlacePass):
    """Split the kernels that `FcToConv` made until they are no larger than a device takes.

        Y[n, k, p] = b[k] + Σ_(c,s) K[k, c, s] · M[n, c, p·stride + s·dilation]
                   = Conv(M on block 1, K on block 1, b) + Conv(M on block 2, K on block 2) + …

    1. A block of kernel positions r0 … r1 of k reads the map without its first r0·dilation and its
       last (k - r1)·dilation cells, so that all summands have the same size on a map of any size.
    2. A block of channels reads a slice of the map's channels.
    3. Blocks are as few and as equal as the limits allow; positions are split for ``max_kernel``,
       channels for ``max_depth``, and also positions where a single channel is too deep.
    4. The first Conv has the bias. The order of the sum is not the original's: the same numbers
       up to rounding.
    5. A Conv that replaces no layer, or that pads, is left alone.

    Run it last: the summands are no feature maps that `FreeInputSize` would follow.

    Attributes:
        max_kernel: Largest extent of a kernel along any spatial axis. TI's TIDL is validated up to
            7 (edgeai-tidl-tools, supported operators), AMD's DPUs take up to 16 (UG1414).
        max_depth: Largest number of weights that one output channel may have in one Conv,
            C·kh·kw: what the device multiplies and adds for one number. AMD states it so for some
            DPUs (PG389: w·h·d·input_channel <= 32768), and for the others in words of
            channel_parallel channels (UG1414: kw·kh·ceil(C / channel_parallel) <= bank_depth),
            which is C·kh·kw <= channel_parallel·bank_depth where channel_parallel divides C:
            16·2048 = 32768 for DPUCZDX8G.

    Raises:
        ArgumentError: If a limit is less than 1.
    """

    max_kernel: int | None = None
    max_depth: int | None = None

    def __post_init__(self) -> None:
        for option, limit in (("kernel", self.max_kernel), ("depth", self.max_depth)):
            if limit is not None and limit < 1:
                raise ArgumentError(f"--max-{option} {limit}: no kernel is smaller than 1")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Plan, then apply."""
        plan = self.plan(model)
        self.apply(plan, model)
        return ir.passes.PassResult(model, modified=bool(plan))

    def plan(self, model: ir.Model) -> tuple[SplitKernel, ...]:
        """Return the Convs to split; Convs that share a kernel share its parts."""
        if self.max_kernel is None and self.max_depth is None:
            return ()
        names = NameScope.of(model.graph)
        parts: dict[str, tuple[str, ...]] = {}
        plan: list[SplitKernel] = []
        for conv in model.graph:
            kernel = _own_kernel(conv)
            if kernel is None or kernel.name is None or kernel.const_value is None:
                continue
            shape = tuple(kernel.const_value.shape.numpy())
            blocks = self._blocks(shape)
            if len(blocks) == 1:
                continue
            if kernel.name not in parts:
                parts[kernel.name] = tuple(names.fresh(f"{kernel.name}.part") for _ in blocks)
            plan.append(SplitKernel(conv, kernel.name, shape, blocks, parts[kernel.name]))
        return tuple(plan)

    @staticmethod
    def apply(plan: Sequence[SplitKernel], model: ir.Model) -> None:
        """Carry out a plan that was made for this very model."""
        writer = GraphWriter(model)
        for split in plan:
            _split(writer, split)
        if plan:
            RemoveUnusedNodesPass()(model)
            infer_shapes(model)

    def _blocks(self, shape: tuple[int, ...]) -> tuple[Block, ...]:
        """The blocks of a kernel [K, C, *S]."""
        _, channels, *window = shape
        limit = self.max_kernel or max(window, default=1)
        counts = [-(-length // limit) for length in window]
        groups = 1
        if self.max_depth is not None:
            while prod(_extents(window, counts)) > self.max_depth:
                extents = _extents(window, counts)
                counts[extents.index(max(extents))] += 1
            groups = -(-channels // (self.max_depth // prod(_extents(window, counts))))
        blocks = (
            Block(one, tuple(positions))
            for one in _ranges(channels, groups)
            for positions in product(*map(_ranges, window, counts))
        )
        return tuple(sorted(blocks, key=_size, reverse=True))


def _extents(lengths: Sequence[int], counts: Sequence[int]) -> list[int]:
    """The longest part of each length."""
    return [-(-length // count) for length, count in zip(lengths, counts, strict=True)]


def _ranges(length: int, count: int) -> list[Range]:
    """Split the length into ``count`` parts, as equal as possible."""
    return list(pairwise(length * part // count for part in range(count + 1)))


def _size(block: Block) -> int:
    return prod(block.shape(1))


def _own_kernel(conv: ir.Node) -> ir.Value | None:
    """Return the kernel of a Conv that replaces a fully connected layer, without padding."""
    origin = conv.metadata_props.get(ORIGIN, "").split(" ")[0]
    if conv.op_type != "Conv" or origin not in FC_OPERATORS:
        return None
    if any(conv.attributes.get_ints("pads", [])) or "auto_pad" in conv.attributes:
        return None
    return conv.inputs[1]


def _split(writer: GraphWriter, split: SplitKernel) -> None:
    """Put a sum in the place of a Conv."""
    conv = split.conv
    source, kernel = conv.inputs[:2]
    assert source is not None
    assert kernel is not None
    at = writer.before(conv, {ORIGIN: conv.metadata_props[ORIGIN]})
    total: ir.Value | None = None
    for number, (block, part) in enumerate(zip(split.blocks, _parts(kernel, split), strict=True)):
        bias = () if number else conv.inputs[2:]
        operands = [_read(at, split, source, block), writer.stored(part.name, part.make), *bias]
        made = ir.node("Conv", operands, {"kernel_shape": part.shape[2:]})
        for name, attribute in conv.attributes.items():
            if name != "kernel_shape":
                made.attributes.add(attribute)
        made.name = f"{conv.name}.part{number}" if conv.name else None
        summand = at.put(made)
        total = summand if total is None else at.node("Add", total, summand)
    assert total is not None
    product = conv.outputs[0]
    total.type, total.shape = product.type, product.shape
    product.replace_all_uses_with(total, replace_graph_outputs=True)
    total.name, product.name = product.name, None


def _read(at: Place, split: SplitKernel, source: ir.Value, block: Block) -> ir.Value:
    """What a block reads of the map [N, C, *S]."""
    conv, (start, end) = split.conv, block.channels
    _, channels, *window = split.shape
    groups = conv.attributes.get_int("group", 1)
    if groups > 1 and end - start < channels:
        each = np.arange(groups)[:, None] * channels + np.arange(start, end)
        source = at.node("Gather", source, each.reshape(-1).tolist(), axis=1)
        start, end = 0, channels
    dilations = conv.attributes.get_ints("dilations", [1] * len(window))
    cuts = {1: (start, end if end < channels else _END)}
    for axis, ((first, last), length, step) in enumerate(
        zip(block.window, window, dilations, strict=True), 2
    ):
        cuts[axis] = (first * step, (last - length) * step if last < length else _END)
    cuts = {axis: cut for axis, cut in cuts.items() if cut != (0, _END)}
    if not cuts:
        return source
    starts, ends = (tuple(cut[n] for cut in cuts.values()) for n in (0, 1))
    return at.slice(source, tuple(cuts), starts, ends)


def _parts(kernel: ir.Value, split: SplitKernel) -> list[ConstantTensor]:
    """Return the blocks of a kernel as constants, cut out when they are written."""
    tensor = kernel.const_value
    assert tensor is not None
    # A kernel that is reordered on reading is read once for all blocks.
    whole = cache(tensor.numpy) if isinstance(tensor, ir.LazyTensor) else tensor.numpy

    def part(block: Block) -> ir.TensorProtocol:
        return ir.Tensor(np.ascontiguousarray(whole()[block.slices]), dtype=tensor.dtype)

    parts: list[ConstantTensor] = []
    for block, name in zip(split.blocks, split.names, strict=True):
        shape = block.shape(split.shape[0])
        make = partial(ir.LazyTensor, partial(part, block), tensor.dtype, ir.Shape(shape))
        parts.append(ConstantTensor(name, shape, make))
    return parts
