"""Gemm and MatMul with a constant weight: the fully connected layer as a convolution.

    V[n, d] = M[n, index[d]]                 the operand is a view of the map M [N, C, *S]
    Y[n, k] = Σ_d W[k, d] · V[n, d]
            = Σ_(c,s) K[k, c, s] · M[n, c, s]        with  K[k, index[d]] = W[k, d],  0 elsewhere

which is the only cell of a Conv of M with kernel K, without padding. Where the index is the
identity, K is W in another shape, byte for byte. (Gemm-7/9/11/13, MatMul-1/9/13, Conv-1/11; Long,
Shelhamer, Darrell: Fully Convolutional Networks, 2015, section 3.1.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.errors import Refusal
from onnx_fc2conv.views.labels import SAMPLE, AnyArray, IntArray
from onnx_fc2conv.views.plan import Constant, Emitted, FcLayer, Outcome, Step
from onnx_fc2conv.views.rules.registry import Application, node_name, rule
from onnx_fc2conv.views.rules.restore import single_map
from onnx_fc2conv.views.view import FeatureMap, FeatureView, Known, Labels, Mixed

__all__ = ["gemm", "matmul"]

_CONV_TYPES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.DOUBLE,
    ir.DataType.BFLOAT16,
)


@dataclass(frozen=True, eq=False)
class _Layer:
    """Y = contraction of the view's ``axis`` with the weight [K, D], plus a bias.

    Attributes:
        view: The operand that depends on the image.
        axis: The axis of the view that is contracted, counted from the end (negative).
        weight: The constant operand as it is stored.
        transposed: Whether the stored operand is [D, K] rather than [K, D].
        alpha: Factor of the product.
        name: Name of the weight tensor.
    """

    view: FeatureView
    axis: int
    weight: Known
    transposed: bool
    alpha: float
    name: str


@rule("Gemm")
def gemm(app: Application) -> Outcome:
    """Y = alpha·A'·B' + beta·C, with the image in A' (usual) or in B'."""
    trans_a, trans_b = app.int_attribute("transA", 0), app.int_attribute("transB", 0)
    alpha = app.node.attributes.get_float("alpha", 1.0)
    beta = app.node.attributes.get_float("beta", 1.0)
    a, b = app.operand(0), app.operand(1)
    if isinstance(a, FeatureView) and isinstance(b, Known):
        layer = _Layer(a, -2 if trans_a else -1, b, not trans_b, alpha, _name(app, 1))
        bias_shape: Literal["row", "column"] = "row"
    elif isinstance(a, Known) and isinstance(b, FeatureView):
        layer = _Layer(b, -1 if trans_b else -2, a, bool(trans_a), alpha, _name(app, 0))
        bias_shape = "column"
    else:
        return _weight_is_not_constant(app)
    c = app.operand(2) if beta != 0.0 else None
    if c is not None and not isinstance(c, Known):
        return app.refuse("bias-not-constant", "its bias is not a constant")
    # B' = Vᵀ of shape [D, N] puts the samples on the columns of Y; A' = V puts them on the rows.
    out_axis = -1 if bias_shape == "row" else -2
    bias = None if c is None else _Bias(c, beta, bias_shape, _name(app, 2))
    return _convolve(app, layer, out_axis, bias)


@rule("MatMul")
def matmul(app: Application) -> Outcome:
    """Y = V·Wᵀ or W·V with a constant matrix (or vector) on either side."""
    a, b = app.operand(0), app.operand(1)
    if isinstance(a, FeatureView) and isinstance(b, Known):
        layer = _Layer(a, -1, b, True, 1.0, _name(app, 1))
        return _convolve(app, layer, -1, None)
    if isinstance(a, Known) and isinstance(b, FeatureView):
        axis = -1 if len(b.shape) == 1 else -2
        layer = _Layer(b, axis, a, False, 1.0, _name(app, 0))
        return _convolve(app, layer, axis, None)
    return _weight_is_not_constant(app)


@dataclass(frozen=True, eq=False)
class _Bias:
    """beta·C, with C broadcast over the rows (one value per column) or the columns of Y."""

    value: Known
    beta: float
    shape: Literal["row", "column"]
    name: str

    def per_output(self, outputs: int) -> AnyArray | None:
        """The bias as [K] in C's dtype; None if it varies over the samples."""
        array = self.value.array
        if self.shape == "column":
            if array.ndim < 2:
                array = array if array.size == 1 else np.empty((2, 2))
            elif array.shape[1] == 1:
                array = array[:, 0]
        elif array.ndim == 2 and array.shape[0] == 1:
            array = array[0]
        if array.size != 1 and array.shape != (outputs,):
            return None
        array = np.broadcast_to(array.reshape(-1), (outputs,))
        return array if self.beta == 1.0 else _scaled(array, self.beta)


def _convolve(app: Application, layer: _Layer, out_axis: int, bias: _Bias | None) -> Outcome:
    view = layer.view
    matrix_shape = _matrix_shape(layer)
    if matrix_shape is None or layer.weight.sized:
        return app.refuse(
            "weight-not-matrix",
            f"its weight has shape {list(layer.weight.shape)}; only a constant matrix is a layer",
        )
    outputs, features = matrix_shape
    rows = _row_refusal(app, layer, features)
    if rows is not None:
        return rows

    found = single_map(app, view)
    if isinstance(found, Refusal):
        return found
    steps, source, local = found
    if source.dtype not in _CONV_TYPES:
        return app.refuse("unsupported-type", f"computes in {source.dtype}, which Conv does not")

    if outputs == 0 or features == 0:
        return app.refuse("weight-not-matrix", "its weight is empty")
    offset = None if bias is None else bias.per_output(outputs)
    if bias is not None and offset is None:
        return app.refuse(
            "bias-not-constant",
            f"its bias of shape {list(bias.value.shape)} has other values for other samples",
        )

    kernel, bytes_kept = _kernel(app, layer, source, local, outputs)
    inputs: list[FeatureMap | Constant | ir.Value | None] = [source.base or source, kernel]
    shift = _pending_shift(layer, source, local)
    bias_input = _bias_input(app, layer, bias, offset, shift, outputs)
    if bias_input is not None:
        inputs.append(bias_input)

    field = tuple(f.slide(k) for f, k in zip(source.field, source.extent, strict=True))
    output = app.new_map(
        source,
        channels=outputs,
        extent=(1,) * len(source.extent),
        field=field,
        made_by_fc=any(axis.stride for axis in field),
    )
    step = Step("Conv", tuple(inputs), output, app.node, {"kernel_shape": tuple(source.extent)})
    fc_layer = FcLayer(
        node=node_name(app.node),
        op_type=app.node.op_type,
        weight=layer.name,
        weight_shape=(outputs, features),
        kernel=kernel.name,
        kernel_shape=kernel.shape,
        bytes_kept=bytes_kept,
    )
    result = _output_view(app, layer, output, out_axis)
    return Emitted((*steps, step), result, fc_layer)


def _matrix_shape(layer: _Layer) -> tuple[int, int] | None:
    """(K, D) of the weight; leading axes of length 1 do not count, a vector has K = 1."""
    shape = layer.weight.shape
    if len(shape) == 1:
        return 1, shape[0]
    if len(shape) < 1 or any(length != 1 for length in shape[:-2]):
        return None
    rows, columns = shape[-2:]
    return (columns, rows) if layer.transposed else (rows, columns)


def _row_refusal(app: Application, layer: _Layer, features: int) -> Refusal | None:
    """Why the contraction is not one inner product per sample and output, if it is not."""
    view = layer.view
    if len(view.shape) < -layer.axis or view.shape[layer.axis] != features:
        return app.refuse(
            "shape-mismatch",
            f"multiplies an operand of shape {list(view.shape)} by a weight for {features} "
            "features: at the native input size the model does not compute; check --input-shape",
        )
    try:
        batch_axis = view.batch_axis
    except Mixed:
        return app.refuse("batch-mixing", "its operand mixes the samples of a batch")
    if batch_axis == len(view.shape) + layer.axis:
        return app.refuse("batch-mixing", "contracts the batch axis: it mixes samples")
    if view.index.size != features:
        return app.refuse(
            "token-wise",
            f"is applied to {view.index.size // features} rows per sample "
            f"(operand {list(view.shape)}), not to one vector of features",
        )
    return None


def _weight(layer: _Layer) -> AnyArray:
    """The weight as [K, D]."""
    array = layer.weight.array
    if array.ndim == 1:
        return array[None, :]
    matrix = array.reshape(array.shape[-2:])
    return matrix.T if layer.transposed else matrix


def _kernel(
    app: Application, layer: _Layer, source: FeatureMap, local: IntArray, outputs: int
) -> tuple[Constant, str]:
    """The kernel [K, C, *S], and how its bytes come from the weight's."""
    shape = (outputs, *source.per_sample_shape)
    index = local.reshape(-1)
    identity = index.size == source.size and bool((index == np.arange(index.size)).all())
    stored_row_major = not layer.transposed or 1 in layer.weight.shape[-2:]
    name = app.names.fresh(f"{layer.name}.kernel")
    scaled = layer.alpha != 1.0 or source.pending is not None
    if identity and stored_row_major and not scaled:
        return Constant(name, shape, lambda: _reshaped(layer.weight, shape)), "same"

    def build() -> AnyArray:
        weight = _weight(layer)
        if source.pending is not None:
            scale = source.pending.scale.reshape(-1)[index] * layer.alpha
            weight = (weight.astype(np.float64) * scale).astype(weight.dtype)
        elif layer.alpha != 1.0:
            weight = _scaled(weight, layer.alpha)
        if identity:
            return np.ascontiguousarray(weight).reshape(shape)
        kernel = np.zeros((outputs, source.size), weight.dtype)
        if np.unique(index).size == index.size:
            kernel[:, index] = weight
        else:  # a feature that is read twice has the sum of its weights
            total = np.zeros((source.size, outputs), np.float64)
            np.add.at(total, index, weight.T.astype(np.float64))
            kernel = total.T.astype(weight.dtype)
        return kernel.reshape(shape)

    twice = np.unique(index).size != index.size
    make = _lazily(build, layer.weight, shape)
    return Constant(name, shape, make), "folded" if scaled or twice else "permuted"


def _lazily(
    build: Callable[[], AnyArray], weight: Known, shape: tuple[int, ...]
) -> Callable[[], ir.TensorProtocol]:
    """A tensor whose elements are put in order when it is written, not before."""
    dtype = weight.tensor.dtype if weight.tensor is not None else None

    def make() -> ir.TensorProtocol:
        actual = dtype if dtype is not None else ir.DataType.from_numpy(weight.array.dtype)
        return ir.LazyTensor(lambda: ir.Tensor(build(), dtype=actual), actual, ir.Shape(shape))

    return make


def _reshaped(weight: Known, shape: tuple[int, ...]) -> ir.TensorProtocol:
    """The same bytes under another shape: nothing is copied, in memory or on disk."""
    stored = weight.tensor
    if isinstance(stored, ir.ExternalTensor):
        return ir.ExternalTensor(
            stored.location,
            stored.offset,
            stored.length,
            stored.dtype,
            shape=ir.Shape(shape),
            name=stored.name,
            base_dir=stored.base_dir,
        )
    dtype = stored.dtype if stored is not None else None
    return ir.Tensor(weight.array.reshape(shape), dtype=dtype)


def _pending_shift(layer: _Layer, source: FeatureMap, local: IntArray) -> AnyArray | None:
    """What the pending shift of the map adds to each output: W·shift, [K] float64."""
    if source.pending is None:
        return None
    shift = source.pending.shift.reshape(-1)[local.reshape(-1)]
    if not shift.any():
        return None
    total: AnyArray = layer.alpha * (_weight(layer).astype(np.float64) @ shift)
    return total


def _bias_input(  # noqa: PLR0913 - the parts of one sum
    app: Application,
    layer: _Layer,
    bias: _Bias | None,
    offset: AnyArray | None,
    shift: AnyArray | None,
    outputs: int,
) -> Constant | ir.Value | None:
    """The Conv's bias [K]: the model's own tensor where it already is that, else a new one."""
    if offset is None and shift is None:
        return None
    if bias is not None and shift is None and bias.beta == 1.0 and bias.value.shape == (outputs,):
        value = app.node.inputs[2]
        if bias.value.tensor is not None and value is not None:
            return value
    dtype = layer.weight.array.dtype if offset is None else offset.dtype
    total = offset if shift is None else shift + (0.0 if offset is None else offset)
    assert total is not None
    array = np.ascontiguousarray(total, dtype=dtype)
    name = app.names.fresh(f"{bias.name if bias is not None else layer.name}.bias")
    return Constant(name, (outputs,), lambda: ir.Tensor(array))


def _output_view(app: Application, layer: _Layer, output: FeatureMap, out_axis: int) -> FeatureView:
    """The product as a view of the new map: the contracted axis now counts the outputs."""
    vector = len(layer.weight.shape) == 1
    # A stored [1, …, D, K] gives the product as many leading axes of length 1.
    leading = max(0, len(layer.weight.shape) - max(2, len(layer.view.shape)))

    def product(labels: IntArray) -> IntArray:
        samples: IntArray = np.moveaxis(labels, layer.axis, 0)[0] // SAMPLE * SAMPLE
        if vector:
            only: IntArray = samples + output.first_label
            return only
        elements = np.arange(output.first_label, output.first_label + output.channels)
        if labels.ndim > 1:
            samples = np.expand_dims(samples, out_axis)
            shape = [1] * labels.ndim
            shape[out_axis] = output.channels
            elements = elements.reshape(shape)
        made: IntArray = samples + elements
        return made.reshape((1,) * leading + made.shape)

    def labels() -> Labels:
        other = layer.view.labels.other
        return Labels(product(layer.view.labels.native), None if other is None else product(other))

    return FeatureView(app.space, app.batches, labels)


def _scaled(array: AnyArray, factor: float) -> AnyArray:
    """The array times a factor, rounded once to the array's dtype."""
    scaled: AnyArray = (array.astype(np.float64) * np.float64(np.float32(factor))).astype(
        array.dtype
    )
    return scaled


def _name(app: Application, position: int) -> str:
    value = app.node.inputs[position] if position < len(app.node.inputs) else None
    return (value.name if value is not None else None) or app.node.outputs[0].name or "weight"


def _weight_is_not_constant(app: Application) -> Refusal:
    return app.refuse(
        "weight-not-constant",
        "multiplies two tensors that both change with the input (attention?), not a layer",
    )
