"""A converted model that reads its weights from the data file of the original.

Nothing is copied, but the two models depend on one file: a change to it changes both.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from onnx_fc2conv.errors import ArgumentError
from onnx_fc2conv.files.embedded import write_model
from onnx_fc2conv.files.reading import INLINE_LIMIT, stored_tensors, weigh

__all__ = ["require_data_beside", "write_linked"]


def require_data_beside(model: ir.Model, target: Path) -> None:
    """Check before any work that a model can share the data of another.

    A model may refer only to files in its own folder or below.

    Raises:
        ArgumentError: If the original has no external data, or keeps it elsewhere.
    """
    external = [t for t in stored_tensors(model) if isinstance(t, ir.ExternalTensor)]
    if not external:
        raise ArgumentError("--link-weights: IN has no external data; its weights are in IN itself")
    for tensor in external:
        folder = Path(tensor.base_dir or ".").resolve()
        if folder != target.parent.resolve():
            raise ArgumentError(
                f"--link-weights: OUT has to lie in {folder}, beside {tensor.location}, which it "
                "is to refer to"
            )


def write_linked(model: ir.Model, path: Path) -> None:
    """Write the graph and new weights; external data stays where it is.

    Raises:
        OSError: If the file cannot be written.
        ArgumentError: If the new weights do not fit into one file.
    """
    if weigh(model) > INLINE_LIMIT:
        raise ArgumentError(
            f"--link-weights: {weigh(model):,} bytes of weights are new, more than one file holds; "
            "leave it out"
        )
    write_model(model, path)
