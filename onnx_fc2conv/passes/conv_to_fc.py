"""ConvToFc: every convolution becomes a matrix product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import onnx_ir as ir
from onnx_ir.convenience import get_const_tensor
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_fc2conv.errors import ArgumentError, Refusal, RefusedError
from onnx_fc2conv.graphs.names import describe
from onnx_fc2conv.graphs.shapes import forget_shapes, infer_shapes
from onnx_fc2conv.matrices import ConvLayer, MatrixSize
from onnx_fc2conv.passes.flat_layers import FlatLayers
from onnx_fc2conv.passes.patch_products import PatchProducts
from onnx_fc2conv.views.inputs import model_inputs

__all__ = ["ConvToFc", "Form", "MatrixLayer"]

Form = Literal["im2col", "dense", "sparse"]
"""How a convolution is written: patches times filters, or one matrix for the whole layer.

``"sparse"`` is ``"dense"`` stored by its nonzeros: `sparse_proto` writes it so."""

_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class MatrixLayer:
    """A layer that becomes a matrix product.

    Attributes:
        node: The layer, as ``OpType name``.
        shape: Shape of its matrix: [K·cells, C·positions] if dense, else [kernel positions·C, K]
            (with groups [groups, …] of those).
        nonzeros: Number of entries of the matrix that are not zero by construction.
        nbytes: Bytes added to the model: the matrix, or the index map of the patches.
    """

    node: str
    shape: tuple[int, ...]
    nonzeros: int
    nbytes: int


@dataclass(frozen=True)
class ConvToFc(ir.passes.InPlacePass):
    """Write convolutions as matrix products (Ma & Lu 2017, arXiv 1712.01252).

    1. A Conv with a constant kernel whose input has a known size becomes, with ``"im2col"``, one
       Gather of its patches by a constant index map and one MatMul with the stretched filters;
       with ``"dense"`` one Gemm of the flattened input, whose matrix is block-Toeplitz. A
       ``"sparse"`` model is the same, to be written by `onnx_fc2conv.matrices.sparse_proto`.
    2. In the dense form, tensors stay flat between such layers: elementwise operators work on
       them as they are; AveragePool, GlobalAveragePool and BatchNormalization become matrices
       too. An operator that needs a map (MaxPool) gets it back by one Reshape.
    3. The batch stays as it was. Spatial sizes become those that the model states or that
       ``input_shapes`` gives; names and element types stay.
    4. Initializers are never changed; the dense matrix of a kernel that covers its whole input is
       the kernel's own bytes.

    Attributes:
        form: ``"im2col"``, ``"dense"`` or ``"sparse"``.
        input_shapes: Shape by input name, where the model's own spatial dims are symbolic.
        layers: Names of the Conv nodes to rewrite; all if empty.
        max_bytes: The largest addition to the model, in bytes.

    Raises:
        RefusedError: If a chosen layer cannot be rewritten, or all together would be larger than
            ``max_bytes`` (then nothing is changed).
        ArgumentError: If there is no such form, layer or input.
    """

    form: Form = "im2col"
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    layers: Sequence[str] = ()
    max_bytes: int = 2_000_000_000

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            listed = ", ".join(map(repr, get_args(Form)))
            raise ArgumentError(f"there is no form {self.form!r}; it is {listed}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Plan on a copy, then apply."""
        if not self.plan(model):
            return ir.passes.PassResult(model, modified=False)
        self._fix_sizes(model)
        chosen = self._chosen(model)
        if self.form == "im2col":
            PatchProducts(model).apply(chosen)
        else:
            FlatLayers(model, chosen).apply()
        RemoveUnusedNodesPass()(model)
        infer_shapes(model)
        return ir.passes.PassResult(model, modified=True)

    def plan(self, model: ir.Model) -> tuple[MatrixLayer, ...]:
        """The layers that become matrix products, in graph order; nothing is allocated.

        Raises:
            RefusedError: If a chosen layer cannot be rewritten, or all together are too large.
            ArgumentError: If there is no such layer or input.
        """
        copy = model.clone()
        self._fix_sizes(copy)
        chosen = self._chosen(copy)
        if not chosen:
            return ()
        if self.form == "im2col":
            layers = [_im2col(describe(node), layer) for node, layer in chosen.items()]
        else:
            flat = FlatLayers(copy, chosen)
            flat.apply()
            layers = [self._matrix(name, size) for name, size in flat.sizes.items()]
        self._require_room(layers)
        return tuple(layers)

    def _chosen(self, model: ir.Model) -> dict[ir.Node, ConvLayer]:
        """The Conv nodes to rewrite."""
        convolutions = [n for n in model.graph if n.op_type == "Conv" and n.domain == ""]
        names = {node.name for node in convolutions}
        for name in self.layers:
            if name not in names:
                listed = ", ".join(sorted(n for n in names if n)[:10]) or "none with a name"
                raise ArgumentError(f"there is no Conv named {name!r}; the model has {listed}")
        chosen: dict[ir.Node, ConvLayer] = {}
        refusals: list[Refusal] = []
        for node in convolutions:
            if self.layers and node.name not in self.layers:
                continue
            try:
                chosen[node] = self._layer(node)
            except ValueError as error:
                refusals.append(Refusal("not-a-matrix", describe(node), str(error)))
        if refusals:
            raise RefusedError(refusals)
        return chosen

    def _layer(self, node: ir.Node) -> ConvLayer:
        value = node.inputs[0] if node.inputs else None
        if value is None or value.shape is None:
            raise ValueError("the shape of its input is not known; give it with --input-shape")
        layer = ConvLayer.of(node, [d if isinstance(d, int) else None for d in value.shape])
        if layer.kernel.dtype not in _TYPES:
            raise ValueError(f"its kernel holds {layer.kernel.dtype}")
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and get_const_tensor(bias) is None:
            raise ValueError("its bias is not a constant")
        return layer

    def _fix_sizes(self, model: ir.Model) -> None:
        """Write the given sizes into the inputs, and infer every other tensor's shape from them."""
        inputs = {value.name: value for value in model_inputs(model.graph)}
        for name, given in self.input_shapes.items():
            value = inputs.get(name)
            if value is None:
                listed = ", ".join(sorted(map(str, inputs)))
                raise ArgumentError(f"there is no input {name!r}; the model has {listed}")
            if value.shape is not None and len(value.shape) != len(given):
                raise ArgumentError(f"input {name!r} has {len(value.shape)} axes, not {len(given)}")
            batch = given[0] if value.shape is None else value.shape[0]
            value.shape = ir.Shape([batch, *given[1:]])
        forget_shapes(model)
        infer_shapes(model)

    def _matrix(self, name: str, size: MatrixSize) -> MatrixLayer:
        nbytes = size.sparse_bytes if self.form == "sparse" else size.dense_bytes
        return MatrixLayer(name, (size.rows, size.columns), size.nonzeros, nbytes)

    def _require_room(self, layers: Sequence[MatrixLayer]) -> None:
        """Refuse the largest layer, if all together exceed the limit."""
        total = sum(layer.nbytes for layer in layers)
        if total <= self.max_bytes:
            return
        largest = max(layers, key=lambda layer: layer.nbytes)
        rows, columns = largest.shape[-2:]
        what = f"its index map takes {_in_units(largest.nbytes)}"
        if self.form != "im2col":
            what = (
                f"its matrix has {rows:,} × {columns:,} = {rows * columns:.2g} entries, of which "
                f"{largest.nonzeros:.2g} are not zero: {_in_units(largest.nbytes)}"
            )
        together = f"; all {len(layers)} layers take {_in_units(total)}" if layers[1:] else ""
        limit = f"more than --max-bytes {self.max_bytes:,}"
        raise RefusedError([Refusal("too-large", largest.node, f"{what}{together}: {limit}")])


def _im2col(name: str, layer: ConvLayer) -> MatrixLayer:
    rows = layer.elements * (layer.channels // layer.groups)
    shape = (rows, layer.outputs // layer.groups)
    grouped = shape if layer.groups == 1 else (layer.groups, *shape)
    count = rows * layer.outputs
    return MatrixLayer(name, grouped, count, layer.cells * layer.elements * 8)


def _in_units(count: int) -> str:
    """Bytes as people write them: 41.2 TB."""
    value, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB", "EB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
