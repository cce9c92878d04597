"""The im2col form: patches by one Gather, filters by one MatMul.

    Before   X [N, C, *S] → Conv → Y [N, K, *O]
    After    X → Transpose, Reshape [N, positions, C] → (Pad a row of zeros) → Gather index
               → Reshape [N, cells, elements·C] → MatMul F [elements·C, K] → Add bias
               → Transpose, Reshape [N, K, *O]

With groups the patches are split by group first, and F is [groups, elements·C/groups, K/groups].
(Ma & Lu 2017, Algorithm 1; Gather-1/11/13, MatMul-1/9/13, Pad-2/11/13.)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_fc2conv.geometry import SlidingWindow
from onnx_fc2conv.graphs.names import node_name
from onnx_fc2conv.graphs.writer import GraphWriter, Place
from onnx_fc2conv.matrices import ConvLayer
from onnx_fc2conv.passes.matrix_place import matrix_place

__all__ = ["PatchProducts"]


class PatchProducts:
    """Rewrites Conv nodes of a graph as products of patches and filters."""

    def __init__(self, model: ir.Model) -> None:
        self.writer = GraphWriter(model)
        self.maps: dict[SlidingWindow, ir.Value] = {}

    def apply(self, layers: Mapping[ir.Node, ConvLayer]) -> None:
        """Put the product in the place of each node; the output keeps its name."""
        for node, layer in layers.items():
            old = node.outputs[0]
            name, dtype = old.name, old.type
            product = self._product(node, layer)
            old.replace_all_uses_with(product, replace_graph_outputs=True)
            self.writer.graph.remove(node, safe=True)
            product.name, product.type = name, dtype

    def _product(self, node: ir.Node, layer: ConvLayer) -> ir.Value:
        name, at = node_name(node), matrix_place(self.writer, node)
        patches = self._patches(at, node, layer, name)
        filters = layer.filters()
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        stored = self.writer.constant(
            f"{name}.filters", filters[0] if layer.groups == 1 else filters
        )
        found = at.node("MatMul", patches, stored, name=f"{name}.product")
        if layer.groups == 1:
            if bias is not None:
                found = at.node("Add", found, bias, name=f"{name}.sum")
            found = at.transpose(found, [0, 2, 1], name=f"{name}.channels_first")
        else:
            found = at.transpose(found, [0, 1, 3, 2], name=f"{name}.channels_first")
            if bias is not None:
                by_group = (layer.groups, layer.outputs // layer.groups, 1)
                column = at.reshape(bias, by_group, name=f"{name}.bias")
                found = at.node("Add", found, column, name=f"{name}.sum")
        shape = (0, layer.outputs, *layer.window.output_extent)
        return at.reshape(found, shape, name=f"{name}.map")

    def _patches(self, at: Place, node: ir.Node, layer: ConvLayer, name: str) -> ir.Value:
        """[N, cells, elements·C], with groups [N, groups, cells, elements·C/groups]."""
        found = node.inputs[0]
        assert found is not None
        rank, groups, depth = len(layer.window.extent), layer.groups, layer.channels
        last = [0, *range(2, rank + 2), 1]
        found = at.transpose(found, last, name=f"{name}.channels_last")
        found = at.reshape(found, (0, layer.positions, depth), name=f"{name}.positions")
        index = layer.window.positions()
        if not np.array_equal(index.reshape(-1), np.arange(layer.positions)):
            if (index == layer.positions).any():
                # One more position, of zeros, which the index map uses for padding.
                found = at.pad(found, [0, 0, 0, 0, 1, 0], name=f"{name}.padding")
            stored = self.maps.get(layer.window)
            if stored is None:
                stored = self.maps[layer.window] = self.writer.constant(f"{name}.patches", index)
            found = at.node("Gather", found, stored, axis=1, name=f"{name}.patch")
        cells, elements = index.shape
        if groups == 1:
            return at.reshape(found, (0, cells, elements * depth), name=f"{name}.rows")
        each = (0, cells, elements, groups, depth // groups)
        found = at.reshape(found, each, name=f"{name}.groups")
        found = at.transpose(found, [0, 3, 1, 2, 4], name=f"{name}.groups_first")
        shape = (0, groups, cells, elements * (depth // groups))
        return at.reshape(found, shape, name=f"{name}.rows")
