"""A convolution as a matrix product, in exact integers against onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_fc2conv import ArgumentError, convert_to_fc, filter_matrix, patch_index
from onnx_fc2conv.geometry import SlidingWindow
from onnx_fc2conv.matrices import ConvLayer, conv_coordinates, conv_matrix_size
from tests.nets import Array, Net, Tensor, session


@dataclass(frozen=True)
class Case:
    """A Conv with integers for weights, and its input."""

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    attributes: dict[str, Any]
    bias: bool
    batch: int

    @property
    def net(self) -> Net:
        return Net(image=self.image)

    def integers(self, *shape: int) -> Array:
        seed = prod(shape)
        return np.random.default_rng(seed).integers(-8, 9, shape).astype(np.float32)

    def ir_model(self) -> ir.Model:
        net = self.net
        bias = (self.integers(self.kernel[0]),) if self.bias else ()
        return net.ir_model(
            net.op("Conv", net.x, self.integers(*self.kernel), *bias, **self.attributes)
        )

    def images(self) -> Array:
        return self.integers(self.batch, *self.image)

    def expected(self) -> Array:
        return session(self.ir_model())({"x": self.images()})["y"]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rank = draw(st.integers(1, 3))
    spatial = st.integers(1, 7 if rank < 3 else 4)
    extent = tuple(draw(spatial) for _ in range(rank))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    depth, outputs = draw(st.integers(1, 3)), groups * draw(st.integers(1, 2))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    dilations = tuple(draw(st.integers(1, 2)) for _ in range(rank))
    strides = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": groups}
    auto_pad = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    pads = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    if auto_pad == "NOTSET":
        attributes["pads"] = pads
    else:
        attributes["auto_pad"] = auto_pad
        pads = [0] * (2 * rank)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if not auto_pad.startswith("SAME"):
        short = [max(0, s - e) for s, e in zip(spans, extent, strict=True)]
        extent = tuple(e + s for e, s in zip(extent, short, strict=True))
    elif any(d > 1 for d in dilations):  # onnxruntime pads as if there were no dilation
        attributes["dilations"] = (1,) * rank
    return Case(
        (groups * depth, *extent),
        (outputs, depth, *kernel),
        attributes,
        draw(st.booleans()),
        draw(st.integers(1, 3)),
    )


@given(cases())
def test_both_forms_are_the_convolution_bit_for_bit(case: Case) -> None:
    expected = case.expected()
    for form in ("im2col", "dense"):
        model = convert_to_fc(case.ir_model(), form=form).model  # type: ignore[arg-type]
        assert not any(node.op_type == "Conv" for node in model.graph)
        np.testing.assert_array_equal(session(model)({"x": case.images()})["y"], expected)


@given(cases())
def test_the_size_of_a_matrix_is_predicted(case: Case) -> None:
    (conv,) = case.ir_model().graph
    layer = ConvLayer.of(conv, (None, *case.image))
    size, found = conv_matrix_size(layer), conv_coordinates(layer)
    assert (size.rows, size.columns) == found.shape
    assert size.nonzeros == len(found.values)
    assert size.dense_bytes == found.dense().nbytes
    places = found.rows * size.columns + found.columns
    assert len(np.unique(places)) == size.nonzeros
    assert (np.diff(found.ordered().rows * size.columns + found.ordered().columns) > 0).all()


@given(cases())
def test_patches_times_filters(case: Case) -> None:
    """The two matrices of Ma & Lu, section 4, in numpy."""
    (conv,) = case.ir_model().graph
    index, filters = patch_index(conv, (1, *case.image)), filter_matrix(conv)
    positions = prod(case.image[1:])
    rows = case.images()[0].reshape(case.image[0], positions).T
    rows = np.concatenate([rows, np.zeros_like(rows[:1])])
    groups = case.attributes["group"]
    patches = rows[index].reshape(*index.shape, groups, -1)
    by_group = filters if groups > 1 else filters[None]
    made = [patches[:, :, g].reshape(len(index), -1) @ by_group[g] for g in range(groups)]
    product = np.concatenate(made, axis=1).T
    if case.bias:
        product += case.integers(case.kernel[0])[:, None]
    np.testing.assert_array_equal(product, case.expected()[0].reshape(case.kernel[0], -1))


def test_the_figures_of_a_large_layer_need_no_memory() -> None:
    """A 3x3 layer of 64 channels on 224x224 pixels: 41 TB, nearly all of it zero."""
    shape = ir.Shape([64, 64, 3, 3])
    kernel = ir.LazyTensor(_never, dtype=ir.DataType.FLOAT, shape=shape, name="w")
    window = SlidingWindow.resolve((224, 224), (3, 3), pads=(1, 1, 1, 1))
    size = conv_matrix_size(ConvLayer(kernel, 1, window))
    assert (size.entries, size.nonzeros) == (64**2 * 224**4, 64**2 * (3 * 224 - 2) ** 2)
    assert round(size.dense_bytes / 1e12) == 41


def _never() -> ir.TensorProtocol:
    raise AssertionError("the kernel was read")


@pytest.mark.parametrize("form", ["im2col", "dense"])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_kernel_of_the_whole_map_and_back(form: str, transposed: bool) -> None:
    """conv2fc gives the FC layer's own bytes back, and fc2conv the kernel's."""
    from onnx_fc2conv import convert  # noqa: PLC0415

    net = Net(image=(3, 4, 5), seed=3)
    if transposed:
        net.image = (3, 5, 4)
    kernel = net.random(6, 3, 4, 5)
    model = net.ir_model(net.op("Flatten", net.op("Conv", net.x, kernel, net.random(6))))
    matrix = convert_to_fc(model, form=form).model  # type: ignore[arg-type]
    assert not any(node.op_type == "Conv" for node in matrix.graph)
    (layer,) = convert(matrix).heads
    assert layer.kernel_shape == kernel.shape
    back = convert(matrix).model
    assert back is not None
    stored = back.graph.initializers[layer.kernel].const_value
    assert stored is not None
    assert stored.numpy().tobytes() == kernel.tobytes()


def test_the_first_gemm_comes_back_byte_for_byte() -> None:
    from onnx_fc2conv import convert  # noqa: PLC0415

    net = Net(image=(2, 8, 10))
    trunk = net.trunk()
    model = net.ir_model(net.head(trunk))
    (weight,) = [v.const_value for v in model.graph.initializers.values() if v.shape == (4, 36)]
    assert weight is not None
    dense = convert(model).model
    assert dense is not None
    fc = convert_to_fc(dense, form="dense", input_shapes={"x": (1, 2, 8, 10)}).model
    last = [node for node in fc.graph if node.op_type == "Gemm"][-1]
    matrix = last.inputs[1]
    assert matrix is not None
    assert matrix.const_value is not None
    assert matrix.const_value.numpy().tobytes() == weight.numpy().tobytes()


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((1, 5, 8, 8), "does not fit an input"),
        ((1, 2, 2, 2), "does not fit an input"),
        ((1, 2, 8), "does not fit an input"),
    ],
)
def test_a_shape_that_does_not_fit(shape: tuple[int, ...], why: str) -> None:
    net = Net()
    (conv,) = net.ir_model(net.op("Conv", net.x, net.random(3, 2, 3, 3))).graph
    with pytest.raises(ArgumentError, match=why):
        patch_index(conv, shape)


def test_a_node_that_is_no_convolution() -> None:
    net = Net()
    y: Tensor = net.op("Relu", net.x)
    (node,) = net.ir_model(y).graph
    with pytest.raises(ArgumentError, match="Relu"):
        filter_matrix(node)
    with pytest.raises(ArgumentError, match="it is no Conv"):
        patch_index(node, (1, 2, 8, 10))


def test_a_kernel_of_the_inputs_size_that_is_shifted_by_padding() -> None:
    """It covers another window than the input: its bytes are not the matrix."""
    case = Case((1, 3), (1, 1, 3), {"pads": [1, 0], "strides": [3]}, bias=False, batch=2)
    model = convert_to_fc(case.ir_model(), form="dense").model
    np.testing.assert_array_equal(session(model)({"x": case.images()})["y"], case.expected())
