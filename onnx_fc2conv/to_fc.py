"""convert_to_fc(): the inverse conversion, of convolutions to matrix products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_fc2conv.errors import Refusal, RefusedError
from onnx_fc2conv.files.reading import ModelSource, as_model
from onnx_fc2conv.passes import ConvToFc, Normalize
from onnx_fc2conv.passes.conv_to_fc import Form, MatrixLayer

__all__ = ["FcConversion", "convert_to_fc", "plan_to_fc"]


@dataclass(frozen=True)
class FcConversion:
    """A model whose convolutions are matrix products.

    Attributes:
        model: The model; its spatial sizes are fixed.
        layers: The layers that became matrix products, in graph order.
    """

    model: ir.Model
    layers: tuple[MatrixLayer, ...]


def convert_to_fc(
    model: ModelSource,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    form: Form = "im2col",
    layers: Sequence[str] = (),
    max_bytes: int = 2_000_000_000,
) -> FcConversion:
    """Write a model's convolutions as matrix products (Ma & Lu 2017, arXiv 1712.01252).

    Args:
        model: A path, an ``onnx.ModelProto`` or an ``onnx_ir.Model``; never changed.
        input_shapes: Shape by input name, such as ``{"image": (1, 3, 224, 224)}``, for inputs whose
            spatial dims are symbolic. The batch stays as the model has it.
        form: ``"im2col"``: each Conv a Gather of patches and a MatMul with its stretched filters;
            ``"dense"``: each Conv one matrix of the flattened input, and maps stay flat between;
            ``"sparse"``: the same, for `onnx_fc2conv.matrices.sparse_proto` to write.
        layers: Names of the Conv nodes to rewrite; all if empty.
        max_bytes: The largest addition to the model. Sizes are predicted: nothing is allocated for
            a model that is refused.

    Returns:
        The model, with the interface of the original, and the layers that became matrices.

    Raises:
        RefusedError: If there is no Conv, one cannot be rewritten, or the result is too large.
        ArgumentError: If an argument does not fit the model.
        InvalidModelError: If ``model`` is not a valid ONNX model.

    Example:
        >>> conversion = convert_to_fc("models/digits8.onnx", form="dense")
        >>> [(layer.node, layer.shape) for layer in conversion.layers]
        [('Conv /0/Conv', (864, 64)), ('Conv /2/Conv', (512, 864))]
    """
    rewrite = ConvToFc(form, input_shapes or {}, layers, max_bytes)
    source, planned = plan_to_fc(model, rewrite)
    rewrite(source)
    return FcConversion(source, planned)


def plan_to_fc(model: ModelSource, rewrite: ConvToFc) -> tuple[ir.Model, tuple[MatrixLayer, ...]]:
    """Return a copy of the model, ready for the pass, and the layers that it will rewrite.

    The errors are those of `convert_to_fc`.
    """
    source = as_model(model)
    Normalize()(source)
    planned = rewrite.plan(source)
    if not planned:
        raise RefusedError([Refusal("nothing-to-convert", "model", "the model has no Conv")])
    return source, planned
