"""ConvTranspose: s cells for each, where neighboring kernels overlap (Dumoulin & Visin 2016).

Input cell i adds to the outputs i·s + j·d - p, for j below the kernel length k. So the s outputs
from s·q on read the input cells from q + ceil((p - (k-1)·d) / s) up to q + ceil(p / s): a window of
the input, whose cell becomes s cells. Where the window reaches beyond the first or last cell, fewer
terms are summed, as in a padded Conv.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_fc2conv.geometry import AxisField
from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.views.context import Context
from onnx_fc2conv.views.maps.as_feature_map import as_feature_maps
from onnx_fc2conv.views.maps.constant import Constant
from onnx_fc2conv.views.maps.feature_map import FeatureMap
from onnx_fc2conv.views.maps.grids import subdivided
from onnx_fc2conv.views.maps.view import FeatureView
from onnx_fc2conv.views.plan import AttributeValue
from onnx_fc2conv.views.registry import rule

__all__ = ["conv_transpose"]


@dataclass(frozen=True)
class _Axis:
    """The hyperparameters along one spatial axis.

    Attributes:
        length: Number of input cells.
        span: Number of cells that the dilated kernel covers.
        stride: Number of output cells per input cell.
        more: Cells appended to the output, ``output_padding``.
        begin, end: Cells cut off the output, ``pads``.
    """

    length: int
    span: int
    stride: int
    more: int
    begin: int
    end: int

    @property
    def whole(self) -> int:
        """Number of outputs before any is cut off."""
        return (self.length - 1) * self.stride + self.span + self.more

    @property
    def count(self) -> int:
        """Number of outputs."""
        return self.whole - self.begin - self.end

    @property
    def first(self) -> int:
        """The first input cell that output 0 reads, negative where there is none."""
        return -((self.span - 1 - self.begin) // self.stride)

    @property
    def reaches_out(self) -> bool:
        """Whether the first or last output would read a cell beyond the input."""
        return self.first < 0 or (self.count - 1 + self.begin) // self.stride >= self.length

    def field(self, ctx: Context, source: AxisField) -> AxisField:
        """The receptive field of the outputs."""
        window = -(-self.begin // self.stride) - self.first + 1
        block = source.slide(window, pad=-self.first)
        spread, _ = subdivided(ctx, block, self.length, self.stride)
        return spread.counted(
            source.cells.then(self.stride, self.count - self.length * self.stride, 1),
            (source.first_clean - 1) * self.stride + self.span - self.begin,
            {end.then(self.stride, -self.begin, 1) for end in source.clean_ends},
        )


@rule("ConvTranspose")
def conv_transpose(ctx: Context) -> FeatureView:
    """ConvTranspose-1/11/22 with a constant kernel."""
    weight = ctx.constant_operand(1)
    if weight is None or any(
        f is not None and not isinstance(f, Constant) for f in ctx.operands[1:]
    ):
        ctx.refuse("weight-not-constant", "its kernel is not a constant")
    (source,) = as_feature_maps(ctx)
    if len(weight.shape) != 2 + len(source.extent) or weight.shape[0] != source.channels:
        ctx.refuse(
            "invalid-node",
            f"kernel {list(weight.shape)} does not fit a map {list(source.per_sample_shape)}",
        )
    axes = _axes(ctx, source, weight.shape[2:])
    trivial = all(axis.span == axis.stride == 1 and axis.count == axis.length for axis in axes)
    if not trivial:
        ctx.require_several_cells(source, "makes a map of")
    if not trivial and not all(field.stride for field in source.field):
        ctx.refuse("misaligned", f"makes a map of {source.name}, whose cell sees the whole image")
    if min(axis.count for axis in axes) < 1:
        ctx.refuse("shape-mismatch", "has no cell at the native size; check --input-shape")
    fields = (axis.field(ctx, field) for axis, field in zip(axes, source.field, strict=True))
    ctx.freeze(_frozen(ctx, axes))
    return ctx.kept(
        source,
        channels=weight.shape[1] * ctx.int_attribute("group", 1),
        extent=tuple(axis.count for axis in axes),
        field=tuple(fields),
        pads=describe(ctx.node) if any(axis.reaches_out for axis in axes) else None,
        subdivides=describe(ctx.node) if max(axis.stride for axis in axes) > 1 else None,
    )


def _axes(ctx: Context, source: FeatureMap, kernel: tuple[int, ...]) -> tuple[_Axis, ...]:
    """The hyperparameters of each axis, auto_pad and output_shape resolved at the native size."""
    rank = len(source.extent)
    strides = ctx.ints_attribute("strides") or (1,) * rank
    dilations = ctx.ints_attribute("dilations") or (1,) * rank
    more = ctx.ints_attribute("output_padding") or (0,) * rank
    pads = ctx.ints_attribute("pads") or (0,) * (2 * rank)
    if not (len(strides) == len(dilations) == len(more) == rank and len(pads) == 2 * rank):
        ctx.refuse("invalid-node", f"strides, dilations or pads are not for {rank} axes")
    if min(*strides, *dilations, *kernel) < 1:
        ctx.refuse("invalid-node", "has a kernel, stride or dilation below 1")
    auto_pad = ctx.node.attributes.get_string("auto_pad", "NOTSET")
    sizes = ctx.ints_attribute("output_shape")
    if sizes is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        sizes = tuple(n * s for n, s in zip(source.extent, strides, strict=True))
    axes = [
        _Axis(n, (k - 1) * d + 1, s, m, 0, 0)
        for n, k, d, s, m in zip(source.extent, kernel, dilations, strides, more, strict=True)
    ]
    if sizes is not None:
        cut = [axis.whole - size for axis, size in zip(axes, sizes[-rank:], strict=True)]
        if min(cut) < 0:
            ctx.refuse(
                "baked-size",
                f"is to give {list(sizes)}, more than its kernels reach; export it with pads",
            )
        ends = [total - total // 2 if auto_pad == "SAME_UPPER" else total // 2 for total in cut]
        begins = [total - end for total, end in zip(cut, ends, strict=True)]
        pads = (*begins, *ends)
    elif auto_pad == "VALID":
        pads = (0,) * (2 * rank)
    return tuple(
        _Axis(axis.length, axis.span, axis.stride, axis.more, begin, end)
        for axis, begin, end in zip(axes, pads[:rank], pads[rank:], strict=True)
    )


def _frozen(ctx: Context, axes: tuple[_Axis, ...]) -> Mapping[str, AttributeValue | None]:
    """Return attributes that write size-dependent pads out as pads for any size."""
    auto_pad = ctx.node.attributes.get_string("auto_pad", "NOTSET")
    if ctx.ints_attribute("output_shape") is None and auto_pad in ("NOTSET", "VALID"):
        return {}
    pads = (*(axis.begin for axis in axes), *(axis.end for axis in axes))
    return {"auto_pad": None, "output_shape": None, "pads": pads}
