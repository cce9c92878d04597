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
from onnx_fc2conv.matrices import ConvLayer
from onnx_fc2conv.passes.node_chain import NodeChain

__all__ = ["PatchProducts"]


class PatchProducts:
    """Rewrites Conv nodes of a graph as products of patches and filters."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.chain = NodeChain(graph)
        self.opset = graph.opset_imports[""]
        self.maps: dict[SlidingWindow, ir.Value] = {}

    def apply(self, layers: Mapping[ir.Node, ConvLayer]) -> None:
        """Put the product in the place of each node; the output keeps its name."""
        for node, layer in layers.items():
            old = node.outputs[0]
            name, dtype = old.name, old.type
            product = self._product(node, layer)
            old.replace_all_uses_with(product, replace_graph_outputs=True)
            self.graph.remove(node, safe=True)
            product.name, product.type = name, dtype

    def _product(self, node: ir.Node, layer: ConvLayer) -> ir.Value:
        name = node_name(node)
        patches = self._patches(node, layer, name)
        filters = layer.filters()
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if layer.groups == 1:
            stored = self.chain.constant(f"{name}.filters", filters[0])
            found = self.chain.add(node, "MatMul", [patches, stored], name=f"{name}.product")
            if bias is not None:
                found = self.chain.add(node, "Add", [found, bias], name=f"{name}.sum")
            found = self._transposed(node, found, [0, 2, 1], f"{name}.channels_first")
        else:
            stored = self.chain.constant(f"{name}.filters", filters)
            found = self.chain.add(node, "MatMul", [patches, stored], name=f"{name}.product")
            found = self._transposed(node, found, [0, 1, 3, 2], f"{name}.channels_first")
            if bias is not None:
                by_group = (layer.groups, layer.outputs // layer.groups, 1)
                column = self.chain.reshape(node, bias, by_group, name=f"{name}.bias")
                found = self.chain.add(node, "Add", [found, column], name=f"{name}.sum")
        shape = (0, layer.outputs, *layer.window.output_extent)
        return self.chain.reshape(node, found, shape, name=f"{name}.map")

    def _patches(self, node: ir.Node, layer: ConvLayer, name: str) -> ir.Value:
        """[N, cells, elements·C], with groups [N, groups, cells, elements·C/groups]."""
        found = node.inputs[0]
        assert found is not None
        rank, groups, depth = len(layer.window.extent), layer.groups, layer.channels
        last = [0, *range(2, rank + 2), 1]
        found = self._transposed(node, found, last, f"{name}.channels_last")
        found = self.chain.reshape(
            node, found, (0, layer.positions, depth), name=f"{name}.positions"
        )
        index = layer.window.positions()
        if not np.array_equal(index.reshape(-1), np.arange(layer.positions)):
            if (index == layer.positions).any():
                found = self._with_zero_row(node, found, f"{name}.padding")
            stored = self.maps.get(layer.window)
            if stored is None:
                stored = self.maps[layer.window] = self.chain.constant(f"{name}.patches", index)
            found = self.chain.add(
                node, "Gather", [found, stored], {"axis": 1}, name=f"{name}.patch"
            )
        cells, elements = index.shape
        if groups == 1:
            return self.chain.reshape(
                node, found, (0, cells, elements * depth), name=f"{name}.rows"
            )
        found = self.chain.reshape(
            node, found, (0, cells, elements, groups, depth // groups), name=f"{name}.groups"
        )
        found = self._transposed(node, found, [0, 3, 1, 2, 4], f"{name}.groups_first")
        shape = (0, groups, cells, elements * (depth // groups))
        return self.chain.reshape(node, found, shape, name=f"{name}.rows")

    def _with_zero_row(self, node: ir.Node, value: ir.Value, name: str) -> ir.Value:
        """One more position, of zeros, which the index map uses for padding."""
        pads = [0, 0, 0, 0, 1, 0]
        if self.opset < 11:
            return self.chain.add(node, "Pad", [value], {"pads": pads}, name=name)
        stored = self.chain.constant(f"{name}.pads", np.array(pads, np.int64))
        return self.chain.add(node, "Pad", [value, stored], name=name)

    def _transposed(self, node: ir.Node, value: ir.Value, perm: list[int], name: str) -> ir.Value:
        return self.chain.add(node, "Transpose", [value], {"perm": perm}, name=name)
