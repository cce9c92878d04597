"""For each code of a refusal the smallest model that gets it, and one that its hint makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir

from onnx_fc2conv import convert, convert_to_fc
from tests.nets import Net, Tensor, conv, i64

STATIC = {"static": True}


@dataclass(frozen=True)
class Refused:
    """A refusal and the way out.

    Attributes:
        model: Makes the model that is refused.
        node: What the refusal names.
        reason: Parts of its reason: the shapes or numbers that decided, where some did.
        options: How it is converted.
        hint: Other options with which the same model is converted, or what makes the model that
            the hint asks for.
        rewrite: What refuses.
    """

    model: Callable[[], onnx.ModelProto]
    node: str
    reason: tuple[str, ...]
    hint: Mapping[str, Any] | Callable[[], onnx.ModelProto] = field(default_factory=lambda: STATIC)
    options: Mapping[str, Any] = field(default_factory=dict)
    rewrite: Callable[..., Any] = convert


def _on_map(part: Callable[[Net, Tensor], Tensor], **net: Any) -> Callable[[], onnx.ModelProto]:
    """An operator on the feature map [3, 3, 4], then a fully connected layer."""

    def build() -> onnx.ModelProto:
        made = Net(**net)
        return made.model(made.head(part(made, made.trunk())))

    return build


def _on_features(
    part: Callable[[Net, Tensor], Tensor], **net: Any
) -> Callable[[], onnx.ModelProto]:
    """An operator on the 36 flattened features, then a fully connected layer."""
    return _on_map(lambda made, y: part(made, made.flat(y)), **net)


def _on_scores(
    part: Callable[[Net, Tensor], Tensor], domain: str = "", **net: Any
) -> Callable[[], onnx.ModelProto]:
    """An operator on the scores [4] of a fully connected layer."""

    def build() -> onnx.ModelProto:
        made = Net(**net)
        model = made.ir_model(part(made, made.head(made.trunk())))
        if domain:
            model.graph.opset_imports[domain] = 1
        return ir.to_proto(model)

    return build


def _attention(net: Net, y: Tensor) -> Tensor:
    token = net.op("Unsqueeze", y, i64(1))
    return net.op("Attention", *[token] * 3, q_num_heads=1, kv_num_heads=1, name="n")


def _called() -> onnx.ModelProto:
    """The last layer is a function of another opset."""
    net = Net(opset=21)
    model = net.model(net.head(net.trunk()))
    last = model.graph.node.pop()
    inputs, outputs = list(last.input), list(last.output)
    opset = onnx.helper.make_opsetid("", 20)
    function = onnx.helper.make_function("own", "Fc", inputs, outputs, [last], [opset])
    model.functions.append(function)
    model.graph.node.append(onnx.helper.make_node("Fc", inputs, outputs, domain="own"))
    model.opset_import.append(onnx.helper.make_opsetid("own", 1))
    return model


def _swapped_axes(net: Net, y: Tensor) -> Tensor:
    y = net.op("Reshape", y, i64(-1, 3, 4, 3), shape=(3, 4, 3))
    return net.op("MaxPool", y, kernel_shape=[2, 2], shape=(3, 3, 2), name="n")


def _one_sample(batch: int) -> Callable[[], onnx.ModelProto]:
    def part(net: Net, y: Tensor) -> Tensor:
        return net.op("Reshape", y, i64(1, 4 * batch), name="n")

    return _on_scores(part, batch=batch)


def _two_images(batch: int | str) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        net = Net(batch=1 if batch == 2 else batch)
        other = net.input("x2", (batch, *net.image))
        both = [net.head(conv(net, image, (6, 8))) for image in (net.x, other)]
        return net.model(*both)

    return build


def _bias_of_samples(net: Net, y: Tensor) -> Tensor:
    return net.op("Gemm", y, net.random(4, 4), net.random(4, 1), name="n")


def _ceiled(net: Net, y: Tensor) -> Tensor:
    window = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}
    return net.op("AveragePool", y, count_include_pad=1, shape=(3, 2, 2), name="n", **window)


def _coordinates(net: Net, y: Tensor) -> Tensor:
    return net.op("Concat", y, net.random(1, 1, 3, 4), axis=1, shape=(4, 3, 4), name="n")


def _best_class() -> onnx.ModelProto:
    net = Net()
    best = net.op("ArgMax", net.head(net.trunk()), axis=1, keepdims=0, name="n")
    return net.model(best, dtype=ir.DataType.INT64)


def _best_score(net: Net, y: Tensor) -> Tensor:
    best = net.op("ArgMax", y, axis=1, keepdims=1)
    return net.op("GatherElements", y, best, axis=1, name="n")


def _dropout(*, mask: bool) -> Callable[[], onnx.ModelProto]:
    def part(net: Net, y: Tensor) -> Tensor:
        dropped, kept = net.ops("Dropout", y, outputs=2, shape=y.shape, name="n")
        return net.op("Where", kept, dropped, y, shape=y.shape) if mask else dropped

    return _on_features(part)


def _flattened_output() -> onnx.ModelProto:
    net = Net()
    flat = net.op("Flatten", net.trunk(), shape=(36,), name="n")
    return net.model(net.fc(flat), flat)


def _convolved(channels: int) -> Callable[[], onnx.ModelProto]:
    return _on_map(
        lambda net, y: net.op("Conv", y, net.random(3, channels, 2, 2), shape=(3, 2, 3), name="n")
    )


def _rows_normalized(net: Net, y: Tensor) -> Tensor:
    turned = net.op("Transpose", y, perm=[0, 2, 3, 1], shape=(3, 4, 3))
    scales = (net.random(3), net.random(3), net.random(3), np.ones(3, np.float32))
    return net.op("BatchNormalization", turned, *scales, shape=(3, 4, 3), name="n")


def _two_strides() -> onnx.ModelProto:
    net = Net()
    fine = net.op("Conv", net.x, net.random(3, 2, 6, 7))
    coarse = net.op("Conv", net.x, net.random(3, 2, 3, 3), strides=[2, 2])
    return net.model(net.head(net.op("Add", fine, coarse, shape=(3, 3, 4), name="n")))


def _shifted(*shape: int) -> Callable[[], onnx.ModelProto]:
    def part(net: Net, y: Tensor) -> Tensor:
        return net.op("Add", y, net.op("Reshape", net.random(4), i64(*shape)), name="n")

    return _on_scores(part)


def _fully_convolutional() -> onnx.ModelProto:
    net = Net()
    return net.model(net.op("GlobalAveragePool", net.trunk()))


def _of_opset(opset: int, op_type: str) -> Callable[[], onnx.ModelProto]:
    def part(net: Net, y: Tensor) -> Tensor:
        return net.op(op_type, y, kernel_shape=[2, 2], shape=(3, 2, 3), name="n")

    return _on_map(part, opset=opset, ir_version=3, batch=1)


def _of_any_size() -> onnx.ModelProto:
    net = Net()
    model = net.ir_model(net.op("Conv", net.x, net.random(3, 2, 3, 3), name="n"))
    model.graph.inputs[0].shape = ir.Shape(["N", 2, "H", "W"])
    return ir.to_proto(model)


def _convolution() -> onnx.ModelProto:
    net = Net()
    return net.model(net.op("Conv", net.x, net.random(3, 2, 3, 3), shape=(3, 6, 8), name="n"))


def _with_a_side(shape: tuple[int | str, ...]) -> Callable[[], onnx.ModelProto]:
    def part(net: Net, y: Tensor) -> Tensor:
        return net.op("Add", y, net.input("age", shape), shape=(4,), name="n")

    return _on_scores(part)


def _pool_indices(net: Net, y: Tensor) -> Tensor:
    pooled, where = net.ops("MaxPool", y, outputs=2, kernel_shape=[2, 2], name="n")
    return net.op("Add", pooled, net.op("Cast", where, to=ir.DataType.FLOAT), shape=(3, 2, 3))


def _scaled(*, first: bool) -> Callable[[], onnx.ModelProto]:
    def part(net: Net, y: Tensor) -> Tensor:
        if first:
            y = net.op("Add", y, net.random(36), shape=(36,))
            return net.op("Relu", y, shape=(36,), name="n")
        return net.op("Add", net.op("Relu", y), net.random(36), shape=(36,))

    return _on_features(part)


def _recurrent(net: Net, y: Tensor) -> Tensor:
    step = net.op("Unsqueeze", y, i64(0))
    made = net.ops("RNN", step, net.random(1, 3, 4), net.random(1, 3, 3), outputs=2, name="n",
                   hidden_size=3)  # fmt: skip
    return net.op("Squeeze", made[1], i64(0))


def _resized_rows(net: Net, y: Tensor) -> Tensor:
    rows = net.op("Reshape", y, i64(0, 3, 12, 1))
    scales = np.array([1, 1, 2, 1], np.float32)
    return net.op("Resize", rows, None, scales, mode="nearest", shape=(3, 24, 1), name="n")


def _softmax_of_two_maps() -> onnx.ModelProto:
    net = Net()
    one, two = (net.flat(y) for y in (net.trunk(), conv(net, net.x, (6, 8))))
    both = net.op("Concat", one, two, axis=1, shape=(180,))
    return net.model(net.fc(net.op("Softmax", both, shape=(180,), name="n")), net.fc(one))


def _any_size() -> onnx.ModelProto:
    model = _on_features(lambda net, y: net.op("Identity", y, shape=y.shape))()
    for axis, name in ((2, "H"), (3, "W")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    model.graph.node[-1].name = "n"
    return model


def _slides_over_scores(net: Net, y: Tensor) -> Tensor:
    cell = net.op("Reshape", y, i64(-1, 4, 1, 1))
    made = net.op("Conv", cell, net.random(4, 4, 3, 3), pads=[1] * 4, name="n")
    return net.op("Flatten", made, shape=(4,))


def _enlarged() -> onnx.ModelProto:
    """A Conv, which stays as it is, reads two cells for each of the map."""
    net = Net()
    scales = np.array([1, 1, 2, 2], np.float32)
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    made = net.op("Resize", net.trunk(), None, scales, nearest_mode="floor", **attributes)
    whole = net.op("Conv", made, net.random(4, 3, 6, 8), shape=(4, 1, 1))
    return net.model(net.flat(whole), net.head(net.x))


def _branch(net: Net, y: Tensor) -> Tensor:
    def graph(op_type: str) -> ir.Graph:
        node = ir.node(op_type, [y.value])
        node.outputs[0].name = f"of_{op_type}"
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        return ir.Graph([], node.outputs, nodes=[node], name=op_type)

    branches = {"then_branch": graph("Relu"), "else_branch": graph("Tanh")}
    total = net.op("ReduceSum", net.input("flag", (1,)), keepdims=0)
    bright = net.op("Greater", total, np.array(0, np.float32))
    return net.op("If", bright, shape=(3, 3, 4), name="n", **branches)


def _rows_of_other_elements() -> onnx.ModelProto:
    net = Net(image=(2, 34, 34))
    index = np.arange(8 * 16 * 16).reshape(16, 128)
    index[1::2] = index[1::2, ::-1]
    rows = net.op("Gather", net.flat(net.trunk(channels=8)), index, axis=1)
    made = net.op("MatMul", rows, net.random(128, 600), shape=(16, 600), name="n")
    return net.model(net.head(made, 2))


def _training(*, training: bool) -> Callable[[], onnx.ModelProto]:
    def part(net: Net, y: Tensor) -> Tensor:
        mode = (np.array(0.5, np.float32), np.array(training))
        return net.op("Dropout", y, *mode, shape=y.shape, name="n")

    return _on_features(part)


def _of_integers(dtype: ir.DataType) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        net = Net()
        flat = net.op("Cast", net.flat(net.trunk()), to=dtype)
        weight = net.rng.integers(-3, 3, (36, 4)).astype(dtype.numpy())
        made = net.op("MatMul", flat, weight, name="n")
        return net.model(net.op("Cast", made, to=ir.DataType.FLOAT, shape=(4,)))

    return build


def _by_its_range(net: Net, y: Tensor) -> Tensor:
    integers, scale, zero = net.ops("DynamicQuantizeLinear", y, outputs=3, name="n")
    weight = net.rng.integers(-9, 9, (36, 4)).astype(np.int8)
    total = net.op("MatMulInteger", integers, weight, zero)
    return net.op("Mul", net.op("Cast", total, to=ir.DataType.FLOAT), scale, shape=(4,))


def _quantized(scales: list[int]) -> Callable[[], onnx.ModelProto]:
    """A scale of the operand for each row, or one."""

    def part(net: Net, y: Tensor) -> Tensor:
        step, zero = np.full(scales, 0.1, np.float32), np.full(scales, 3, np.uint8)
        one = (np.array(0.1, np.float32), np.array(0, np.uint8))
        integers = net.op("QuantizeLinear", y, np.array(0.1, np.float32), np.array(3, np.uint8))
        weight = net.rng.integers(0, 9, (36, 4)).astype(np.uint8)
        made = net.op("QLinearMatMul", integers, step, zero, weight, *one, *one, name="n")
        return net.op("DequantizeLinear", made, *one, shape=(4,))

    return _on_features(part)


def _product_of_scores(net: Net, y: Tensor) -> Tensor:
    row, column = (net.op("Unsqueeze", y, i64(axis)) for axis in (1, 2))
    return net.op("MatMul", column, row, name="n")


def _product_of_positions(net: Net, y: Tensor) -> Tensor:
    return net.op("ReduceProd", y, axes=[2, 3], keepdims=1, shape=(3, 1, 1), name="n")


def _operator(op_type: str, *operands: Any, **attributes: Any) -> Callable[[Net, Tensor], Tensor]:
    return lambda net, y: net.op(op_type, y, *operands, shape=y.shape, name="n", **attributes)


def _strided_pooling(opset: int) -> Callable[[], onnx.ModelProto]:
    """Two poolings that halve the map; the second one has to be dilated for --stride 1."""

    def build() -> onnx.ModelProto:
        net = Net(image=(2, 12, 12), opset=opset)
        y = Tensor(net.op("MaxPool", net.x, kernel_shape=[2, 2], strides=[2, 2]).value, (2, 6, 6))
        y = net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2], name="n")
        return net.model(net.head(Tensor(y.value, (2, 3, 3))))

    return build


REFUSED: dict[str, Refused] = {
    "attention": Refused(
        _on_scores(_attention, opset=23, ir_version=11), "Attention n", ("all others",)
    ),
    "baked-size": Refused(_on_map(_swapped_axes), "MaxPool n", ("[1, 3, 4, 3]",)),
    "batch-mixing": Refused(_one_sample(2), "Reshape n", ("2 samples",), _one_sample(1)),
    "batch-sizes": Refused(_two_images(2), "model", ("x has 1", "x2 has 2"), _two_images("N")),
    "bias-not-constant": Refused(
        _on_scores(_bias_of_samples, batch=4), "Gemm n", ("other values for other samples",)
    ),
    "ceil-mode": Refused(_on_map(_ceiled), "AveragePool n", ("ceil_mode",)),
    "constant-features": Refused(_on_map(_coordinates, batch=1), "Concat n", ("joins a map",)),
    "data-dependent": Refused(_on_scores(_best_score), "GatherElements n", ("another input",)),
    "dropout-mask": Refused(_dropout(mask=True), "Dropout n", ("mask",), _dropout(mask=False)),
    "dynamic-quantization": Refused(
        _on_features(_by_its_range, batch=1), "DynamicQuantizeLinear n", ("whole tensor",)
    ),
    "flattened-features": Refused(_flattened_output, "Flatten n", ("'y2'", "[1, 36]")),
    "function": Refused(
        _called,
        "the functions",
        ("own::Fc", "21", "20"),
        lambda: onnx.inliner.inline_local_functions(_called(), convert_version=True),
    ),
    "invalid-node": Refused(_convolved(5), "Conv n", ("[3, 5, 2, 2]", "3 chan"), _convolved(3)),
    "layout": Refused(_on_map(_rows_normalized), "BatchNormalization n", ("axis 1",)),
    "misaligned": Refused(_two_strides, "Add n", ("strides 1 and 2",)),
    "no-rule": Refused(
        _on_map(_operator("ReverseSequence", i64(2), batch_axis=0, time_axis=1), batch=1),
        "ReverseSequence n",
        ("no rule",),
    ),
    "no-dilation": Refused(
        _strided_pooling(9),
        "MaxPool n",
        ("the model is of opset 9",),
        _strided_pooling(13),
        {"stride": 1},
    ),
    "not-a-matrix": Refused(
        _of_any_size,
        "Conv n",
        ("--input-shape",),
        {"input_shapes": {"x": (1, 2, 8, 10)}},
        rewrite=convert_to_fc,
    ),
    "not-computable": Refused(_shifted(3, 5), "Add n", ("cannot be computed",), _shifted(1, 4)),
    "nothing-to-convert": Refused(
        _fully_convolutional, "model", ("no Gemm or MatMul",), {"pool": "window"}
    ),
    "old-opset": Refused(
        _of_opset(1, "LpPool"), "LpPool n", ("LpPool-1",), _of_opset(1, "MaxPool")
    ),
    "other-domain": Refused(
        _on_scores(_operator("QuickGelu", domain="com.microsoft"), "com.microsoft"),
        "QuickGelu n",
        ("com.microsoft",),
    ),
    "other-input": Refused(
        _with_a_side(("N", "D")), "Add n", ("age", "[N, D]"), _with_a_side(("N", 4))
    ),
    "pool-indices": Refused(_on_map(_pool_indices), "MaxPool n", ("indices",)),
    "position-dependent": Refused(
        _scaled(first=True), "Relu n", ("position to position",), _scaled(first=False)
    ),
    "positional-constant": Refused(
        _on_map(lambda net, y: net.op("Max", y, net.random(3, 3, 4), shape=y.shape, name="n")),
        "Max n",
        ("[3, 3, 4]", "[3, 4]"),
    ),
    "post-processing": Refused(
        _on_scores(_operator("ArrayFeatureExtractor", i64(1), domain="ai.onnx.ml"), "ai.onnx.ml"),
        "ArrayFeatureExtractor n",
        ("ai.onnx.ml",),
    ),
    "quantized-form": Refused(
        _quantized([2]), "QLinearMatMul n", ("each row, [2]",), _quantized([])
    ),
    "recurrent": Refused(_on_scores(_recurrent), "RNN n", ("one after the other",)),
    "reduced-integers": Refused(
        _best_class,
        "ArgMax n",
        ("'y'", "INT64"),
        {},
        {"reduce": "mean"},
    ),
    "reshaped-map": Refused(_on_map(_resized_rows), "Resize n", ("reshaped",)),
    "several-maps": Refused(_softmax_of_two_maps, "Softmax n", ("[3, 4]", "[6, 8]")),
    "shape-mismatch": Refused(
        _any_size,
        "Gemm n",
        ("[1, 60]", "36 features", "--input-shape"),
        {"input_shapes": {"x": (1, 2, 8, 10)}},
        {"input_shapes": {"x": (1, 2, 12, 10)}},
    ),
    "slides-after-fc": Refused(_on_scores(_slides_over_scores), "Conv n", ("3×3",)),
    "subdivided-cells": Refused(
        _enlarged,
        "output y",
        ("one in 2 cells",),
    ),
    "subgraph": Refused(_on_map(_branch), "If n", ("subgraph",)),
    "token-wise": Refused(_rows_of_other_elements, "MatMul n", ("16 rows", "[1, 16, 128]")),
    "too-large": Refused(
        _convolution,
        "Conv n",
        ("144 × 160", "92.2 kB"),
        {"form": "im2col"},
        {"form": "dense", "max_bytes": 92_159},
        convert_to_fc,
    ),
    "training-mode": Refused(
        _training(training=True), "Dropout n", ("training",), _training(training=False)
    ),
    "unsupported-type": Refused(
        _of_integers(ir.DataType.INT32), "MatMul n", ("INT32",), _of_integers(ir.DataType.FLOAT)
    ),
    "weight-not-constant": Refused(_on_scores(_product_of_scores), "MatMul n", ("attention?",)),
    "weight-not-matrix": Refused(
        _on_scores(lambda net, y: net.op("MatMul", y, net.random(2, 4, 3), name="n")),
        "MatMul n",
        ("[2, 4, 3]",),
    ),
    "window-pooling": Refused(
        _on_map(_product_of_positions), "ReduceProd n", ("in each window",), {}, {"pool": "window"}
    ),
}
