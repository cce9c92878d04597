"""Small models, built node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes.common import ShapeInferencePass

from onnx_fc2conv.runtime.byte_products import PRODUCTS
from onnx_fc2conv.runtime.session import Session

Array = npt.NDArray[Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]

FC_TRACES = ("Gemm", "MatMul", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze")
"""Operators that a converted head has no use for."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model under construction, with the per-sample shape that the builder knows."""

    value: ir.Value
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass
class Net:
    """Builds a model with one image input ``x``; weights are random and seeded."""

    opset: int = 13
    image: tuple[int, ...] = (2, 8, 10)
    batch: int | str = "N"
    seed: int = 0
    ir_version: int = 8
    dtype: ir.DataType = ir.DataType.FLOAT
    nodes: list[ir.Node] = field(default_factory=list)
    initializers: list[ir.Value] = field(default_factory=list)
    inputs: list[ir.Value] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.x = self.input("x", (self.batch, *self.image))

    def input(
        self, name: str, shape: Sequence[int | str], dtype: ir.DataType | None = None
    ) -> Tensor:
        value = ir.val(name, dtype=dtype or self.dtype, shape=shape)
        self.inputs.append(value)
        return Tensor(value, tuple(dim for dim in shape[1:] if isinstance(dim, int)))

    def op(
        self,
        op_type: str,
        *operands: Tensor | Array | None,
        shape: tuple[int, ...] = (),
        name: str | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> Tensor:
        """Add a node; arrays become initializers."""
        return self.ops(op_type, *operands, shape=shape, name=name, domain=domain, **attributes)[0]

    def ops(
        self,
        op_type: str,
        *operands: Tensor | Array | None,
        outputs: int = 1,
        shape: tuple[int, ...] = (),
        name: str | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> list[Tensor]:
        """Add a node with several outputs."""
        values = [
            operand.value if isinstance(operand, Tensor) else self._stored(operand)
            for operand in operands
        ]
        node = ir.node(op_type, values, attributes, domain=domain, num_outputs=outputs, name=name)
        for position, value in enumerate(node.outputs):
            value.name = f"{op_type.lower()}{len(self.nodes)}" + (
                f"_{position}" if position else ""
            )
        self.nodes.append(node)
        return [Tensor(value, shape) for value in node.outputs]

    def _stored(self, array: Array | None) -> ir.Value | None:
        return None if array is None else self.weight(array).value

    def weight(self, array: Array, name: str | None = None) -> Tensor:
        """An initializer."""
        name = name or f"w{len(self.initializers)}"
        tensor = ir.tensor(np.asarray(array), name=name)
        value = ir.val(name, dtype=tensor.dtype, const_value=tensor)
        self.initializers.append(value)
        return Tensor(value, tuple(np.shape(array)))

    def constant(self, array: Array) -> Tensor:
        """The output of a Constant node."""
        tensor = ir.tensor(np.asarray(array))
        return self.op("Constant", value=tensor, shape=tuple(np.shape(array)))

    def random(self, *shape: int) -> Array:
        """Of the size that keeps a product with it near 1, or a softmax would hide errors."""
        fan_in = np.prod(shape) / min(shape) if len(shape) > 1 else 1.0
        array: Array = (self.rng.normal(size=shape) / np.sqrt(fan_in)).astype(self.dtype.numpy())
        return array

    def trunk(self, *, relu: bool = True, pool: bool = True, channels: int = 3) -> Tensor:
        """An unpadded 3x3 convolution, Relu and a 2x2 pooling: [2, 8, 10] to [3, 3, 4]."""
        rank = len(self.image) - 1
        kernel = self.random(channels, self.image[0], *[3] * rank)
        y = self.op("Conv", self.x, kernel, self.random(channels), shape=(channels,))
        extent = tuple(length - 2 for length in self.image[1:])
        if relu:
            y = self.op("Relu", y)
        if pool:
            y = self.op("MaxPool", y, kernel_shape=[2] * rank, strides=[2] * rank)
            extent = tuple(length // 2 for length in extent)
        return Tensor(y.value, (channels, *extent))

    def flat(self, y: Tensor) -> Tensor:
        return self.op("Flatten", y, shape=(y.size,))

    def fc(
        self, y: Tensor, outputs: int = 4, *, bias: bool = True, name: str | None = None
    ) -> Tensor:
        """A Gemm with the weight [K, D], as PyTorch writes it."""
        weight = self.random(outputs, y.shape[-1])
        rest = (self.random(outputs),) if bias else ()
        return self.op("Gemm", y, weight, *rest, transB=1, shape=(outputs,), name=name)

    def head(self, y: Tensor, outputs: int = 4) -> Tensor:
        return self.fc(self.flat(y), outputs)

    def ir_model(self, *outputs: Tensor, dtype: ir.DataType | None = None) -> ir.Model:
        """The model; its outputs are called ``y``, ``y2`` … and have inferred shapes."""
        for position, output in enumerate(outputs):
            output.value.name = "y" if position == 0 else f"y{position + 1}"
            output.value.type = ir.TensorType(dtype or self.dtype)
        listed = list(self.inputs)
        if self.ir_version < 4:
            listed += self.initializers
        graph = ir.Graph(
            listed,
            [output.value for output in outputs],
            nodes=self.nodes,
            initializers=self.initializers,
            opset_imports={"": self.opset} | {n.domain: 1 for n in self.nodes if n.domain},
            name="net",
        )
        model = ir.Model(graph, ir_version=self.ir_version)
        ShapeInferencePass(check_type=True)(model)
        for output in outputs:
            if output.value.shape is None:  # from shape arithmetic, say
                output.value.shape = ir.Shape([self.batch, *(output.shape or (None,))])
        return model

    def model(self, *outputs: Tensor, dtype: ir.DataType | None = None) -> onnx.ModelProto:
        return ir.to_proto(self.ir_model(*outputs, dtype=dtype))


def i64(*values: int) -> Array:
    """A shape, or axes, as operators take them."""
    return np.array(values, np.int64)


def conv(
    net: Net,
    y: Tensor,
    extent: tuple[int, ...],
    kernel: int | tuple[int, ...] = 3,
    *,
    channels: int = 3,
    **attributes: Any,
) -> Tensor:
    """A convolution; ``extent`` is the size that it gives."""
    depth = y.shape[0] // attributes.get("group", 1)
    window = kernel if isinstance(kernel, tuple) else (kernel,) * len(extent)
    weight = net.random(channels, depth, *window)
    made = net.op("Conv", y, weight, net.random(channels), **attributes)
    return Tensor(made.value, (channels, *extent))


BYTE_OPERATORS = {"DequantizeLinear"} | {op_type for _, op_type in PRODUCTS}
"""Of models whose products of bytes onnxruntime may get wrong on this CPU."""


class OneThread(ort.SessionOptions):  # type: ignore[misc]
    """Each worker of the tests keeps one core busy; threads that wait for each other keep all."""

    def __init__(self) -> None:
        super().__init__()
        self.intra_op_num_threads = self.inter_op_num_threads = 1


def session(model: onnx.ModelProto | ir.Model) -> Run:
    """The model as a function from named inputs to named outputs; products of bytes are exact."""
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    if {node.op_type for node in proto.graph.node} & BYTE_OPERATORS:
        return Session(ir.from_proto(proto)).run
    options = OneThread()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4  # what fails is raised
    runner = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in runner.get_outputs()]

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(names, runner.run(names, dict(feeds)), strict=True))

    return run


def op_types(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]
