"""Add a batch axis to models of one image without it, so that every tier can rely on one."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.views.inputs import image_axes

__all__ = ["unbatched_images", "with_batch_axis"]


def unbatched_images(model: ir.Model) -> frozenset[str]:
    """The names of the image inputs [H, W] or [C, H, W] that the model itself unsqueezes."""
    images = image_axes(model.graph).items()
    return frozenset(value.name or "" for value, axes in images if axes[0] is None)


def with_batch_axis(model: ir.Model, names: Collection[str]) -> ir.Model:
    """Change these inputs, in place, to images [1, …] that are squeezed first."""
    graph = model.graph
    for position, value in enumerate(graph.inputs):
        if value.name not in names or value.shape is None:
            continue
        image = ir.val(value.name, dtype=value.dtype, shape=ir.Shape([1, *value.shape]))
        inputs, attributes = [image], {"axes": [0]}
        if graph.opset_imports.get("", 0) >= 13:
            name = f"{value.name}.batch"
            axes = ir.tensor(np.array([0], np.int64), name=name)
            stored = ir.val(name, dtype=axes.dtype, shape=[1], const_value=axes)
            graph.register_initializer(stored)
            inputs, attributes = [image, stored], {}
        node = ir.node("Squeeze", inputs, attributes)
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
        value.replace_all_uses_with(node.outputs[0])
        graph.insert_before(graph[0], node)
        node.outputs[0].name = f"{value.name}.image"
        graph.inputs[position] = image
    return model
