"""Tier *matrices*: a file of matrices (.npz) against the layers of the original model.

No runtime reads such a file, so each matrix is multiplied here by its layer's input as onnxruntime
computes it in the original, and the product compared with the layer's output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnx_fc2conv.equivalence.comparing.comparison import Arrays, Comparison
from onnx_fc2conv.equivalence.comparing.tolerances import Bounds, tolerances_of
from onnx_fc2conv.equivalence.pair import as_result
from onnx_fc2conv.equivalence.reporting.results import TierResult
from onnx_fc2conv.equivalence.running.samples import model_inputs
from onnx_fc2conv.equivalence.tracing.structure import with_outputs
from onnx_fc2conv.files.reading import ModelSource, as_model
from onnx_fc2conv.graphs.names import describe, node_name
from onnx_fc2conv.passes.normalize import Normalize
from onnx_fc2conv.runtime.session import Session
from onnx_fc2conv.views.maps.labels import AnyArray

__all__ = ["check_matrices"]

_TIER = "matrices"
_BATCH = 2


@dataclass(frozen=True, eq=False)
class _Stored:
    """A matrix as the file has it: coordinates, shape [outputs, inputs], and bias or None."""

    row: AnyArray
    column: AnyArray
    value: AnyArray
    shape: tuple[int, int]
    bias: AnyArray | None

    def times(self, x: AnyArray) -> AnyArray:
        """Return A·x + b in float64, for x [inputs], as sums over the nonzeros."""
        y = np.bincount(self.row, self.value.astype(np.float64) * x[self.column], self.shape[0])
        return y if self.bias is None else y + self.bias

    def scale(self, x: AnyArray) -> float:
        """The largest sum of magnitudes: rounding errors are a fraction of it, not of the sum."""
        terms = np.abs(self.value.astype(np.float64) * x[self.column])
        bias = 0.0 if self.bias is None else float(np.abs(self.bias).max(initial=0))
        return float(np.bincount(self.row, terms, self.shape[0]).max(initial=0)) + bias


def check_matrices(  # noqa: PLR0913 - the options of a check, all keyword-only
    reference: ModelSource,
    file: Path,
    *,
    input_shapes: Mapping[str, Sequence[int]],
    rtol: Bounds = None,
    atol: Bounds = None,
    seed: int = 0,
) -> list[TierResult]:
    """Compare every matrix of the file with its layer, on random whole numbers.

    Args:
        reference: The original model.
        file: As `onnx_fc2conv.matrices.save_coordinates` writes it.
        input_shapes: Shape by input name, where the model's own is symbolic.
        rtol: Relative tolerance; that of `onnx_fc2conv.check` by default.
        atol: Absolute tolerance; likewise.
        seed: Seed of the random inputs.

    Returns:
        One result per matrix.

    Raises:
        RuntimeUnavailableError: If onnxruntime is missing.
    """
    model = as_model(reference)
    Normalize()(model)
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    stored = _read(file)
    layers = {name: node for node in model.graph if (name := node_name(node)) in stored}
    tensors = [v.name or "" for n in layers.values() for v in (n.inputs[0], n.outputs[0]) if v]
    inputs = {value.name for value in model.graph.inputs}
    exposed = with_outputs(model, [name for name in tensors if name not in inputs])
    feeds = _whole_numbers(model, input_shapes, seed)
    found = feeds | Session(exposed).run(feeds)
    tolerances = tolerances_of(exposed, rtol, atol)

    def compare(name: str, matrix: _Stored) -> TierResult:
        node = layers.get(name)
        if node is None or node.inputs[0] is None:
            return TierResult(_TIER, name, "failed", "the original has no such layer")
        read, given = node.inputs[0].name or "", node.outputs[0].name or ""
        comparison = Comparison(tolerances[given])
        for x, expected in zip(found[read], found[given], strict=True):
            if (expected.size, x.size) != matrix.shape:
                comparison.problems.append(
                    f"the matrix is {list(matrix.shape)}, the layer {[expected.size, x.size]}"
                )
                break
            wide = x.reshape(-1).astype(np.float64)
            got = matrix.times(wide).reshape(expected.shape).astype(expected.dtype)
            comparison.add_all([Arrays("product", expected, got)], matrix.scale(wide))
        what = f"{len(matrix.value)} nonzeros times what the layer reads, {_BATCH} random samples"
        return as_result(_TIER, describe(node), comparison, what)

    return [compare(name, matrix) for name, matrix in stored.items()]


def _read(file: Path) -> dict[str, _Stored]:
    """The matrices by layer, read back from the file."""
    with np.load(file) as arrays:
        names = [key.removesuffix(".shape") for key in arrays.files if key.endswith(".shape")]
        found: dict[str, _Stored] = {}
        for name in names:
            rows, columns = (int(length) for length in arrays[f"{name}.shape"])
            bias = arrays[f"{name}.bias"] if f"{name}.bias" in arrays.files else None
            row, column, value = (arrays[f"{name}.{part}"] for part in ("row", "column", "value"))
            found[name] = _Stored(row, column, value, (rows, columns), bias)
        return found


def _whole_numbers(
    model: ir.Model, given: Mapping[str, Sequence[int]], seed: int
) -> dict[str, AnyArray]:
    """A batch of random whole numbers for every input."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, AnyArray] = {}
    for value in model_inputs(model):
        shape = given.get(value.name, value.shape)
        batch = value.shape[0] if value.shape else None
        sizes = [batch or _BATCH, *(length for length in shape[1:] if length is not None)]
        low = 0 if value.dtype.kind in "ub" else -8
        feeds[value.name] = rng.integers(low, 9, sizes).astype(value.dtype)
    return feeds
